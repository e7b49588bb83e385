"""Checkpoints to the graph dialect."""
