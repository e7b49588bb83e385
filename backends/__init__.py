"""Backends: they run a verified queue kernel."""
