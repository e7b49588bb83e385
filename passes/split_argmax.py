"""`split-argmax`: divide the argmax of a long row into parts, which all SMs search side by side."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, f32
from xdsl.ir import Block, Region
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.access import Access, Dim
from ..amk_ir.attrs import BufferKind
from ..amk_ir.linear import Linear
from ..dialects import task
from .family_bodies import ProgramIndex, insert_before, programs
from .names import NameTable
from .tiling import narrow

PART = "part"
"""The domain index of the parts."""
_VECTOR = 4
"""Parts start at multiples of 16 bytes."""


@dataclass(frozen=True)
class SplitArgmaxPass(ModulePass):
    """Splits families that store the argmax of loaded rows: at most `parts` tasks each search a part of the columns, of
    `columns` or more, and one task merges what they found. Parts have equal sizes; they overlap if that takes it.
    """

    name = "split-argmax"

    parts: int = 132
    columns: int = 64

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for option, value in (("parts", self.parts), ("columns", self.columns)):
            if value < 1:
                raise PassFailedException(f"split-argmax: {option} must be at least 1, found {value}")
        for program in programs(op):
            index = ProgramIndex(program)
            names = NameTable({*index.buffers, *index.families})
            for name, family in index.families.items():
                call = index.only_call(name)  # as a result is written once a step, so are the parts
                match tuple(family.body.block.ops):
                    case (task.LoadOp() as load, task.ArgmaxOp() as argmax, task.StoreOp() as store) if (
                        call is not None
                        and argmax.x is load.result
                        and store.value is argmax.result
                        and all(d.size.is_constant and d.limit is None for d in load.region.dims)
                        and index.buffers[store.region.buffer].kind.data is not BufferKind.STATE
                    ):
                        self._split(names, family, call, load, argmax, store)
                    case _:
                        pass

    def _split(
        self,
        names: NameTable,
        family: task.FamilyOp,
        call: task.CallOp,
        load: task.LoadOp,
        argmax: task.ArgmaxOp,
        store: task.StoreOp,
    ) -> None:
        rows, columns = task.shape_of(argmax.x)
        count = min(self.parts, columns // self.columns)
        domain = family.domain.data
        if count < 2 or PART in family.domain.names:
            return
        stride, width = _equal_parts(columns, count)
        if width > task.MAX_ARGMAX_PART or columns > 2**31 - task.MAX_ARGMAX_PART:
            return
        part = Linear.of(PART)
        piece = narrow(load.region, (None, Dim(part * stride, Linear(constant=width))))

        own = [Dim(Linear.of(index), kept=False) for index, _ in domain]
        whole = [Dim(Linear(), Linear(constant=size)) for size in (rows, count, 2)]
        best = names.unique(f"{store.region.buffer}_parts")
        shape = (*(extent for _, extent in domain), rows, count, 2)
        buffer = task.BufferOp(best, BufferKind.SCRATCH, TensorType(f32, shape))

        values = task.LoadOp(piece, f32)
        found = task.ArgmaxPartOp(values.result)
        target = Access(best, (*own, whole[0], Dim(part, kept=False), whole[2]))
        search = task.FamilyOp(
            names.unique(f"{family.sym_name.data}_part"),
            (*domain, (PART, count)),
            Region(Block([values, found, task.StoreOp(found.result, target)])),
        )
        pairs = task.LoadOp(Access(best, (*own, *whole)), f32)
        merge = task.ArgmaxMergeOp(pairs.result, stride)
        values.result.name_hint, pairs.result.name_hint = load.result.name_hint, best
        found.result.name_hint, merge.result.name_hint = "best", argmax.result.name_hint

        insert_before(call, family, search, buffer)
        family.body.detach_block(family.body.block).erase()
        family.body.add_block(Block([pairs, merge, task.StoreOp(merge.result, store.region)]))


def _equal_parts(columns: int, count: int) -> tuple[int, int]:
    """(stride, width) of `count` equal parts that cover exactly `columns` columns, with starts that suit vectors."""
    stride = columns // count
    if stride >= _VECTOR:
        stride -= stride % _VECTOR
    return stride, columns - stride * (count - 1)
