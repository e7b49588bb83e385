"""Sessions, sampling, compiling and its cache; knows backends only by their interface."""
