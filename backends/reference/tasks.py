"""Tasks as flat lists of NumPy calls: what the task and the queue interpreter execute.

A family's body is bound once for each task: accesses become views of the buffers, constant tiles become contiguous
arrays, and what is left to do at run time is one call for each tile op. Each task has two such lists, a plain one and
one with checks: no element is read that is still poison, no output or tagged word is written twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from xdsl.dialects.builtin import TensorType, bf16
from xdsl.ir import Attribute, Operation, SSAValue

from ...amk_ir.attrs import BufferKind
from ...amk_ir.dtypes import round_to_bf16
from ...amk_ir.errors import ExecutionError
from ...dialects.task import (
    AddOp,
    ArgmaxMergeOp,
    ArgmaxOp,
    ArgmaxPartOp,
    AttentionMergeOp,
    AttentionOp,
    AttentionPartOp,
    BiasAddOp,
    FamilyOp,
    GatherOp,
    LoadOp,
    MatmulOp,
    RmsNormOp,
    RopeOp,
    SiluMulOp,
    StoreOp,
    StreamOp,
    SumPartsOp,
)
from . import numerics
from .memory import Array, Memory, is_bf16, is_poison
from .regions import Region

Values: TypeAlias = list[Any]
"""The tile values of one task, by slot."""
Step: TypeAlias = Callable[[Values, int], None]
"""One tile op: (values, position)."""


class BoundTask:
    """One task of a family, ready to run at any position."""

    def __init__(self, name: str, slots: int):
        self.name = name
        self.values: Values = [None] * slots
        self.steps: list[Step] = []
        self.checked_steps: list[Step] = []
        self.tagged_reads: list[Region] = []
        self.writes_tagged = False
        self.streams = False

    def add(self, step: Step) -> None:
        """Adds a step to both lists."""
        self.steps.append(step)
        self.checked_steps.append(step)

    def run(self, pos: int, checked: bool) -> None:
        """Executes the task at a position; ExecutionError for an access that the semantics forbid."""
        values = self.values
        for step in self.checked_steps if checked else self.steps:
            step(values, pos)

    def missing_tag(self, pos: int) -> str | None:
        """A tagged word that the task reads and that does not carry this step's epoch yet, None if all do.

        Scratch is poisoned when a step starts, so a word carries the epoch if it is not poison.
        """
        for region in self.tagged_reads:
            if (missing := is_poison(region.view(pos))).any():
                return region.element(pos, _first(missing))
        return None


class TaskTable:
    """The bound tasks of a program or kernel, bound when first asked for."""

    def __init__(self, families: Sequence[FamilyOp], memory: Memory):
        self._families = [_Family(family, memory) for family in families]
        self._tasks: list[dict[int, BoundTask]] = [{} for _ in families]

    def get(self, family: int, task: int) -> BoundTask:
        """Task number `task` (row-major) of family number `family`."""
        tasks = self._tasks[family]
        if (bound := tasks.get(task)) is None:
            bound = tasks[task] = self._families[family].bind(task)
        return bound


class _Family:
    """Binds the tasks of one family."""

    def __init__(self, family: FamilyOp, memory: Memory):
        self.family = family
        self.memory = memory
        self.name = family.sym_name.data
        self.ops = tuple(family.body.block.ops)
        self.slots: dict[SSAValue, int] = {}
        for op in self.ops:
            for result in op.results:
                self.slots[result] = len(self.slots)
        self.copied = _loads_to_copy(self.ops)

    def bind(self, number: int) -> BoundTask:
        indices = self.family.domain.unflatten(number)
        task = BoundTask(f"@{self.name}[{', '.join(map(str, indices.values()))}]", len(self.slots))
        for op in self.ops:
            match op:
                case LoadOp() | StreamOp():
                    self._bind_read(task, op, indices)
                case GatherOp():
                    self._bind_gather(task, op, indices)
                case StoreOp():
                    self._bind_store(task, op, indices)
                case AttentionPartOp():
                    task.add(_attention_part(op, self.slots, op.part.data.evaluate(indices)))
                case _:
                    task.add(_compute(op, self.slots))
        return task

    def _bind_read(self, task: BoundTask, op: LoadOp | StreamOp, indices: dict[str, int]) -> None:
        slot = self.slots[op.result]
        buffer = self.memory.buffers[op.region.buffer]
        region = Region(op, op.region, self.memory.arrays[op.region.buffer], indices)
        task.streams |= isinstance(op, StreamOp)
        if buffer.kind.data is BufferKind.WEIGHT:
            if region.is_static:
                # contiguous, so that reshaping it for a product costs nothing; most tiles already are
                task.values[slot] = region.padded(0) if region.is_cut else np.ascontiguousarray(region.view(0))
                return
        else:
            if buffer.tagged is not None:
                task.tagged_reads.append(region)
            task.checked_steps.append(_check_written(region, buffer.kind.data))

        if region.is_cut:
            task.add(lambda values, pos: _set(values, slot, region.padded(pos)))
        elif op in self.copied:
            task.add(lambda values, pos: _set(values, slot, region.view(pos).copy()))
        elif region.is_static:
            task.values[slot] = region.view(0)  # buffers keep their place, so the view shows every step's values
        else:
            task.add(lambda values, pos: _set(values, slot, region.view(pos)))

    def _bind_gather(self, task: BoundTask, op: GatherOp, indices: dict[str, int]) -> None:
        slot, ids = self.slots[op.result], self.slots[op.ids]
        buffer = self.memory.buffers[op.region.buffer]
        region = Region(op, op.region, self.memory.arrays[op.region.buffer], indices)
        if buffer.tagged is not None:
            task.tagged_reads.append(region)
        if buffer.kind.data is not BufferKind.WEIGHT:
            task.checked_steps.append(_check_written(region, buffer.kind.data))

        def gather(values: Values, pos: int) -> None:
            table = region.view(pos)
            chosen: numerics.Ids = values[ids]
            if ((chosen < 0) | (chosen >= table.shape[0])).any():
                raise ExecutionError(f"'{op.name}' takes ids in [0, {table.shape[0]}), found {chosen.tolist()}")
            rows = numerics.gather(table, chosen)
            values[slot] = _pad(rows, (rows.shape[0], *region.tile_shape(pos)[1:])) if region.is_cut else rows

        task.add(gather)

    def _bind_store(self, task: BoundTask, op: StoreOp, indices: dict[str, int]) -> None:
        value = self.slots[op.value]
        buffer = self.memory.buffers[op.region.buffer]
        region = Region(op, op.region, self.memory.arrays[op.region.buffer], indices)
        if buffer.tagged is not None:
            task.writes_tagged = True
        if buffer.tagged is not None or buffer.kind.data is BufferKind.OUTPUT:
            task.checked_steps.append(_check_unwritten(region))
        rounds = is_bf16(buffer)
        if region.is_static and not region.is_cut and not rounds:
            target = region.view(0)
            task.add(lambda values, _: np.copyto(target, values[value]))
            return

        def store(values: Values, pos: int) -> None:
            target = region.view(pos)
            tile: Array = values[value]
            if region.is_cut:
                tile = tile[tuple(slice(0, n) for n in target.shape)]
            target[...] = round_to_bf16(tile) if rounds else tile

        task.add(store)


def _set(values: Values, slot: int, value: Any) -> None:
    values[slot] = value


def _pad(array: Array, shape: tuple[int, ...]) -> Array:
    result = np.zeros(shape, array.dtype)
    result[tuple(slice(0, n) for n in array.shape)] = array
    return result


def _first(mask: Array) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def _check_written(region: Region, kind: BufferKind) -> Step:
    since = "since the last reset" if kind is BufferKind.STATE else "in this step"

    def check(_: Values, pos: int) -> None:
        if (missing := is_poison(region.view(pos))).any():
            element = region.element(pos, _first(missing))
            raise ExecutionError(f"'{region.op.name}' reads {element}, which was not written {since}")

    return check


def _check_unwritten(region: Region) -> Step:
    def check(_: Values, pos: int) -> None:
        if not (missing := is_poison(region.view(pos))).all():
            element = region.element(pos, _first(~missing))
            raise ExecutionError(f"'{region.op.name}' writes {element}, which was already written in this step")

    return check


def _loads_to_copy(ops: Sequence[Operation]) -> frozenset[Operation]:
    """Loads whose value is used after the body stores to the same buffer: a view would show the stored elements."""
    number = {op: i for i, op in enumerate(ops)}
    result: set[Operation] = set()
    for load in ops:
        if isinstance(load, LoadOp):
            last_use = max((number[use.operation] for use in load.result.uses), default=-1)
            result |= {
                load
                for store in ops
                if isinstance(store, StoreOp)
                and store.region.buffer == load.region.buffer
                and number[load] < number[store] < last_use
            }
    return frozenset(result)


def _compute(op: Operation, slots: dict[SSAValue, int]) -> Step:
    """The step of an op without access to buffers."""
    match op:
        case MatmulOp():
            return _binary(numerics.linear, slots[op.x], slots[op.w], slots[op.result])
        case AddOp():
            return _binary(numerics.add, slots[op.lhs], slots[op.rhs], slots[op.result])
        case SiluMulOp():
            return _binary(numerics.silu_mul, slots[op.lhs], slots[op.rhs], slots[op.result])
        case BiasAddOp():
            return _binary(numerics.bias_add, slots[op.x], slots[op.bias], slots[op.result])
        case RmsNormOp():
            return _rms_norm(slots[op.x], slots[op.weight], op.eps.value.data, slots[op.result])
        case RopeOp():
            return _rope(slots[op.x], slots[op.frequencies], slots[op.result])
        case AttentionOp():
            return _attention(op, slots)
        case AttentionMergeOp():
            return _binary(numerics.attention_merge, slots[op.sums], slots[op.stats], slots[op.result])
        case SumPartsOp():
            x, out = slots[op.x], slots[op.result]
            return lambda values, _: _set(values, out, numerics.sum_parts(values[x]))
        case ArgmaxOp():
            x, out = slots[op.x], slots[op.result]
            return lambda values, _: _set(values, out, numerics.argmax(values[x]))
        case ArgmaxPartOp():
            x, out = slots[op.x], slots[op.result]
            return lambda values, _: _set(values, out, numerics.argmax_part(values[x]))
        case ArgmaxMergeOp():
            x, out, stride = slots[op.x], slots[op.result], op.stride.value.data
            return lambda values, _: _set(values, out, numerics.argmax_merge(values[x], stride))
        case _:
            raise ExecutionError(f"the reference backend has no meaning for '{op.name}'")


def _binary(function: Callable[[Any, Any], Any], x: int, y: int, out: int) -> Step:
    def step(values: Values, _: int) -> None:
        values[out] = function(values[x], values[y])

    return step


def _rms_norm(x: int, weight: int, eps: float, out: int) -> Step:
    def step(values: Values, _: int) -> None:
        values[out] = numerics.rms_norm(values[x], values[weight], eps)

    return step


def _rope(x: int, frequencies: int, out: int) -> Step:
    def step(values: Values, pos: int) -> None:
        values[out] = numerics.rope(values[x], values[frequencies], pos)

    return step


def _attention(op: AttentionOp, slots: Mapping[SSAValue, int]) -> Step:
    read, scale, out = _attention_operands(op, slots), op.scale.value.data, slots[op.result]
    return lambda values, pos: _set(values, out, _halved(numerics.attention(*read(values, pos), scale)))


def _attention_part(op: AttentionPartOp, slots: Mapping[SSAValue, int], part: int) -> Step:
    read, scale = _attention_operands(op, slots), op.scale.value.data
    parts, block = op.parts.value.data, op.block.value.data
    sums, stats = slots[op.sums], slots[op.stats]

    def step(values: Values, pos: int) -> None:
        found = numerics.attention_part(*read(values, pos), scale, part, parts, block)
        values[sums], values[stats] = _halved(found[0]), found[1]

    return step


def _attention_operands(
    op: AttentionOp | AttentionPartOp, slots: Mapping[SSAValue, int]
) -> Callable[[Values, int], tuple[Array, Array, Array, Array, Array]]:
    """Reads the operands [rows, heads, head_dim] of an op that attends; new rows as the cache would keep them."""
    numbers = [slots[value] for value in (op.q, op.k, op.v, op.k_new, op.v_new)]
    rounds = cast(TensorType[Attribute], op.k.type).get_element_type() == bf16

    def read(values: Values, pos: int) -> tuple[Array, Array, Array, Array, Array]:
        q, k, v, k_new, v_new = (_whole_heads(values[slot]) for slot in numbers)
        if not pos == k.shape[0] == v.shape[0]:
            raise ExecutionError(
                f"'{op.name}' at position {pos} needs the keys and values of {pos} earlier positions, found "
                f"{k.shape[0]} and {v.shape[0]}"
            )
        if rounds:
            k_new, v_new = round_to_bf16(k_new), round_to_bf16(v_new)
        return q, k, v, k_new, v_new

    return read


def _halved(rows: Array) -> Array:
    """[..., heads, head_dim] as [..., heads, 2, half]."""
    return rows.reshape(*rows.shape[:-1], 2, -1)


def _whole_heads(tile: Array) -> Array:
    """[..., heads, 2, half] as [..., heads, head_dim]: a view, because the two halves are neighbours."""
    return tile.reshape(*tile.shape[:-2], 2 * tile.shape[-1])
