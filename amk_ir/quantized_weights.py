"""Entries of a checkpoint in the quantised form that the IR declares: what backends load."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from .errors import CheckpointError, UsageError
from .quantization import QuantizedTensor, quantize
from .quantized_type import QuantizedType


class LoadsTensors(Protocol):
    """A provider of tensors.

    It may also have `quantized(name)`: the `QuantizedTensor` that it stores, or None; and `importance(name)`: how much each
    input counts when the tensor is quantised, or None.
    """

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        """The tensor `name` as float32 values (dtype "f32")."""
        ...


def quantized_entry(provider: LoadsTensors, name: str, type: QuantizedType, elements: int) -> QuantizedTensor:
    """The tensor `name` as rows of `type.columns` in `type.format`: as stored if that is its format, else quantised now.

    elements: how many the program declares.

    Raises:
        CheckpointError: another number of elements, or values that cannot be quantised.
    """
    stored_form = cast("Callable[[str], QuantizedTensor | None] | None", getattr(provider, "quantized", None))
    stored = None if stored_form is None else stored_form(name)
    if stored is not None and stored.format == type.format and stored.shape[1] == type.columns:
        _check_size(name, stored.shape, type, elements)
        return stored
    find_importance = cast("Callable[[str], NDArray[Any] | None] | None", getattr(provider, "importance", None))
    importance = None if find_importance is None else find_importance(name)
    values = provider.load(name, "f32")
    _check_size(name, values.shape, type, elements)
    try:
        return quantize(values.reshape(-1, type.columns), type.format, importance)
    except UsageError as e:
        raise CheckpointError(f"tensor '{name}': {e}") from e


def _check_size(name: str, shape: tuple[int, ...], type: QuantizedType, elements: int) -> None:
    if prod(shape) != elements:
        raise CheckpointError(
            f"tensor '{name}' has shape {'x'.join(map(str, shape))}, the program declares {elements // type.columns} rows of "
            f"{type.columns}: was it compiled from another checkpoint?"
        )
