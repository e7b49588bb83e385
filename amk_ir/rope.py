"""Rotary frequencies, in float32 as transformers computes them (`modeling_rope_utils`)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .attrs import RopeFrequencies


def inverse_frequencies(rope: RopeFrequencies) -> NDArray[np.float32]:
    """The `head_dim / 2` rotation frequencies in radians per position.

    default: theta^(-2i/d). linear: that over `factor`. llama3: unchanged above the high-frequency wavelength, divided
    by `factor` below the low-frequency one, interpolated between.
    """
    exponents = np.arange(0, rope.head_dim, 2, dtype=np.int64).astype(np.float32) / np.float32(rope.head_dim)
    frequencies = (np.float32(1.0) / np.power(np.float32(rope.theta), exponents)).astype(np.float32)
    if rope.scaling == "default":
        return frequencies
    factor = np.float32(rope.factor)
    if rope.scaling == "linear":
        return (frequencies / factor).astype(np.float32)
    low_wavelength = rope.original_max_position / rope.low_freq_factor
    high_wavelength = rope.original_max_position / rope.high_freq_factor
    wavelengths = np.float32(2 * math.pi) / frequencies
    scaled = np.where(wavelengths > low_wavelength, frequencies / factor, frequencies)
    smooth = (np.float32(rope.original_max_position) / wavelengths - np.float32(rope.low_freq_factor)) / np.float32(
        rope.high_freq_factor - rope.low_freq_factor
    )
    smoothed = (1 - smooth) * scaled / factor + smooth * scaled
    medium = ~(wavelengths < high_wavelength) & ~(wavelengths > low_wavelength)
    return np.where(medium, smoothed, scaled).astype(np.float32)


def turns_bytes(rows: int, frequencies: int) -> int:
    """Shared memory for the cosine and sine, in f32, of `rows` positions times each frequency."""
    return 8 * rows * frequencies
