"""Weights for the interpreters: from a checkpoint's entries to float32 arrays of the shape that the IR declares."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import bf16
from xdsl.ir import Attribute

from ...amk_ir.attrs import CheckpointAttr, RopeFrequenciesAttr
from ...amk_ir.dtypes import f32_from_bf16, round_to_bf16
from ...amk_ir.errors import CheckpointError
from ...amk_ir.quantized_type import QuantizedType
from ...amk_ir.quantized_weights import quantized_entry
from ...amk_ir.rope import inverse_frequencies
from .numerics import F32


class WeightProvider(Protocol):
    """Where the tensors that `#amk.checkpoint` names come from: a frontend's checkpoint is one."""

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        """The tensor `name` as float32 values (dtype "f32") or bfloat16 bit patterns (dtype "bf16", uint16)."""
        ...


Progress: TypeAlias = Callable[[str, int, int], None]
"""Told about long work as (what, done, total)."""


def no_progress(what: str, done: int, total: int) -> None:
    """The `Progress` of those who do not want to know."""


def load_weight(
    source: CheckpointAttr | RopeFrequenciesAttr,
    layer: int | None,
    shape: tuple[int, ...],
    element: Attribute,
    provider: WeightProvider | None,
) -> F32:
    """One entry as contiguous float32 of `shape`, rounded to bf16 or dequantised if that is the element type.

    Rope frequencies are computed and need no provider.

    May be a read-only view of the provider's file.

    Raises:
        CheckpointError: no such entry, or one of another number of elements.
    """
    if isinstance(source, RopeFrequenciesAttr):
        values = inverse_frequencies(source.data)
        return round_to_bf16(values) if element == bf16 else values
    assert provider is not None
    name = source.data if layer is None else source.data.replace("{layer}", str(layer))
    if isinstance(element, QuantizedType):
        values = quantized_entry(provider, name, element, prod(shape)).dequantize()
    elif element == bf16:
        values = f32_from_bf16(provider.load(name, "bf16"))
    else:
        values = np.asarray(provider.load(name, "f32"), np.float32)
    if values.size != prod(shape):
        raise CheckpointError(
            f"tensor '{name}' has shape {'x'.join(map(str, values.shape))}, "
            f"the program declares {'x'.join(map(str, shape))}: was it compiled from another checkpoint?"
        )
    return np.ascontiguousarray(values).reshape(shape)
