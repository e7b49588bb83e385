"""The events of a kernel, SM by SM: a `queue.kernel` in either form unrolled into arrays, without building IR.

The verifier, the reference backend and `expand-queues` all read a kernel through this, so the compact and the explicit
form mean the same by construction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from math import prod

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation, Region

from .queue import FetchOp, KernelOp, PhaseOp, PlacedOp, ProgramOp, RunOp, SignalOp, WaitOp
from .task import FamilyOp, ForOp

Ints = NDArray[np.int32]


class EventKind(IntEnum):
    """What an event of a body does."""

    RUN = 0
    WAIT = 1
    SIGNAL = 2


@dataclass(frozen=True)
class Events:
    """Events of all SMs as parallel arrays, grouped by SM and in program order within an SM.

    kind: an EventKind (RUN for every entry of a stream). ref: family number of a run or fetch, counter number of a
    wait or signal. arg: row-major task number of a run or fetch, threshold of a wait (signals of this step), 0 of a
    signal. op: number of the IR op in `Schedule.ops`. bounds: SM s owns entries [bounds[s], bounds[s + 1]).
    """

    kind: Ints
    ref: Ints
    arg: Ints
    op: Ints
    bounds: Ints

    def __len__(self) -> int:
        return len(self.kind)

    def range(self, sm: int) -> range:
        """The entries of an SM."""
        return range(int(self.bounds[sm]), int(self.bounds[sm + 1]))

    @property
    def sm(self) -> Ints:
        """The SM of every entry."""
        return np.repeat(np.arange(len(self.bounds) - 1, dtype=np.int32), np.diff(self.bounds))


@dataclass(frozen=True)
class Schedule:
    """A kernel's events.

    families: by number. counters: (name, element) by number. signals: signals of one step for each counter.
    ops: the IR op of each event's `op` number. body, stream: what every SM executes, and fetches into its ring.
    """

    kernel: KernelOp
    families: tuple[FamilyOp, ...]
    counters: tuple[tuple[str, int], ...]
    signals: Ints
    ops: tuple[Operation, ...]
    body: Events
    stream: Events

    @property
    def num_sms(self) -> int:
        return self.kernel.num_sms

    def task_indices(self, family: int, task: int) -> dict[str, int]:
        """Domain index values of a task, by name."""
        return self.families[family].domain.unflatten(task)

    def task_name(self, family: int, task: int) -> str:
        """`@family[i, j]`, for diagnostics."""
        indices = self.task_indices(family, task).values()
        return f"@{self.families[family].sym_name.data}[{', '.join(map(str, indices))}]"

    def counter_name(self, counter: int) -> str:
        """`@counter[i]`, for diagnostics."""
        name, element = self.counters[counter]
        return f"@{name}[{element}]"

    @staticmethod
    def from_kernel(kernel: KernelOp) -> Schedule:
        """Unrolls a verified-as-IR kernel; linear in the number of events."""
        return _Unroller(kernel).schedule()


class _Columns:
    """Events in the order of unrolling; `finish` groups them by SM, keeping that order within each."""

    def __init__(self) -> None:
        self._parts: list[tuple[int, int, int, Ints, Ints]] = []

    def add(self, kind: EventKind, ref: int, op: int, sms: Ints, args: Ints) -> None:
        """One event on each of `sms` (which may repeat), with its argument."""
        self._parts.append((kind, ref, op, sms, args))

    def finish(self, num_sms: int) -> Events:
        if not self._parts:
            empty = np.zeros(0, np.int32)
            return Events(empty, empty, empty, empty, np.zeros(num_sms + 1, np.int32))
        lengths = [len(sms) for _, _, _, sms, _ in self._parts]
        kind, ref, op = (
            np.repeat(np.array([part[field] for part in self._parts], np.int32), lengths) for field in range(3)
        )
        sm = np.concatenate([part[3] for part in self._parts])
        arg = np.concatenate([part[4] for part in self._parts])
        order = np.argsort(sm, kind="stable")
        bounds = np.searchsorted(sm[order], np.arange(num_sms + 1)).astype(np.int32)
        return Events(kind[order], ref[order], arg[order], op[order], bounds)


class _Unroller:
    def __init__(self, kernel: KernelOp):
        self.kernel = kernel
        self.families = tuple(kernel.families.values())
        self.family_number = {f.sym_name.data: i for i, f in enumerate(self.families)}
        self.counters: list[tuple[str, int]] = []
        self.counter_base: dict[str, int] = {}
        for name, counter in kernel.counters.items():
            self.counter_base[name] = len(self.counters)
            self.counters += [(name, i) for i in range(counter.size.value.data)]
        self.ops: list[Operation] = []
        self.op_number: dict[Operation, int] = {}

    def schedule(self) -> Schedule:
        body, stream = _Columns(), _Columns()
        totals = np.zeros(len(self.counters), np.int32)
        # waits for `all` need the totals, so signals are counted before any wait is resolved
        for program in self.kernel.programs:
            self._walk(program, program.body, {}, None, None, totals)
        for program in self.kernel.programs:
            self._walk(program, program.body, {}, None, body, totals)
            self._walk(program, program.stream, {}, None, stream, totals)
        return Schedule(
            self.kernel,
            self.families,
            tuple(self.counters),
            totals,
            tuple(self.ops),
            body.finish(self.kernel.num_sms),
            stream.finish(self.kernel.num_sms),
        )

    def _walk(
        self,
        program: ProgramOp,
        region: Region,
        scope: Mapping[str, int],
        participants: Ints | None,
        columns: _Columns | None,
        totals: Ints,
    ) -> None:
        """Unrolls `region`; without `columns`, only counts signals into `totals`."""
        everyone = np.arange(program.sms.start, program.sms.stop, dtype=np.int32)
        sms = everyone if participants is None else participants
        for op in region.block.ops:
            match op:
                case ForOp():
                    for value in op.range:
                        self._walk(program, op.body, {**scope, op.index.data: value}, participants, columns, totals)
                case PhaseOp():
                    owners = np.unique(np.concatenate([self._place(run, program, scope)[0] for run in op.runs]))
                    self._walk(program, op.body, scope, owners, columns, totals)
                case RunOp() | FetchOp():
                    if columns is not None:
                        owners, tasks = self._place(op, program, scope)
                        family = self.family_number[op.family_name]
                        columns.add(EventKind.RUN, family, self._number(op), owners, tasks)
                case WaitOp():
                    if columns is not None:
                        counter = self.counter_base[op.counter_name] + op.index.data.evaluate(scope)
                        total = int(totals[counter])
                        threshold = total if op.threshold is None else op.threshold.data.evaluate(scope)
                        columns.add(
                            EventKind.WAIT, counter, self._number(op), sms, np.full(len(sms), threshold, np.int32)
                        )
                case SignalOp():
                    counter = self.counter_base[op.counter_name] + op.index.data.evaluate(scope)
                    if columns is None:
                        totals[counter] += len(sms)
                    else:
                        columns.add(EventKind.SIGNAL, counter, self._number(op), sms, np.zeros(len(sms), np.int32))
                case _:
                    raise AssertionError(f"verified programs do not hold '{op.name}'")

    def _place(self, op: PlacedOp, program: ProgramOp, scope: Mapping[str, int]) -> tuple[Ints, Ints]:
        return place(op, self.families[self.family_number[op.family_name]], program, scope)

    def _number(self, op: Operation) -> int:
        if (number := self.op_number.get(op)) is None:
            number = self.op_number[op] = len(self.ops)
            self.ops.append(op)
        return number


def place(op: PlacedOp, family: FamilyOp, program: ProgramOp, scope: Mapping[str, int]) -> tuple[Ints, Ints]:
    """The SM and the row-major number of every task of a run or fetch of `family`, in task order, under loop indices `scope`."""
    bound = [value.evaluate(scope) for value in op.indices.data]
    shape = family.domain.shape
    count = prod(shape[len(bound) :])
    first = family.domain.flatten([*bound, *(0 for _ in shape[len(bound) :])])
    tasks = np.arange(count, dtype=np.int32)
    n, base = len(program.sms), program.sms.start
    if op.placement is None:
        sms = np.full(count, base, np.int32)
    else:
        placement = op.placement.data
        offset = placement.offset.evaluate(scope) % n  # any integer; the numbers below have 32 and 64 bits
        if placement.kind == "cyclic":
            sms = base + (tasks + offset) % n
        else:
            # the SM s with s*count // n <= t < (s+1)*count // n
            sms = base + (((tasks.astype(np.int64) + 1) * n - 1) // count + offset) % n
    return sms.astype(np.int32), first + tasks
