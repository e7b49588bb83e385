"""What the SMs do in a step: collected on a GPU, aligned in time, summed up, and drawn."""
