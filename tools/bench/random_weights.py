"""Random weights of a shape, the same in every run: enough to measure and to compare logits, without a checkpoint."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import cache
from math import prod
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.dtypes import bf16_from_f32, f32_from_bf16
from ...amk_ir.errors import CheckpointError
from ...frontends.recipe import DecoderConfig, Recipe

DEVIATION = 0.02
"""Standard deviation of the matrices: what models of these families are initialised with."""

_POOL = 2**26 - 5
"""Values that are drawn; a prime, so that the rows of a matrix that is larger never repeat in step."""


def weight_shapes(recipe: Recipe, config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors that a checkpoint of this configuration has, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for weight in recipe.weights:
        if weight.exists(config):
            for layer in range(config.layers if weight.per_layer else 1):
                shapes[weight.name.replace("{layer}", str(layer))] = weight.stored_shape(config)
    return shapes


class RandomWeights:
    """Normal weights of deviation `DEVIATION`, norm weights about 1; all of them are bf16 numbers.

    Each tensor is a window, at a place that its name decides, of one sequence of random numbers: making billions of
    numbers would take longer than to measure with them.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]):
        self.shapes = shapes

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        """As `Checkpoint.load`; CheckpointError for a tensor that the shape does not have."""
        if name not in self.shapes:
            raise CheckpointError(f"random weights: no tensor '{name}' among the {len(self.shapes)} of the shape")
        shape = self.shapes[name]
        bits = _window(zlib.crc32(name.encode()) % _POOL, prod(shape)).reshape(shape)
        if len(shape) == 1 and "norm" in name:
            bits = bf16_from_f32(f32_from_bf16(bits) + np.float32(1))
        return bits if dtype == "bf16" else f32_from_bf16(bits)


def _window(start: int, count: int) -> NDArray[np.uint16]:
    pool = _pool()
    result = np.empty(count, np.uint16)
    at = 0
    while at < count:
        size = min(count - at, _POOL - start)
        result[at : at + size] = pool[start : start + size]
        at, start = at + size, 0
    return result


@cache
def _pool() -> NDArray[np.uint16]:
    """bf16 bit patterns of normal numbers: random 16-bit integers name quantiles."""
    normal = NormalDist(0, DEVIATION)
    quantiles = np.array([normal.inv_cdf((i + 0.5) / 2**16) for i in range(2**16)], np.float32)
    numbers = np.random.Generator(np.random.SFC64(0)).integers(0, 2**16, _POOL, np.uint16)
    return bf16_from_f32(quantiles)[numbers]
