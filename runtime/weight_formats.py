"""Weights as if they were stored in another format: what quantising costs in accuracy, on any backend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from numpy.typing import NDArray

from ..amk_ir.attrs import CheckpointAttr
from ..amk_ir.dtypes import bf16_from_f32, round_to_bf16
from ..amk_ir.errors import CheckpointError, UsageError
from ..amk_ir.quantization import QuantizedFormat, parse_format, quantize
from ..amk_ir.quantized_type import QuantizedRows
from ..dialects.graph import EmbeddingOp, LinearOp, ModelOp, WeightOp

if TYPE_CHECKING:
    from ..frontends.checkpoint import Checkpoint

WeightFormat: TypeAlias = QuantizedFormat | Literal["f32", "bf16", "stored"]
"""What the matrices are: float32 or bfloat16 values, quantised, or as the checkpoint has them and else bfloat16."""


def parse_weight_format(text: str) -> WeightFormat:
    """`f32`, `bf16`, `stored`, or a quantised format.

    Raises:
        UsageError: none of them.
    """
    match text:
        case "f32" | "bf16" | "stored":
            return text
        case _:
            try:
                return parse_format(text)
            except UsageError as e:
                raise UsageError(f"{e}; or f32, bf16 or stored") from e


@dataclass(frozen=True)
class Matrices:
    """The checkpoint names of a model's matrices. linear: those of the layers. outer: the head and the embedding."""

    linear: frozenset[str]
    outer: frozenset[str]

    @classmethod
    def of(cls, model: ModelOp) -> Matrices:
        """Those of a graph."""
        ops = {op.sym_name.data: op for op in model.body.block.ops if isinstance(op, WeightOp)}
        used: dict[str, bool] = {}
        for op in model.step.walk():
            if isinstance(op, LinearOp):
                name = op.weight.string_value()
                used[name] = ops[name].layers is not None
            elif isinstance(op, EmbeddingOp):
                used.setdefault(op.table.string_value(), False)
        linear, outer = set[str](), set[str]()
        for symbol, is_linear in used.items():
            (linear if is_linear else outer).update(_entries(ops[symbol]))
        return cls(frozenset(linear), frozenset(outer))


def _entries(op: WeightOp) -> Iterable[str]:
    if not isinstance(op.source, CheckpointAttr):
        return ()
    if op.layers is None:
        return (op.source.data,)
    return (op.source.data.replace("{layer}", str(layer)) for layer in range(op.layers.value.data))


class FormattedWeights:
    """A checkpoint whose matrices have been through a format.

    Those of the layers, and with `outer` the head and the embedding too, are quantised and dequantised exactly as
    `QuantizedTensor.dequantize` says; all other matrices are rounded to bfloat16. Vectors stay float32.
    """

    def __init__(self, checkpoint: Checkpoint, matrices: Matrices, format: WeightFormat, *, outer: bool = False):
        """Raises UsageError if `format` does not fit one of the matrices."""
        self._checkpoint = checkpoint
        self._format = format
        self._matrices = matrices.linear | matrices.outer
        self._quantized = self._matrices if outer else matrices.linear
        if isinstance(format, QuantizedFormat):
            for name in sorted(self._quantized):
                if (problem := QuantizedRows(format, checkpoint.info(name).shape[-1]).problem) is not None:
                    raise UsageError(f"{format}: {name}: {problem}")

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        """The tensor `name` as float32 values, or rounded to bfloat16 bit patterns for dtype "bf16".

        Raises CheckpointError: as `Checkpoint.load`, or values that cannot be quantised.
        """
        values = self._checkpoint.load(name)
        if name in self._matrices and self._format != "f32":
            if isinstance(self._format, QuantizedFormat):
                if name in self._quantized:
                    try:
                        values = quantize(values, self._format, self._checkpoint.importance(name)).dequantize()
                    except UsageError as e:  # of the values
                        raise CheckpointError(f"tensor '{name}': {e}") from e
                else:
                    values = round_to_bf16(values)
            elif self._format == "bf16" or self._checkpoint.info(name).quantized is None:
                values = round_to_bf16(values)
        return values if dtype == "f32" else bf16_from_f32(values)

    def nbytes(self) -> int:
        """Bytes of all matrices in this format."""
        return sum(self._bytes_of(name) for name in self._matrices)

    def _bytes_of(self, name: str) -> int:
        info = self._checkpoint.info(name)
        format = self._format
        if format == "stored":
            format = info.quantized or "bf16"
        if isinstance(format, QuantizedFormat):
            if format is info.quantized or name in self._quantized:
                rows, columns = info.shape
                return format.nbytes((rows, columns))
            format = "bf16"
        return prod(info.shape) * (4 if format == "f32" else 2)
