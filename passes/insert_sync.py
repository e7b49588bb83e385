"""`insert-sync`: derive all dependences between phases from regions, and hand over by tags or counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, UnitAttr, f32
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.attrs import BufferKind
from ..dialects import queue
from .dependences import BufferUse, Dependences
from .kernel_size import check_size
from .names import NameTable, join_names
from .sync_plan import Counter, plan_counters

Handoff = Literal["auto", "counter", "tagged"]


@dataclass(frozen=True)
class InsertSyncPass(ModulePass):
    """Makes a kernel of one program, as `place-tasks` leaves it, safe: whatever its runs read is there.

    auto: scratch float32 buffers are handed over by tagged words, everything else by counters. counter: only counters.
    tagged: as auto, but fails if a dependence needs a counter. Waits that follow from others are left out.
    """

    name = "insert-sync"

    handoff: Handoff = "auto"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.handoff not in ("auto", "counter", "tagged"):
            raise PassFailedException(f"insert-sync: handoff must be auto, counter or tagged, found '{self.handoff}'")
        for kernel in op.ops:
            if isinstance(kernel, queue.KernelOp):
                self._synchronise(kernel)
                check_size(self.name, kernel)

    def _synchronise(self, kernel: queue.KernelOp) -> None:
        if kernel.counters:
            raise PassFailedException(f"insert-sync: kernel @{kernel.sym_name.data} has counters already")
        dependences = Dependences.of(kernel)
        counted: list[BufferUse] = []
        for use in dependences.uses.values():
            if not use.edges:
                continue
            if self.handoff != "counter" and _can_be_tagged(use):
                use.buffer.properties["tagged"] = UnitAttr()
            else:
                counted.append(use)
        if self.handoff == "tagged" and counted:
            names = ", ".join(f"@{use.buffer.sym_name.data} ({use.buffer.kind.data.value})" for use in counted)
            raise PassFailedException(
                f"insert-sync: {names} cannot be handed over by tags: only scratch f32 buffers whose words are "
                "written once; use handoff=auto"
            )
        _insert(kernel, dependences, plan_counters(dependences, counted))


def _can_be_tagged(use: BufferUse) -> bool:
    """Whether every dependence is a read of words written once a step."""
    buffer = use.buffer
    return buffer.kind.data is BufferKind.SCRATCH and buffer.type.get_element_type() == f32 and use.is_written_once


def _insert(kernel: queue.KernelOp, dependences: Dependences, counters: list[Counter]) -> None:
    names = NameTable({*kernel.buffers, *kernel.families})
    block, first_program = kernel.body.block, kernel.programs[0]
    ends: dict[int, list[queue.SignalOp]] = {}
    starts: dict[int, list[queue.WaitOp]] = {}
    for counter in counters:
        name = names.unique(f"{join_names(counter.names)}_done")
        block.insert_op_before(queue.CounterOp(name, counter.size), first_program)
        for phase, index in counter.signals:
            ends.setdefault(phase, []).append(queue.SignalOp(name, index))
        for phase, index in counter.waits:
            starts.setdefault(phase, []).append(queue.WaitOp(name, index))
    for number, phase in enumerate(dependences.phases):
        assert isinstance(phase.op, queue.PhaseOp)  # as Dependences.of collects them
        body = phase.op.body.block
        first = body.first_op
        assert first is not None
        body.insert_ops_before(starts.get(number, []), first)
        body.add_ops(ends.get(number, []))
