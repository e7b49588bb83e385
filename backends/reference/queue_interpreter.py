"""Executes a `queue.kernel` on virtual SMs, exactly as the semantics of schedules say.

One event (a task, a wait or a signal) of one SM is one scheduling step; an interleaving chooses whose turn it is. A
wait blocks until its counter has had its signals of this step; counters are never reset, so the threshold of step e is
`e * signals per step + n`. A task that reads tagged words runs only when all of them carry this step's epoch. Weight
tiles enter each SM's ring in stream order, and a task must find its own tiles next.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from ...amk_ir.errors import ExecutionError
from ...dialects.queue import KernelOp
from ...dialects.schedule import EventKind, Schedule
from .interleavings import Interleaving, RoundRobin
from .memory import Memory
from .step import StepResult, check_position, read_result, token_input
from .tasks import BoundTask, Step, TaskTable, Values
from .weights import Progress, WeightProvider, no_progress

_REPORTED_SMS = 8

Event = tuple[EventKind, int, int, int]
"""(kind, ref, arg, op) as in `schedule.Events`."""


class QueueInterpreter:
    """A kernel with its buffers: one sequence at a time.

    weights: None leaves those of a checkpoint zero. schedule: what the kernel is unrolled to, where that was done already.
    interleaving: who goes when, round-robin unless given.
    checked: every step is simulated with all checks. Unchecked, only the first step is: whether an event can happen
    does not depend on data, so the order in which the first step completed is a legal execution of every later step,
    which repeats it without looking at counters, tags, ring and poison. (If a tagged access depends on the position,
    every step is simulated.) beside: another kernel of the model, whose weights and state this one uses.
    """

    def __init__(
        self,
        kernel: KernelOp,
        weights: WeightProvider | None,
        *,
        schedule: Schedule | None = None,
        interleaving: Interleaving | None = None,
        checked: bool = True,
        progress: Progress = no_progress,
        beside: QueueInterpreter | None = None,
    ):
        self.kernel = kernel
        self.schedule = Schedule.from_kernel(kernel) if schedule is None else schedule
        self.interleaving: Interleaving = RoundRobin() if interleaving is None else interleaving
        self.checked = checked
        self.memory = Memory(kernel.buffers, weights, progress, beside=None if beside is None else beside.memory)
        self.tasks = TaskTable(self.schedule.families, self.memory)
        self.bodies = [_events(self.schedule, sm) for sm in range(self.schedule.num_sms)]
        self.streams = [
            [
                (int(self.schedule.stream.ref[i]), int(self.schedule.stream.arg[i]))
                for i in self.schedule.stream.range(sm)
            ]
            for sm in range(self.schedule.num_sms)
        ]
        self.signals = [int(n) for n in self.schedule.signals]
        # before plan-stream there is no ring, and tiles come straight from memory
        self.has_ring = kernel.ring is not None
        self.epoch = 0
        self.counters = [0] * len(self.schedule.counters)
        self._replay: list[tuple[Step, Values]] | None = None

    def reset(self) -> None:
        """Forgets the state: the next step is at position 0."""
        self.memory.reset()
        self.epoch = 0
        self.counters = [0] * len(self.counters)

    def execute(self, inputs: Mapping[str, Any], pos: int) -> None:
        """Runs one step on the buffers of `memory`; `inputs` are the input buffers' values by name.

        Raises:
            ExecutionError: position, inputs or a token id out of range, a deadlock, a tile that is not next in the
                ring, or an access that the semantics forbid. A step that failed or was interrupted does not count and
                can be run again.
        """
        check_position(pos, self.kernel.max_pos)
        simulated = self.checked or self._replay is None
        self.memory.start_step(inputs, poisoned=simulated)
        self.counters = [self.epoch * n for n in self.signals]
        if simulated:
            order = Simulation(self, pos).run()
            if not self.checked and not any(_tag_depends_on_position(task) for task in order):
                self._replay = [(step, task.values) for task in order for step in task.steps]
        else:
            assert self._replay is not None
            for step, values in self._replay:
                step(values, pos)
            self.counters = [(self.epoch + 1) * n for n in self.signals]
        self.epoch += 1

    def step(self, tokens: Sequence[int], pos: int) -> StepResult:
        """Runs one step of a decoder: `tokens` from position `pos` on. Raises like `execute`."""
        self.execute({token_input(self.memory): tokens}, pos)
        return read_result(self.memory)


def _events(schedule: Schedule, sm: int) -> list[Event]:
    body, owned = schedule.body, schedule.body.range(sm)
    part = slice(owned.start, owned.stop)
    columns = (body.kind[part].tolist(), body.ref[part].tolist(), body.arg[part].tolist(), body.op[part].tolist())
    return [(EventKind(kind), ref, arg, op) for kind, ref, arg, op in zip(*columns, strict=True)]


def _tag_depends_on_position(task: BoundTask) -> bool:
    return any(not region.is_static for region in task.tagged_reads)


class Simulation:
    """One step: where every SM stands, and who waits for what.

    at: the number of events of its queue that each SM has completed. ring_at: of its stream, the tiles that it took.
    ready: the SMs whose next event can happen, once `start` was called. order: the tasks in the order in which they ran.
    """

    def __init__(self, kernel: QueueInterpreter, pos: int):
        self.kernel = kernel
        self.pos = pos
        self.schedule = kernel.schedule
        self.at = [0] * kernel.schedule.num_sms
        self.ring_at = [0] * kernel.schedule.num_sms
        self.ready: set[int] = set()
        self.on_counter: defaultdict[int, list[int]] = defaultdict(list)
        self.on_tags: set[int] = set()
        self.order: list[BoundTask] = []

    def run(self) -> list[BoundTask]:
        """Executes everything; the tasks in the order in which they ran."""
        self.start()
        choose = self.kernel.interleaving.choose
        while self.ready:
            self.advance(choose(sorted(self.ready), self._next_kind))
        if self.stuck:
            raise ExecutionError(self.deadlock())
        self._check_end()
        return self.order

    def start(self) -> None:
        """Looks at every SM's first event."""
        for sm in range(self.schedule.num_sms):
            self._look(sm)

    def advance(self, sm: int, checked: bool = True) -> None:
        """Executes the next event of a ready SM. Unchecked, it happens whatever is wrong with it."""
        self._execute(sm, checked)
        self._look(sm)

    @property
    def stuck(self) -> list[int]:
        """The SMs that have not finished."""
        return [sm for sm, body in enumerate(self.kernel.bodies) if self.at[sm] < len(body)]

    def _next_kind(self, sm: int) -> EventKind:
        return self.kernel.bodies[sm][self.at[sm]][0]

    def _need(self, counter: int, threshold: int) -> int:
        return self.kernel.epoch * self.kernel.signals[counter] + threshold

    def _look(self, sm: int) -> None:
        """Files an SM by its next event: ready, or blocked on a counter or on tags."""
        self.ready.discard(sm)
        body = self.kernel.bodies[sm]
        if self.at[sm] == len(body):
            return
        kind, ref, arg, _ = body[self.at[sm]]
        if kind is EventKind.WAIT and self.kernel.counters[ref] < self._need(ref, arg):
            self.on_counter[ref].append(sm)
        elif kind is EventKind.RUN and self.kernel.tasks.get(ref, arg).missing_tag(self.pos) is not None:
            self.on_tags.add(sm)
        else:
            self.ready.add(sm)

    def _execute(self, sm: int, checked: bool) -> None:
        kind, ref, arg, _ = self.kernel.bodies[sm][self.at[sm]]
        if kind is EventKind.RUN:
            self._run_task(sm, ref, arg, checked)
        self.at[sm] += 1
        if kind is EventKind.SIGNAL:
            self.kernel.counters[ref] += 1
            for waiting in self.on_counter.pop(ref, ()):
                self._look(waiting)

    def _run_task(self, sm: int, family: int, number: int, checked: bool) -> None:
        task = self.kernel.tasks.get(family, number)
        try:
            if task.streams and self.kernel.has_ring:
                self._take_tiles(sm, family, number, checked)
            task.run(self.pos, checked)
        except ExecutionError as e:
            if checked:
                raise ExecutionError(f"SM {sm}, task {task.name} at position {self.pos}: {e}") from None
        self.order.append(task)
        if task.writes_tagged:
            waiting, self.on_tags = self.on_tags, set()
            for other in waiting:
                self._look(other)

    def _take_tiles(self, sm: int, family: int, number: int, checked: bool) -> None:
        stream = self.kernel.streams[sm]
        at = self.ring_at[sm]
        if not checked:
            self.ring_at[sm] = min(at + 1, len(stream))
            return
        if at == len(stream):
            raise ExecutionError(f"takes its tiles from the ring after all {at} fetches of the stream were taken")
        if stream[at] != (family, number):
            found = self.schedule.task_name(*stream[at])
            raise ExecutionError(f"takes its tiles from the ring, where the tiles of {found} are next (fetch {at})")
        self.ring_at[sm] += 1

    def _check_end(self) -> None:
        for sm, stream in enumerate(self.kernel.streams):
            if self.kernel.has_ring and self.ring_at[sm] < len(stream):
                left = self.schedule.task_name(*stream[self.ring_at[sm]])
                raise ExecutionError(
                    f"SM {sm}: the step ended with {len(stream) - self.ring_at[sm]} fetches left in the ring, "
                    f"the first for task {left}"
                )
        self.kernel.memory.check_outputs()

    def deadlock(self) -> str:
        """Where the SMs stand that cannot finish, and what each waits for."""
        stuck = self.stuck
        lines = [f"SM {sm} at event {self.at[sm]}: {self._waits_for(sm)}" for sm in stuck[:_REPORTED_SMS]]
        if len(stuck) > _REPORTED_SMS:
            lines.append(f"and {len(stuck) - _REPORTED_SMS} more SMs")
        done = self.schedule.num_sms - len(stuck)
        return f"deadlock at position {self.pos}, {done} SMs have finished; " + "; ".join(lines)

    def _waits_for(self, sm: int) -> str:
        kind, ref, arg, _ = self.kernel.bodies[sm][self.at[sm]]
        if kind is EventKind.WAIT:
            had = self.kernel.counters[ref] - self.kernel.epoch * self.kernel.signals[ref]
            name = self.schedule.counter_name(ref)
            total = self.kernel.signals[ref]
            return f"waits for {arg} signals of {name}, which has had {had} of the {total} in a step"
        task = self.kernel.tasks.get(ref, arg)
        return f"task {task.name} waits for tagged word {task.missing_tag(self.pos)}"
