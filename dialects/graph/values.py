"""Values and symbols of the `graph` dialect: types, shapes, references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, TypeVar, cast

from xdsl.dialects.builtin import (
    AnyFloat,
    Float32Type,
    IntegerType,
    SymbolRefAttr,
    TensorType,
    i32,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import (
    EqAttrConstraint,
    base,
)

from ...amk_ir.quantized_type import QuantizedType

OpT = TypeVar("OpT", bound=Operation)

F32Tensor = TensorType[Float32Type]
IdTensor = TensorType[IntegerType]
CacheTensor: TypeAlias = TensorType[AnyFloat]
WeightTensor: TypeAlias = TensorType[AnyFloat] | TensorType[QuantizedType]

IDS = TensorType.constr(EqAttrConstraint(i32))
F32 = base(TensorType[Float32Type])
WEIGHT = base(TensorType[AnyFloat]) | base(TensorType[QuantizedType])
SYMBOL = base(SymbolRefAttr)


def symbol_ref(name: str | SymbolRefAttr) -> SymbolRefAttr:
    """`name` as a reference."""
    return SymbolRefAttr(name) if isinstance(name, str) else name


def shape_of(value: SSAValue) -> tuple[int, ...]:
    """The shape of a tensor value."""
    return cast(TensorType[Attribute], value.type).get_shape()


def shape_text(shape: Sequence[int]) -> str:
    """A shape as types write it."""
    return "x".join(map(str, shape)) or "scalar"
