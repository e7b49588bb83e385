"""Passes between and within the dialects, and the schedule verifier."""
