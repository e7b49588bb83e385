"""Tile values of the `task` dialect: their types and shapes, and small helpers for its ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AnyFloat,
    Float32Type,
    TensorType,
    i32,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.irdl import (
    EqAttrConstraint,
    base,
)
from xdsl.parser import Parser
from xdsl.printer import Printer

from ...amk_ir.quantized_type import QuantizedType

F32Tensor = TensorType[Float32Type]
FloatTensor = TensorType[AnyFloat]
AnyTensor = TensorType[Attribute]

F32 = base(TensorType[Float32Type])
FLOAT = base(TensorType[AnyFloat])
WEIGHT = FLOAT | base(TensorType[QuantizedType])
IDS = TensorType.constr(EqAttrConstraint(i32))


def single_block(argument_types: Sequence[Attribute] = ()) -> Region:
    """A region with one empty block, for builders."""
    return Region(Block(arg_types=argument_types))


def shape_of(value: SSAValue) -> tuple[int, ...]:
    """The tile shape of a value, DYNAMIC_INDEX where it depends on the position."""
    return cast(AnyTensor, value.type).get_shape()


def shape_text(shape: Sequence[int]) -> str:
    return "x".join("?" if d == DYNAMIC_INDEX else str(d) for d in shape) or "scalar"


def parse_block(parser: Parser) -> Region:
    """A region of one block, which may be empty."""
    region = parser.parse_region()
    if not region.blocks:
        region.add_block(Block())
    return region


def print_block(printer: Printer, region: Region) -> None:
    printer.print_region(region, print_block_terminators=False, print_empty_block=False)


def op_of(value: SSAValue) -> Operation | None:
    """The op whose result `value` is, None for a block argument."""
    return value.owner if isinstance(value.owner, Operation) else None
