"""`quantize-weights`: give the matrices of a model quantised types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import prod
from typing import cast

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, SymbolRefAttr, TensorType
from xdsl.ir import Attribute, SSAValue
from xdsl.passes import ModulePass
from xdsl.traits import SymbolTable
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.attrs import CheckpointAttr
from ..amk_ir.errors import UsageError
from ..amk_ir.quantization import QuantizedFormat, parse_format
from ..amk_ir.quantized_type import QuantizedRows, QuantizedType
from ..dialects import graph

KINDS = ("linear", "head", "embedding")
"""Kinds of matrices: of linear ops in layers, of those outside, and tables of embeddings that are not also a head."""

Choice = Callable[[graph.WeightOp, str], QuantizedFormat | None]
"""The format of a weight of a kind of `KINDS`; None leaves it as it is."""


@dataclass(frozen=True)
class QuantizeWeightsPass(ModulePass):
    """Quantises the matrices that linear ops multiply: their types say how, the checkpoint's values are quantised when loaded.

    format: of the linear ops inside `graph.layers` (`int8`, `int8:g128`, `int4:g128`, `int4:g128:zp`, `fp8`,
    `fp8:b128x128`, ...). head, embedding: of linear ops outside of layers, and of embedding tables; `none` leaves
    them. A table that is also the head is a head. keep: names of weights to leave alone, with `*` and `?`.
    """

    name = "quantize-weights"

    format: str = "int8"
    head: str = "none"
    embedding: str = "none"
    keep: tuple[str, ...] = ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        formats = {
            kind: self._format(option, text)
            for kind, option, text in zip(
                KINDS, ("format", "head", "embedding"), (self.format, self.head, self.embedding), strict=True
            )
        }
        models = [model for model in op.ops if isinstance(model, graph.ModelOp)]
        names = {w.sym_name.data for model in models for w in _weights(model)}
        for pattern in self.keep:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise PassFailedException(
                    f"{self.name}: keep: no weight is called {pattern!r}; there are {', '.join(sorted(names))}"
                )

        def choose(weight: graph.WeightOp, kind: str) -> QuantizedFormat | None:
            kept = any(fnmatchcase(weight.sym_name.data, pattern) for pattern in self.keep)
            return None if kept else formats[kind]

        for model in models:
            quantize_model(model, choose)

    def _format(self, option: str, text: str) -> QuantizedFormat | None:
        if text == "none":
            return None
        try:
            return parse_format(text)
        except UsageError as e:
            raise PassFailedException(f"{self.name}: {option}: {e}") from e


def quantize_model(model: graph.ModelOp, choose: Choice) -> None:
    """Changes the types of the matrices of `model` as `choose` says; PassFailedException if a format does not fit one."""
    for name, (kind, columns) in matrices(model).items():
        weight = SymbolTable.lookup_symbol(model, SymbolRefAttr(name))
        assert isinstance(weight, graph.WeightOp)
        if (format := choose(weight, kind)) is None:
            continue
        if not isinstance(weight.source, CheckpointAttr):
            raise PassFailedException(f"quantize-weights: @{name} does not come from a checkpoint")
        rows = QuantizedRows(format, columns)
        if rows.problem is not None:
            raise PassFailedException(f"quantize-weights: @{name}: {rows.problem}; use smaller groups, or keep @{name}")
        weight.properties["type"] = TensorType(QuantizedType(rows), weight.type.get_shape())


def matrices(model: graph.ModelOp) -> dict[str, tuple[str, int]]:
    """The weights of linear and embedding ops by name: (kind of `KINDS`, columns of their rows).

    PassFailedException if one is used in rows of different lengths.
    """
    found: dict[str, tuple[str, int]] = {}
    for op in model.step.walk():
        match op:
            case graph.LinearOp():
                name, columns = op.weight.string_value(), prod(_shape(op.x)[1:])
                kind = "head" if graph.enclosing_layers(op) is None else "linear"
            case graph.EmbeddingOp():
                name, columns = op.table.string_value(), _shape(op.result)[-1]
                kind = "embedding"
            case _:
                continue
        known = found.get(name, (kind, columns))
        if known[1] != columns:
            raise PassFailedException(
                f"quantize-weights: @{name} is used in rows of {known[1]} and of {columns} columns; declare it twice"
            )
        found[name] = (min(kind, known[0], key=KINDS.index), columns)
    return found


def _shape(value: SSAValue) -> tuple[int, ...]:
    return cast(TensorType[Attribute], value.type).get_shape()


def _weights(model: graph.ModelOp) -> Iterator[graph.WeightOp]:
    return (op for op in model.body.block.ops if isinstance(op, graph.WeightOp))
