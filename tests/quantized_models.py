"""Kernels of random Llama models with quantised weights."""

from __future__ import annotations

EVERY_FORMAT = {
    "int8": ("gqa", {"weights": "int8", "head": "int8"}),
    "int8 groups": ("biases", {"weights": "int8:g32:f16", "head": "int8:g16"}),
    "int8 zero points": ("mqa", {"weights": "int8:g64:zp", "head": "int8:zp"}),
    "fp8": ("mha", {"weights": "fp8", "head": "fp8:g32", "embedding": "fp8"}),
    "fp8 blocks": ("gqa", {"weights": "fp8:b32x32", "head": "fp8:b128x16:bf16"}),
    "int4": ("odd", {"weights": "int4", "head": "int4", "embedding": "int8"}),
    "int4 groups": ("gqa", {"weights": "int4:g32:f16", "head": "int4:g64"}),
    "int4 zero points": ("odder", {"weights": "int4:g32:zp", "head": "int4:g16:zp:f16"}),
    "int4 minimums": ("mha", {"weights": "int4:g32:min:f16", "head": "int4:min", "embedding": "int4:g16:min"}),
}
"""Configurations of cuda_models with options of graph-to-queue: every storage, group, zero point and scale type."""
