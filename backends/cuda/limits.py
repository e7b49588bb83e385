"""What kernels for GPUs cannot do at all, whatever the model."""

MOST_TOKENS = 8
"""Tokens of a step: the n side of the matrix instructions."""
