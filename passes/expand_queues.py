"""`expand-queues`: from the compact form of a kernel to the explicit one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, Region
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..dialects import queue
from ..dialects.schedule import EventKind, Events, Schedule

OpT = TypeVar("OpT", bound=Operation)


@dataclass(frozen=True)
class ExpandQueuesPass(ModulePass):
    """Replaces the programs of each kernel by one an SM, with every task, wait and signal spelled out.

    The kernel means the same. It grows with SMs x layers x tiles: for reading, editing and testing small ones.
    """

    name = "expand-queues"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for kernel in op.ops:
            if isinstance(kernel, queue.KernelOp):
                _expand(kernel)


MAX_OPS = 2**18
"""The greatest number of events that are spelled out; each becomes an op of some kilobytes."""


def _expand(kernel: queue.KernelOp) -> None:
    schedule = Schedule.from_kernel(kernel)
    if (events := len(schedule.body) + len(schedule.stream)) > MAX_OPS:
        raise PassFailedException(
            f"expand-queues: kernel @{kernel.sym_name.data} has {events} events, at most {MAX_OPS} are spelled out"
        )
    used = {sm for program in kernel.programs for sm in program.sms}
    explicit = [
        queue.ProgramOp(
            sm,
            sm + 1,
            _region(schedule, schedule.stream, sm, queue.FetchOp),
            _region(schedule, schedule.body, sm, queue.RunOp),
        )
        for sm in sorted(used)
    ]
    for program in kernel.programs:
        program.detach()
        program.erase()
    kernel.body.block.add_ops(explicit)


def _region(schedule: Schedule, events: Events, sm: int, placed: Callable[[str, list[int]], Operation]) -> Region:
    """The events of one SM as ops; `placed` makes a run or a fetch."""
    block = Block()
    entries = events.range(sm)
    columns = (c[entries.start : entries.stop].tolist() for c in (events.kind, events.ref, events.arg, events.op))
    for kind, ref, arg, number in zip(*columns, strict=True):
        if kind == EventKind.RUN:
            indices = list(schedule.task_indices(ref, arg).values())
            block.add_op(placed(schedule.families[ref].sym_name.data, indices))
            continue
        counter, element = schedule.counters[ref]
        if kind == EventKind.SIGNAL:
            block.add_op(queue.SignalOp(counter, element))
            continue
        original = schedule.ops[number]
        assert isinstance(original, queue.WaitOp)
        block.add_op(queue.WaitOp(counter, element, None if original.threshold is None else arg))
    return Region(block)
