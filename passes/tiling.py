"""The tiling interface of task ops: which part of its operands an op needs for a part of its result.

A tile has an entry for each dimension of a value: None for the whole of it, or a slice. It is propagated from the
stores of a body to its loads, op by op, so no pass needs to know whole bodies. An op takes part by an entry in `RULES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from xdsl.dialects.builtin import FloatAttr
from xdsl.ir import Block, Operation, SSAValue

from ..amk_ir.access import Access, Dim
from ..amk_ir.linear import Linear
from ..dialects import task

Tile = tuple[Dim | None, ...]
"""A slice or the whole of each dimension. A slice that is not kept is one element wide and its dimension disappears."""

OpT = TypeVar("OpT", bound=Operation)


class NotTileableError(Exception):
    """An op cannot compute the wanted part of its result from parts of its operands."""


def _untiled(tile: Tile, *axes: int) -> None:
    if any(tile[axis] is not None for axis in axes):
        raise NotTileableError


def _rank(value: SSAValue) -> int:
    return len(task.shape_of(value))


def _matmul(op: task.MatmulOp, tile: Tile) -> tuple[Tile, ...]:
    whole = (None,) * (_rank(op.x) - 1)
    return (tile[0], *whole), (*tile[1:], *whole)


def _rms_norm(op: task.RmsNormOp, tile: Tile) -> tuple[Tile, ...]:
    _untiled(tile, -1)
    return tile, (None,)


def _rope(op: task.RopeOp, tile: Tile) -> tuple[Tile, ...]:
    # the rows stand at consecutive positions, and both elements of a pair are needed
    _untiled(tile, 0, -2)
    if tile[-1] is not None and not tile[-1].kept:
        raise NotTileableError
    return tile, tile[-1:]


def _attention(op: task.AttentionOp, tile: Tile) -> tuple[Tile, ...]:
    _untiled(tile, 0, 2, 3)
    heads = tile[1]
    if heads is None:
        return tile, *((None,) * 4 for _ in range(4))
    if task.shape_of(op.k)[1] == 1 and heads.kept:
        return tile, *((None,) * 4 for _ in range(4))  # any heads share the one KV head
    group = task.shape_of(op.q)[1] // task.shape_of(op.k)[1]
    coefficients = [heads.start.constant, heads.size.constant, heads.limit or 0, *(c for _, c in heads.start.terms)]
    if not heads.kept or any(c % group for c in coefficients):
        raise NotTileableError
    limit = None if heads.limit is None else heads.limit // group
    start = Linear.make({n: c // group for n, c in heads.start.terms}, heads.start.constant // group)
    cached = (None, Dim(start, Linear(constant=heads.size.constant // group), limit), None, None)
    return tile, cached, cached, cached, cached


def _attention_merge(op: task.AttentionMergeOp, tile: Tile) -> tuple[Tile, ...]:
    return (None, *tile), (None, *tile[:2], None)


def _bias_add(op: task.BiasAddOp, tile: Tile) -> tuple[Tile, ...]:
    return tile, tile[1:]


def _sum_parts(op: task.SumPartsOp, tile: Tile) -> tuple[Tile, ...]:
    return ((tile[0], None, *tile[1:]),)


def _elementwise(op: Operation, tile: Tile) -> tuple[Tile, ...]:
    return tile, tile


def _argmax(op: task.ArgmaxOp, tile: Tile) -> tuple[Tile, ...]:
    return ((tile[0], None),)


def _gather(op: task.GatherOp, tile: Tile) -> tuple[Tile, ...]:
    return (tile[:1],)


def _read(op: Operation, tile: Tile) -> tuple[Tile, ...]:
    return ()


RULES: dict[type[Operation], Callable[[Operation, Tile], tuple[Tile, ...]]] = {
    op: cast(Callable[[Operation, Tile], tuple[Tile, ...]], rule)
    for op, rule in (
        (task.AddOp, _elementwise),
        (task.ArgmaxOp, _argmax),
        (task.AttentionMergeOp, _attention_merge),
        (task.AttentionOp, _attention),
        (task.BiasAddOp, _bias_add),
        (task.GatherOp, _gather),
        (task.LoadOp, _read),
        (task.MatmulOp, _matmul),
        (task.RmsNormOp, _rms_norm),
        (task.RopeOp, _rope),
        (task.SiluMulOp, _elementwise),
        (task.StreamOp, _read),
        (task.SumPartsOp, _sum_parts),
    )
}
"""For each op of a body but the store: the tiles of its operands that a tile of its result needs."""


def narrow(access: Access, tile: Tile) -> Access:
    """The part `tile` of the region `access`."""
    parts = iter(tile)
    dims: list[Dim] = []
    for dim in access.dims:
        part = next(parts) if dim.kept else None
        if part is None:
            dims.append(dim)
            continue
        limit = dim.limit
        if part.limit is not None:
            if not dim.start.is_constant:
                raise NotTileableError
            end = dim.start.constant + part.limit
            limit = end if limit is None else min(limit, end)
        if not dim.size.is_constant or (limit is not None and not part.kept):
            raise NotTileableError
        dims.append(Dim(dim.start + part.start, part.size, limit, part.kept))
    return Access(access.buffer, tuple(dims))


def _rebuild(op: Operation, operands: list[SSAValue], tile: Tile) -> Operation:
    """`op` for the part `tile` of its result."""
    match op:
        case task.LoadOp() | task.StreamOp():
            return type(op)(narrow(op.region, tile), op.result.type.get_element_type())
        case task.GatherOp():
            return task.GatherOp(operands[0], narrow(op.region, (None, *tile[1:])))
        case task.RmsNormOp():
            return task.RmsNormOp(operands[0], operands[1], _number(op.eps))
        case task.AttentionOp():
            q, k, v, k_new, v_new = operands
            return task.AttentionOp(q, k, v, k_new, v_new, _number(op.scale))
        case (
            task.MatmulOp()
            | task.AddOp()
            | task.SiluMulOp()
            | task.BiasAddOp()
            | task.RopeOp()
            | task.AttentionMergeOp()
        ):
            return type(op)(operands[0], operands[1])
        case task.ArgmaxOp() | task.SumPartsOp():
            return type(op)(operands[0])
        case _:
            raise NotTileableError


def _number(attribute: FloatAttr) -> float:
    return attribute.value.data


def tiled_body(body: Block, stored: Mapping[task.StoreOp, Tile]) -> Block:
    """The body that computes and stores only the given tiles of the stored values, in the order of the old one.

    Raises NotTileableError if an op does not allow it.
    """
    wanted: dict[SSAValue, list[Tile]] = {}

    def want(value: SSAValue, tile: Tile) -> None:
        tiles = wanted.setdefault(value, [])
        if tile not in tiles:
            tiles.append(tile)

    ops = tuple(body.ops)
    for op in reversed(ops):
        if isinstance(op, task.StoreOp):
            want(op.value, stored[op])
            continue
        if (rule := RULES.get(type(op))) is None:
            raise NotTileableError
        for tile in wanted.get(op.results[0], ()):
            for operand, part in zip(op.operands, rule(op, tile), strict=True):
                want(operand, part)

    result = Block()
    values: dict[tuple[SSAValue, Tile], SSAValue] = {}
    for op in ops:
        if isinstance(op, task.StoreOp):
            tile = stored[op]
            result.add_op(task.StoreOp(values[op.value, tile], narrow(op.region, tile)))
            continue
        for tile in wanted.get(op.results[0], ()):
            parts = RULES[type(op)](op, tile)
            operands = [values[operand, part] for operand, part in zip(op.operands, parts, strict=True)]
            new = _rebuild(op, operands, tile)
            new.results[0].name_hint = op.results[0].name_hint
            result.add_op(new)
            values[op.results[0], tile] = new.results[0]
    return result
