"""`fuse-into-consumer`: recompute what a one-task producer computes in every task that reads it."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from ..amk_ir.access import Access, Dim
from ..amk_ir.attrs import BufferKind
from ..amk_ir.linear import Linear
from ..dialects import task
from .effects import Effects, EffectTable
from .family_bodies import ProgramIndex, check_kinds, clone_before, is_before, kind, merge_duplicates, programs


@dataclass(frozen=True)
class FuseIntoConsumerPass(ModulePass):
    """Copies the bodies of producers of the kinds `ops` to their consumers, in place of a load of the result.

    A consumer must read just what one task of the producer writes to a scratch buffer. The producer may stream earlier rows of
    state, as an attention does, but no weights: they would be read once a consumer. It is removed with its buffer when nothing
    reads that any more. Where the fusion would not be sound, nothing changes, nor where, if `readers` are given, ops of other
    kinds read what the consumer loads.
    """

    name = "fuse-into-consumer"

    ops: tuple[str, ...] = ("rms_norm",)
    readers: tuple[str, ...] = ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        check_kinds(self.name, self.ops)
        check_kinds(self.name, self.readers, option="readers")
        for program in programs(op):
            # producers may feed producers, so that a fusion may allow another
            changed = [True]
            while any(changed):
                changed = [self._fuse(program, name) for name in program.families]

    def _fuse(self, program: task.ProgramOp, name: str) -> bool:
        """Fuses the family `name` into all its consumers that allow it; whether anything changed."""
        index = ProgramIndex(program)
        producer, call = index.families[name], index.only_call(name)
        if call is None or len(producer.stores) != 1:
            return False
        if any(index.buffers[op.region.buffer].kind.data is not BufferKind.STATE for op in producer.streams):
            return False
        (store,) = producer.stores
        buffer = store.region.buffer
        if (
            not isinstance(store.value.owner, Operation)
            or kind(store.value.owner) not in self.ops
            or index.buffers[buffer].kind.data is not BufferKind.SCRATCH
            or index.writers[buffer] != [name]
        ):
            return False
        changed = False
        for reader in index.readers[buffer]:
            changed |= reader != name and self._fuse_pair(index, producer, call, reader)
        if not any(op.region.buffer == buffer for family in program.families.values() for op in family.loads):
            for op in (call, producer, index.buffers[buffer]):
                op.detach()
                op.erase()
            changed = True
        return changed

    def _fuse_pair(self, index: ProgramIndex, producer: task.FamilyOp, call: task.CallOp, reader: str) -> bool:
        consumer, consumer_call = index.families[reader], index.only_call(reader)
        if consumer_call is None or not is_before(call, consumer_call):
            return False
        # The producer's inputs must be the same when the consumer's tasks read them.
        effects = EffectTable(index.program)
        inputs = Effects(reads=effects.of(call).reads)
        later = effects.between(call, consumer_call) + effects.of(consumer_call)
        if inputs.conflicts(Effects(writes=later.writes), effects.ranges(call)):
            return False
        (store,) = producer.stores
        changed = False
        for load in consumer.loads:
            if load.region.buffer != store.region.buffer or not isinstance(load, task.LoadOp):
                continue
            if self.readers and not {kind(use.operation) for use in load.result.uses} <= {*self.readers}:
                continue
            indices = _match(store.region, load.region, producer.domain.names)
            if indices is None or load.result.type != store.value.type:
                continue
            # the task whose result is read must be of the call before, in the same iteration
            bound = dict(zip(consumer.domain.names, consumer_call.indices.data, strict=False))
            values = [indices[n].substitute(bound) for n in producer.domain.names]
            if values[: len(call.indices.data)] != list(call.indices.data):
                continue
            ops = tuple(op for op in producer.body.block.ops if op is not store)
            copies = clone_before(ops, load, indices)
            Rewriter.replace_op(load, [], [copies[store.value]])
            changed = True
        if changed:
            merge_duplicates(consumer.body.block)
        return changed


def _match(written: Access, read: Access, names: tuple[str, ...]) -> dict[str, Linear] | None:
    """Values of the producer's indices `names` for which it writes exactly the region that is read, if there are any."""
    indices: dict[str, Linear] = {}
    for ours, theirs in zip(written.dims, read.dims, strict=True):
        if (ours.kept, ours.size, ours.limit) != (theirs.kept, theirs.size, theirs.limit):
            return None
        if ours.size.names & set(names) or not _solve(ours, theirs, names, indices):
            return None
    return indices if indices.keys() == set(names) else None


def _solve(ours: Dim, theirs: Dim, names: tuple[str, ...], indices: dict[str, Linear]) -> bool:
    """Binds the one index of `ours`, if any, so that both start at the same element; whether that is possible."""
    if not ours.start.names & set(names):
        return ours.start == theirs.start
    if len(ours.start.terms) != 1:
        return False
    ((name, factor),) = ours.start.terms
    offset = theirs.start - ours.start.constant
    if any(n % factor for n in (offset.constant, *(c for _, c in offset.terms))):
        return False
    value = Linear.make({n: c // factor for n, c in offset.terms}, offset.constant // factor)
    return indices.setdefault(name, value) == value
