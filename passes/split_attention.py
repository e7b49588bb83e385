"""`split-attention`: divide the positions that an attention sees among several tasks, for long contexts."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, f32
from xdsl.ir import Block, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.access import Access, Dim
from ..amk_ir.attention_turn import dealt
from ..amk_ir.attrs import BufferKind, DomainAttr
from ..amk_ir.linear import Linear
from ..dialects import task
from .family_bodies import ProgramIndex, insert_before, programs
from .names import NameTable
from .tiling import Tile, tiled_body

PART, HEAD, SLICE = "part", "head", "slice"
"""Domain indices: of the parts; of the heads, and of the slices of a head, that one task merges."""
_VECTOR = 4
"""Slices are multiples of 16 bytes."""
_POSITIONS = 128
"""Of a part, at least: with fewer, one more part to wait for takes longer than what it saves."""
_WORDS = 1024
"""Of the sums of all parts for a token, what an SM waits for at once: four a thread."""
_READ_WORDS = 4096
"""Of the sums of all parts, what a task that reads the attention waits for rather than for another task that merges them."""


@dataclass(frozen=True)
class SplitAttentionPass(ModulePass):
    """Splits families that store an attention: `parts` tasks for each of theirs, then tasks that merge the results.

    Positions are dealt to the parts in blocks of `block`, so that at any position all parts see about as many; 0: as many
    as one ring stage has the keys of. With 0 parts, there are as many as give each of `sms` SMs at most one task, and
    no more than one for 128 positions of the cache, or two. One part changes nothing. A task merges a head, or a slice of one,
    so that it waits for at most 1024 words of sums of a token, where that is possible. But where products read the heads of one of
    several KV heads at a time, and a step has one token, there may be a part for each block of the cache: such models are small, and
    wait for the slowest part rather than for the last. They get these heads from one task, if their sums have at most 4096 words:
    then fuse-into-consumer can put the merge into them.
    """

    name = "split-attention"

    parts: int = 0
    block: int = 0
    sms: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for option, value, least in (("parts", self.parts, 0), ("block", self.block, 0), ("sms", self.sms, 0)):
            if value < least:
                raise PassFailedException(f"split-attention: {option} must be at least {least}, found {value}")
        for program in programs(op):
            index = ProgramIndex(program)
            names = NameTable({*index.buffers, *index.families})
            for name, family in index.families.items():
                call = index.only_call(name)
                ops = tuple(family.body.block.ops)
                if call is None or len(ops) < 2:
                    continue
                attention, store = ops[-2:]
                if (
                    isinstance(attention, task.AttentionOp)
                    and isinstance(store, task.StoreOp)
                    and store.value is attention.result
                    and index.buffers[store.region.buffer].kind.data is BufferKind.SCRATCH
                    and len(family.stores) == 1
                    and not {PART, HEAD, SLICE} & {*family.domain.names}
                ):
                    self._split(names, index, family, call, attention, store)

    def _split(
        self,
        names: NameTable,
        index: ProgramIndex,
        family: task.FamilyOp,
        call: task.CallOp,
        attention: task.AttentionOp,
        store: task.StoreOp,
    ) -> None:
        domain, bound = family.domain.data, len(call.indices.data)
        tasks = prod(extent for _, extent in domain[bound:])
        shape, region = index.buffers[store.region.buffer].shape, store.region
        leading, (tokens, heads, _, half) = shape[:-4], shape[-4:]
        *own, rows, group, second, element = region.dims
        block = self.block or dealt(2 * half)
        read = group.size.constant  # heads
        by_group = tokens == 1 and read < heads and _are_read(index, region, read)
        max_seq = index.program.max_seq.value.data

        def parts_of(positions: int) -> int:
            return self.parts or min(self.sms // tasks, max(2, max_seq // positions))

        parts = parts_of(block if by_group else _POSITIONS)
        merges_group = by_group and parts * read * 2 * half <= _READ_WORDS
        loops = {name for name, _ in domain[:bound]}
        whole = tasks * read == heads and group.limit is None and rows.extent == tokens
        if parts < 2 or not whole or any(d.kept or not d.start.names <= loops for d in own):
            return
        sums = task.BufferOp(
            names.unique(f"{region.buffer}_sums"),
            BufferKind.SCRATCH,
            TensorType(f32, (*leading, parts, tokens, heads, 2, half)),
        )
        stats = task.BufferOp(
            names.unique(f"{region.buffer}_stats"),
            BufferKind.SCRATCH,
            TensorType(f32, (*leading, parts, tokens, heads, 2)),
        )

        # the tasks of the parts: what the family did, with another result
        part, pair = Dim(Linear.of(PART), kept=False), Dim(Linear(), Linear(constant=2))
        partial = task.AttentionPartOp(
            *attention.operands,
            scale=attention.scale.value.data,
            part=Linear.of(PART),
            parts=parts,
            block=block,
        )
        partial.sums.name_hint, partial.stats.name_hint = "sums", "stats"
        for op in (store, attention):
            op.detach()
            op.erase()
        name = family.sym_name.data
        searched = task.FamilyOp(names.unique(f"{name}_part"), (*domain, (PART, parts)), Region(Block()))
        for op in tuple(family.body.block.ops):
            op.detach()
            searched.body.block.add_op(op)
        searched.body.block.add_ops(
            (
                partial,
                task.StoreOp(partial.sums, Access(sums.sym_name.data, (*own, part, rows, group, second, element))),
                task.StoreOp(partial.stats, Access(stats.sym_name.data, (*own, part, rows, group, pair))),
            )
        )

        every = (Dim(Linear(), Linear(constant=parts)), rows, Dim(Linear(), Linear(constant=heads)))
        all_sums = task.LoadOp(Access(sums.sym_name.data, (*own, *every, second, element)), f32)
        all_stats = task.LoadOp(Access(stats.sym_name.data, (*own, *every, pair)), f32)
        merge = task.AttentionMergeOp(all_sums.result, all_stats.result)
        values: tuple[tuple[SSAValue, str], ...] = (
            (all_sums.result, "sums"),
            (all_stats.result, "stats"),
            (merge.result, region.buffer),
        )
        for value, hint in values:
            value.name_hint = hint
        target = task.StoreOp(merge.result, Access(region.buffer, (*own, rows, every[2], second, element)))
        merged_heads, slices = (read, 1) if merges_group else (1, _slices(parts, half))
        tile: Tile = (None, Dim(Linear.of(HEAD) * merged_heads, Linear(constant=merged_heads)), None, None)
        added = [(HEAD, heads // merged_heads)]
        if slices > 1:
            width = half // slices
            tile = (*tile[:3], Dim(Linear.of(SLICE) * width, Linear(constant=width)))
            added.append((SLICE, slices))
        family.properties["domain"] = DomainAttr((*domain[:bound], *added))
        merged = Block([all_sums, all_stats, merge, target])
        family.body.detach_block(family.body.block).erase()
        family.body.add_block(tiled_body(merged, {target: tile}))
        merged.erase()

        insert_before(call, family, searched, sums, stats)


def _are_read(index: ProgramIndex, stored: Access, heads: int) -> bool:
    """Whether products read all that is loaded of what is `stored`, `heads` heads at a time."""
    readers = (index.families[name] for name in index.readers[stored.buffer])
    loads = [op for family in readers for op in family.loads if op.region.buffer == stored.buffer]
    return all(
        op.region.dims[-3].size == Linear(constant=heads)
        and all(isinstance(use.operation, task.MatmulOp) for use in op.result.uses)
        for op in loads
    )


def _slices(parts: int, half: int) -> int:
    """Slices of a head: as few as leave no task more than `_WORDS` of the parts' sums, if that is possible."""
    whole = [n for n in range(1, half + 1) if half % n == 0 and half // n % _VECTOR == 0] or [1]
    return next((n for n in whole if parts * 2 * half <= n * _WORDS), whole[-1])
