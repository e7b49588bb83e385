"""The command line tools and the registry that ties the floors together."""
