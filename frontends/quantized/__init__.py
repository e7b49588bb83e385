"""Quantised checkpoints: one file for each layout in which tools store quantised matrices."""
