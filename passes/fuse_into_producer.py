"""`fuse-into-producer`: continue a producer's tasks with the elementwise work of its only consumer."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr, SymbolRefAttr
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from ..amk_ir.attrs import BufferKind
from ..dialects import task
from .effects import Effects, EffectTable
from .family_bodies import ProgramIndex, check_kinds, is_before, kind, merge_duplicates, programs, signature
from .names import NameTable, join_names

_ACCESS_OPS = (task.LoadOp, task.StreamOp, task.GatherOp, task.StoreOp)


@dataclass(frozen=True)
class FuseIntoProducerPass(ModulePass):
    """Merges families that consist of the kinds `ops` into the families whose results they read.

    The value is forwarded instead of stored and loaded, task by task: both have the same domain, and the consumer reads
    what the task of the same indices writes, and is the only one that does. With two producers (gate and up), all three
    become one family. `store` stands for families that only move data, such as the append to a KV cache: what they move
    may have other readers, and is stored for them all the same. The merged family is called where the consumer was; where
    that would not be sound, nothing changes.
    """

    name = "fuse-into-producer"

    ops: tuple[str, ...] = ("bias_add", "rope", "store", "silu_mul", "add")

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        check_kinds(self.name, self.ops, "store")
        for program in programs(op):
            for name in tuple(program.families):
                if (family := program.families.get(name)) is not None and self._is_candidate(family):
                    self._fuse(program, name)

    def _is_candidate(self, family: task.FamilyOp) -> bool:
        computed = {kind(op) for op in family.body.block.ops if not isinstance(op, _ACCESS_OPS)}
        return not family.streams and (computed or {"store"}) <= set(self.ops)

    def _fuse(self, program: task.ProgramOp, name: str) -> None:
        """Merges the producers of the consumer `name`, the last first so that bodies follow the order of its loads."""
        merged: list[str] = []
        consumer = program.families[name]
        for buffer in dict.fromkeys(op.region.buffer for op in reversed(consumer.loads)):
            index = ProgramIndex(program)
            current = consumer.sym_name.data
            writers = index.writers[buffer]
            if len(writers) != 1 or not _is_sound(index, writers[0], current, buffer):
                continue
            merged.insert(0, writers[0])
            _merge(index, writers[0], current, buffer, join_names(merged))


def _is_sound(index: ProgramIndex, first: str, last: str, buffer: str) -> bool:
    """Whether the families `first` and `last` may become one family that forwards `buffer`, called at `last`."""
    producer, consumer = index.families[first], index.families[last]
    call, consumer_call = index.only_call(first), index.only_call(last)
    if (
        index.buffers[buffer].kind.data is not BufferKind.SCRATCH
        or not (index.readers[buffer] == [last] or (last in index.readers[buffer] and _is_copy(consumer)))
        or first == last
        or producer.domain != consumer.domain
        or call is None
        or consumer_call is None
        or call.indices != consumer_call.indices
        or not is_before(call, consumer_call)
    ):
        return False
    stores = {op.region: op.value.type for op in producer.stores if op.region.buffer == buffer}
    loads = [op for op in consumer.loads if op.region.buffer == buffer]
    if len(stores) != 1 or any(
        not isinstance(op, task.LoadOp) or stores.get(op.region) != op.result.type for op in loads
    ):
        return False
    if not _share_activations(producer, consumer):
        return False
    effects = EffectTable(index.program)
    ranges = effects.ranges(call)
    ours, theirs = effects.of(call), effects.of(consumer_call)
    # The producer moves down past the calls between.
    if effects.between(call, consumer_call).conflicts(ours, ranges):
        return False
    # Apart from the forwarded buffer, tasks of the merged family must stay independent of each other.
    others = Effects(tuple(b for b in theirs.reads if b.buffer != buffer), theirs.writes)
    return not others.conflicts(ours, ranges)


def _is_copy(family: task.FamilyOp) -> bool:
    """Whether a family only moves data."""
    return all(isinstance(op, _ACCESS_OPS) for op in family.body.block.ops)


def _share_activations(producer: task.FamilyOp, consumer: task.FamilyOp) -> bool:
    """Whether the matmuls of both multiply the same vector, so that the merged task needs to hold only one."""
    ours, theirs = (
        {signature(op.x) for op in family.body.block.ops if isinstance(op, task.MatmulOp)}
        for family in (producer, consumer)
    )
    return not ours or not theirs or ours == theirs


def _merge(index: ProgramIndex, first: str, last: str, buffer: str, name: str) -> None:
    """Puts the body of `first` before that of `last`, forwards what was stored to `buffer`, and removes `first`.

    The buffer and the store to it go as well, unless others read it.
    """
    producer, consumer = index.families[first], index.families[last]
    call, consumer_call = index.only_call(first), index.only_call(last)
    assert call is not None and consumer_call is not None
    block = consumer.body.block
    start = block.first_op
    assert start is not None
    is_read = index.readers[buffer] != [last]
    for op in tuple(producer.body.block.ops):
        op.detach()
        block.insert_op_before(op, start)
        if isinstance(op, task.StoreOp) and op.region.buffer == buffer:
            for load in consumer.loads:
                if load.region.buffer == buffer:
                    if load is start:
                        start = load.next_op
                        assert start is not None
                    Rewriter.replace_op(load, [], [op.value])
            if not is_read:
                op.detach()
                op.erase()
    for op in (call, producer) if is_read else (index.buffers[buffer], call, producer):
        op.detach()
        op.erase()
    names = NameTable(set(index.buffers) | set(index.families) - {first, last})
    name = names.unique(name)
    consumer.properties["sym_name"] = StringAttr(name)
    consumer_call.properties["family"] = SymbolRefAttr(name)
    merge_duplicates(block)
