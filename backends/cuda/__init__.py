"""The CUDA backend: emit, compile, pack, load, launch."""
