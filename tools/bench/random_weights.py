"""Random weights of a shape, the same in every run: enough to measure and to compare logits, without a checkpoint."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import cache
from math import prod
from statistics import NormalDist
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.dtypes import bf16_from_f32, f32_from_bf16
from ...amk_ir.errors import CheckpointError
from ...amk_ir.float8 import E4M3_MAX, e4m3_from_f32
from ...amk_ir.quantization import Codes, QuantizedFormat, QuantizedTensor, as_scale_type
from ...amk_ir.quantized_type import QuantizedType
from ...frontends.recipe import DecoderConfig, Recipe

DEVIATION = 0.02
"""Standard deviation of the matrices: what models of these families are initialised with."""

_REACH = 3.5
"""How many deviations from their middle the codes of quantised matrices go."""
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

    Of quantised matrices codes and scales are drawn, so that nothing has to be quantised: normal codes that reach both ends
    of their range, and what a scale brings with it, all about what would make them weights like the others.

    Each tensor is a window, at a place that its name decides, of one sequence of random numbers: making billions of
    numbers would take longer than to measure with them.

    quantized: types of those that are quantised.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], quantized: Mapping[str, QuantizedType] | None = None):
        self.shapes = shapes
        self._types = quantized or {}

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        """As `Checkpoint.load`; CheckpointError for a tensor that the shape does not have."""
        if name not in self.shapes:
            raise CheckpointError(f"random weights: no tensor '{name}' among the {len(self.shapes)} of the shape")
        shape = self.shapes[name]
        if (tensor := self.quantized(name)) is not None:
            values = tensor.dequantize().reshape(shape)
            return bf16_from_f32(values) if dtype == "bf16" else values
        bits = _window(_normal_bf16(), name, prod(shape)).reshape(shape)
        if len(shape) == 1 and "norm" in name:
            bits = bf16_from_f32(f32_from_bf16(bits) + np.float32(1))
        return bits if dtype == "bf16" else f32_from_bf16(bits)

    def quantized(self, name: str) -> QuantizedTensor | None:
        """As `Checkpoint.quantized`."""
        if (type := self._types.get(name)) is None:
            return None
        format, shape = type.format, (prod(self.shapes[name]) // type.columns, type.columns)
        per_scale = format.scales_shape(shape)
        middle, reach = _code_span(format)

        def draw(what: str) -> NDArray[np.float32]:
            """For each scale, a number from -1 to 1."""
            numbers = _window(_numbers(), f"{what} of {name}", prod(per_scale)).reshape(per_scale)
            return numbers.astype(np.float32) / np.float32(2**15) - np.float32(1)

        scales = np.float32(DEVIATION * _REACH / reach) * (np.float32(1) + draw("scales") / np.float32(4))
        if format.storage == "int4" and not format.zero_points and not format.minimums:
            scales *= np.sign(draw("signs") + np.float32(2**-16))  # as `quantize` makes them
        scales = as_scale_type(scales, format.scale_dtype)
        zeros = minimums = None
        if format.zero_points:
            zeros = np.rint(middle + draw("zeros")).astype(np.int8)
        if format.minimums:
            minimums = as_scale_type((-scales * (middle + draw("minimums"))).astype(np.float32), format.scale_dtype)
        codes = cast(Codes, _window(_normal_codes(format), name, prod(shape)).view(format.code_type).reshape(shape))
        return QuantizedTensor(format, shape, codes, scales, zeros, minimums)


def _code_span(format: QuantizedFormat) -> tuple[float, float]:
    """The code in the middle of the range, and how far the range goes from there, in steps of a scale."""
    if format.storage == "fp8_e4m3":
        return 0, E4M3_MAX
    lowest, highest = format.code_range
    return (0 if lowest < 0 else (highest + 1) / 2), (highest - lowest) / 2


def _window(pool: NDArray[Any], name: str, count: int) -> NDArray[Any]:
    """`count` numbers of `pool`, as a view, not to be written to, if there are as many; else it begins again at its end."""
    place = zlib.crc32(name.encode())
    if count <= _POOL:
        start = place % (_POOL - count + 1)
        view = pool[start : start + count]
        view.flags.writeable = False
        return view
    result = np.empty(count, pool.dtype)
    at, start = 0, place % _POOL
    while at < count:
        size = min(count - at, _POOL - start)
        result[at : at + size] = pool[start : start + size]
        at, start = at + size, 0
    return result


@cache
def _numbers() -> NDArray[np.uint16]:
    """Random 16-bit integers."""
    return np.random.Generator(np.random.SFC64(0)).integers(0, 2**16, _POOL, np.uint16)


@cache
def _quantiles() -> NDArray[np.float64]:
    """The quantiles of normal numbers of deviation 1 that 16-bit integers name."""
    normal = NormalDist()
    return np.array([normal.inv_cdf((i + 0.5) / 2**16) for i in range(2**16)])


@cache
def _normal_bf16() -> NDArray[np.uint16]:
    """bf16 bit patterns of normal numbers."""
    return bf16_from_f32(_quantiles() * DEVIATION)[_numbers()]


@cache
def _normal_codes(format: QuantizedFormat) -> NDArray[np.uint8]:
    """Bit patterns of normal codes, of which one in some thousands lies at an end of the range."""
    middle, reach = _code_span(format)
    steps = _quantiles() * (reach / _REACH)
    if format.storage == "fp8_e4m3":
        return e4m3_from_f32(steps)[_numbers()]
    codes = np.clip(np.rint(steps + middle), *format.code_range).astype(np.int8)
    return codes.view(np.uint8)[_numbers()]
