"""Counters, signals and waits on their way into a kernel, and out of it again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from xdsl.ir import Operation

from ...amk_ir.linear import Linear
from ...dialects import queue


@dataclass
class Edit:
    """Operations to add to a kernel: each wait before an operation of a body, each signal after one."""

    kernel: queue.KernelOp
    counters: list[queue.CounterOp] = field(default_factory=list[queue.CounterOp])
    waits: list[tuple[Operation, queue.WaitOp]] = field(default_factory=list[tuple[Operation, queue.WaitOp]])
    signals: list[tuple[Operation, queue.SignalOp]] = field(default_factory=list[tuple[Operation, queue.SignalOp]])

    @property
    def operations(self) -> Sequence[Operation]:
        return (*self.counters, *(s for _, s in self.signals), *(w for _, w in self.waits))

    def describe(self) -> Iterator[str]:
        """A line for each operation: what it is, and where it stands."""
        for counter in self.counters:
            yield f"`{counter!s}`"
        for where, found in (("after", self.signals), ("before", self.waits)):
            for anchor, op in found:
                program = queue.enclosing_program(op)
                assert program is not None
                sms = program.sms
                on = f"SM {sms.start}" if len(sms) == 1 else f"SMs {sms.start} to {sms.stop - 1}"
                yield f"`{op!s}` {where} `{anchor!s}` ({on})"

    def apply(self) -> None:
        """Inserts everything, in the order of the lists."""
        first = self.kernel.programs[0]
        for counter in self.counters:
            self.kernel.body.block.insert_op_before(counter, first)
        for anchor, wait in self.waits:
            _block(anchor).insert_op_before(wait, anchor)
        for anchor, signal in reversed(self.signals):
            _block(anchor).insert_op_after(signal, anchor)

    def undo(self) -> None:
        """Removes everything that was inserted."""
        for op in self.operations:
            op.detach()

    def leave_out(self, number: int) -> None:
        """Removes a wait; `put_back` undoes that."""
        self.waits[number][1].detach()

    def put_back(self, number: int) -> None:
        """Inserts a wait again that `leave_out` removed."""
        anchor, wait = self.waits[number]
        _block(anchor).insert_op_before(wait, anchor)

    def settle(self) -> None:
        """Forgets the waits that were left out, and removes the counters and signals for which nobody waits any more."""
        self.waits = [(anchor, wait) for anchor, wait in self.waits if wait.parent is not None]
        added = {c.sym_name.data for c in self.counters}
        indices: dict[str, set[Linear]] = {name: set() for name in added}
        for _, wait in self.waits:
            if wait.counter_name in added:
                indices[wait.counter_name].add(wait.index.data)
        for _, signal in self.signals:
            wanted = indices[signal.counter_name]
            # indices of loops may be equal to any other
            if not wanted or (
                all(i.is_constant for i in (*wanted, signal.index.data)) and signal.index.data not in wanted
            ):
                signal.detach()
        for counter in self.counters:
            if not indices[counter.sym_name.data]:
                counter.detach()
        self.counters = [c for c in self.counters if c.parent is not None]
        self.signals = [(anchor, s) for anchor, s in self.signals if s.parent is not None]


def _block(anchor: Operation):
    block = anchor.parent
    assert block is not None
    return block
