"""What a step must read from memory: the floor below which no kernel can go."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.dialects.builtin import BFloat16Type, ModuleOp, SymbolRefAttr
from xdsl.ir import Operation

from ..amk_ir.attrs import CheckpointAttr
from ..amk_ir.quantized_type import QuantizedType
from ..dialects.graph import CacheOp, EmbeddingOp, ModelOp, WeightOp


@dataclass(frozen=True)
class Footprint:
    """Numbers of elements.

    parameters: of all checkpoint tensors that the model uses. matrices, vectors: of the weights that one token reads,
    all of each weight except embedding tables, of which it reads a row unless they are also the head; vectors (norm
    weights and biases) are always float32. kv_per_position: of the caches; a step at position p reads about p times as
    many. typed_bytes: bytes of weights that a token reads, each as its type says, scales of quantised ones included.
    """

    parameters: int
    matrices: int
    vectors: int
    kv_per_position: int
    typed_bytes: int

    def weight_bytes(self, itemsize: int) -> int:
        """Bytes of weights that a token reads, with matrices of `itemsize` bytes an element."""
        return self.matrices * itemsize + self.vectors * 4


def model_of(module: ModuleOp) -> ModelOp:
    """The graph.model of an imported module."""
    return next(op for op in module.ops if isinstance(op, ModelOp))


def footprint(model: ModelOp) -> Footprint:
    """Counts what `model` reads."""
    whole: set[str] = set()
    rows: set[str] = set()
    for op in model.step.walk():
        (rows if isinstance(op, EmbeddingOp) else whole).update(_symbols(op))
    parameters = matrices = vectors = kv = typed = 0
    for op in model.body.block.ops:
        if isinstance(op, CacheOp):
            kv += _elements(op) // op.type.get_shape()[0]
        elif isinstance(op, WeightOp) and isinstance(op.source, CheckpointAttr):
            parameters += _elements(op)
            name, shape = op.sym_name.data, op.type.get_shape()
            if name in whole and len(shape) == 1:
                vectors += _elements(op)
                typed += _bytes(op)
            elif name in whole:
                matrices += _elements(op)
                typed += _bytes(op)
            elif name in rows:
                matrices += _elements(op) // shape[0]
                typed += _bytes(op) // shape[0]
    return Footprint(parameters, matrices, vectors, kv, typed)


def _symbols(op: Operation) -> set[str]:
    return {a.root_reference.data for a in op.properties.values() if isinstance(a, SymbolRefAttr)}


def _bytes(op: WeightOp) -> int:
    """Bytes of a weight of all layers."""
    element, elements = op.type.get_element_type(), prod(op.type.get_shape())
    layers = _elements(op) // elements
    if isinstance(element, QuantizedType):
        return element.format.nbytes((elements // element.columns, element.columns)) * layers
    return elements * layers * (2 if isinstance(element, BFloat16Type) else 4)


def _elements(op: WeightOp | CacheOp) -> int:
    return prod(op.type.get_shape()) * (op.layers.value.data if op.layers is not None else 1)
