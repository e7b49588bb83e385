"""From the records that a stopped kernel leaves to a sentence: who waited, at what, for what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.errors import StuckWaitError
from .plan import KernelPlan

RECORD_WORDS = 9
"""Words of a StuckRecord in device/spin.cuh."""
_COUNTER, _TAG, _RING_FULL, _RING_EMPTY, _STEP = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class StuckWait:
    """One wait that gave up; fields as in device/spin.cuh."""

    sm: int
    is_producer: bool
    operation: int
    kind: int
    index: int
    expected: int
    seen: int
    phase: int
    step: int


def stuck_waits(records: NDArray[Any]) -> list[StuckWait]:
    """The waits that gave up, the root of the jam first.

    `records` [SMs, 2, RECORD_WORDS]. All SMs pass the same steps and phases, so the wait in the earliest phase of the
    earliest step is not a consequence of another one; waits on the ring usually are.
    """
    waits = [
        StuckWait(sm, bool(role), *(int(records[sm, role, word]) for word in (1, 2, 3, 4, 5, 6, 8)))
        for sm in range(records.shape[0])
        for role in range(2)
        if records[sm, role, 0]
    ]
    return sorted(waits, key=lambda w: (w.is_producer, w.step, w.phase, w.kind, w.sm))


def describe(plan: KernelPlan, wait: StuckWait, epoch: int) -> str:
    """What the wait waited for, in words; `epoch`: of the launch's first step."""
    operation = plan.operations[wait.operation] if wait.operation < len(plan.operations) else None
    text = operation.text if operation is not None else f"operation {wait.operation}"
    where = f"SM {wait.sm} waited at '{text}'"
    if wait.kind == _COUNTER:
        counter = plan.counter_of(wait.index)
        before = (epoch + wait.step - 1) * plan.counter_total(wait.index)
        expected, seen = ((value - before) & 0xFFFFFFFF for value in (wait.expected, wait.seen))
        return f"{where} for counter {counter}: expected {expected} signals in this step, seen {seen}"
    if wait.kind == _TAG and operation is not None and operation.buffer:
        buffer = next(b for b in plan.buffers if b.name == operation.buffer)
        index = ", ".join(str(int(i)) for i in np.unravel_index(wait.index % buffer.elements, buffer.shape))
        return f"{where} for word @{buffer.name}[{index}], which was not written in epoch {wait.expected}"
    if wait.kind == _STEP:
        missing = (wait.expected - wait.seen) & 0xFFFFFFFF
        return f"{where} until all SMs had ended the step, which {missing} had not"
    stage = "to be filled" if wait.kind == _RING_FULL else "to be emptied"
    return f"{where} for ring stage {wait.index} {stage}"


def stuck_error(plan: KernelPlan, records: NDArray[Any], epoch: int, pos: int, limit_s: float) -> StuckWaitError:
    """The error of a launch that stopped, whose first step was at `pos`; `epoch`: of that step, from 1 after a reset."""
    waits = stuck_waits(records)
    if not waits:
        return StuckWaitError(f"kernel @{plan.name} stopped at position {pos} and left no record of a stuck wait")
    others = len({w.sm for w in waits} - {waits[0].sm})
    return StuckWaitError(
        f"kernel @{plan.name} was stopped at position {pos + waits[0].step} after {limit_s:g} s: "
        f"{describe(plan, waits[0], epoch)} ({others} other SMs waited too); the schedule or the device code is wrong"
    )
