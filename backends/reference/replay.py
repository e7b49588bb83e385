"""Replays a witness of the verifier: executes its interleaving on virtual SMs and says whether the failure happens.

Every event of the order must be one that can happen at that point. What goes wrong before the end of the order (a
schedule with one error often has several) is noted and passed over. A write that an SM may not have seen is shown as the
SM may see it: the elements hold what they held before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from math import prod
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import IntegerType

from ...amk_ir.attrs import BufferKind, CheckpointAttr
from ...amk_ir.dtypes import round_to_bf16
from ...amk_ir.errors import ExecutionError, UsageError
from ...amk_ir.linear import POSITION
from ...dialects.queue import KernelOp
from ...dialects.schedule import EventKind, Schedule
from ...dialects.task import GatherOp
from ...passes.verifier.arrangement import TooLargeError
from ...passes.verifier.check import content_hash
from ...passes.verifier.coverage import box_text, history, intersection
from ...passes.verifier.failures import Box, FailureKind
from ...passes.verifier.machine import MAX_WORDS, Knowledge, Machine, elements
from ...passes.verifier.regions import Boxes, collect
from ...passes.verifier.timeline import Timeline
from ...passes.verifier.witness import TASK_NAME, Witness
from .memory import Array, is_bf16, is_poison
from .queue_interpreter import QueueInterpreter, Simulation
from .room import require_room
from .tasks import BoundTask, TaskTable
from .weights import Progress, WeightProvider, no_progress


@dataclass(frozen=True)
class Outcome:
    """What a replay showed.

    reproduced: whether the witness's failure happened; text says how, or what happened instead. trace: what was
    executed, a line for each stretch of events of one SM, for each order. notes: other failures on the way.
    """

    reproduced: bool
    text: str
    trace: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


class _RandomWeights(TaskTable):
    """Tasks whose weights are random, the same for the same seed; those of tasks that are not executed take no memory."""

    def __init__(self, interpreter: QueueInterpreter, position: int, seed: int):
        super().__init__(interpreter.schedule.families, interpreter.memory)
        self._bodies = interpreter.schedule.families
        self._schedule = interpreter.schedule
        self._storage = interpreter.memory
        self._seed = seed
        self._position = position
        self._filled: set[tuple[str, Box]] = set()
        self._ready: dict[tuple[int, int], BoundTask] = {}

    def get(self, family: int, task: int) -> BoundTask:
        """The task, with its weights filled in."""
        if (bound := self._ready.get((family, task))) is None:
            bound = self._ready[family, task] = self._prepare(family, task)
        return bound

    def _prepare(self, family: int, task: int) -> BoundTask:
        indices = {**self._schedule.task_indices(family, task), POSITION: self._position}
        for op in self._bodies[family].loads:
            buffer = self._storage.buffers[op.region.buffer]
            if isinstance(buffer.source, CheckpointAttr):
                key = (op.region.buffer, op.region.box(indices))
                if key not in self._filled:
                    self._filled.add(key)
                    self._fill(*key)
        return super().get(family, task)

    def _fill(self, name: str, box: Box) -> None:
        """Vectors are near 1, as the weights of norms are. A part that was filled keeps its values."""
        array, buffer = self._storage.arrays[name], self._storage.buffers[name]
        part = array[elements(box)]
        random = np.random.default_rng([self._seed, crc32(f"{name} {box}".encode())])
        values = random.standard_normal(part.shape, np.float32)
        rank = array.ndim - buffer.is_layered
        values = 1 + 0.2 * values if rank < 2 else values * np.float32(array.shape[-1] ** -0.5)
        part[part == 0] = (round_to_bf16(values) if is_bf16(buffer) else values)[part == 0]


def replay(
    kernel: KernelOp,
    witness: Witness,
    weights: WeightProvider | None = None,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Outcome:
    """Executes the orders of a witness. Weights, inputs and what earlier steps left are random where not given.

    Raises:
        UsageError: a witness of another kernel, or one that speaks of what the kernel does not have.
    """
    if witness.digest != content_hash(kernel):
        raise UsageError(
            f"the witness is of another schedule: @{witness.kernel}, SHA-256 {witness.digest[:12]}..., "
            f"found @{kernel.sym_name.data}, {content_hash(kernel)[:12]}...; verify this one to get a witness of it"
        )
    return replay_schedule(Schedule.from_kernel(kernel), witness, weights, seed=seed, progress=progress)


def replay_schedule(
    schedule: Schedule,
    witness: Witness,
    weights: WeightProvider | None = None,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> Outcome:
    """As `replay`, for a kernel that is already unrolled. That the witness is of this kernel is for the caller to know.

    Raises:
        UsageError: a witness that speaks of what the kernel does not have.
    """
    kernel = schedule.kernel
    if witness.position > kernel.max_pos:
        raise UsageError(f"the witness is of a step at {witness.position}, the last position is {kernel.max_pos}")
    if (buffer := kernel.buffers.get(witness.buffer)) is not None:
        # of each element its value, who wrote it, and a comparison; before all buffers are filled
        require_room(14 * prod(buffer.shape), f"the values and origins of @{witness.buffer}")
    with np.errstate(all="ignore"):  # poison is a NaN
        interpreter = QueueInterpreter(kernel, weights, schedule=schedule, progress=progress)
        if weights is None:
            interpreter.tasks = _RandomWeights(interpreter, witness.position, seed)
        player = _Player(interpreter, witness, seed)
        try:
            text = _CHECKS[witness.failure](player)
            reproduced = True
        except _OtherwiseError as e:
            text, reproduced = str(e), False
    return Outcome(reproduced, text, tuple(tuple(_trace(player, o)) for o in player.done), tuple(player.notes))


class _OtherwiseError(Exception):
    """Something else happened than the witness says."""


@dataclass
class _Execution:
    """One order, as far as it was executed. origin: the event that wrote each element of the witness's buffer."""

    simulation: Simulation
    known: Knowledge
    origin: NDArray[np.int64]
    events: list[int] = field(default_factory=list)


Hook = Callable[[_Execution], None]


class _Player:
    """A witness's kernel, ready to execute its orders."""

    def __init__(self, interpreter: QueueInterpreter, witness: Witness, seed: int):
        self.interpreter = interpreter
        self.witness = witness
        self.seed = seed
        self.schedule: Schedule = interpreter.schedule
        try:
            self.machine = Machine(self.schedule, witness.position)
        except TooLargeError as e:
            raise UsageError(f"the schedule has more than {MAX_WORDS} tagged words, too many to be replayed") from e
        self.timeline = Timeline(self.schedule, (), self.schedule.body.sm.astype(np.int64))
        self.notes: list[str] = []
        self.done: list[list[int]] = []
        self.parties = [self._party(p.sm, p.event) for p in witness.parties]
        self.buffer = interpreter.kernel.buffers.get(witness.buffer)
        if witness.buffer:
            if self.buffer is None or self.buffer.kind.data in (BufferKind.WEIGHT, BufferKind.INPUT):
                raise UsageError(f"the witness is about buffer @{witness.buffer}, which no task writes")
            sides = zip(witness.box, self.buffer.shape, strict=False)
            if len(witness.box) != len(self.buffer.shape) or not all(a < b <= size for (a, b), size in sides):
                raise UsageError(f"the witness's box {list(witness.box)} is not in buffer @{witness.buffer}")
        if witness.sm >= self.schedule.num_sms:
            raise UsageError(f"the witness is about SM {witness.sm}, the kernel has {self.schedule.num_sms}")

    @cached_property
    def _history(self) -> list[tuple[str, Boxes]]:
        """What earlier steps have certainly written of each state buffer."""
        tokens = self.interpreter.kernel.tokens.value.data
        return [
            (accesses.name, history(accesses, self.witness.position, tokens))
            for accesses in collect(Timeline.of(self.schedule))
            if accesses.kind is BufferKind.STATE
        ]

    def _party(self, sm: int, event: int) -> int:
        if sm >= self.schedule.num_sms or event >= len(self.schedule.body.range(sm)):
            raise UsageError(f"the witness is about event {event} of SM {sm}, which the kernel does not have")
        return self.schedule.body.range(sm)[event]

    @property
    def where(self) -> str:
        """The elements in question."""
        return box_text(self.witness.buffer, self.witness.box)

    @property
    def values(self) -> Array:
        """What they hold now."""
        return self.interpreter.memory.arrays[self.witness.buffer][elements(self.witness.box)]

    def task(self, event: int) -> str:
        return f"{self.timeline.describe(event)} ({self.timeline.place(event)})"

    def touches(self, event: int, reads: bool) -> int:
        """How many of an event's loads or stores access the elements in question."""
        if self.machine.kind[event] != EventKind.RUN:
            raise UsageError(f"the witness is about accesses of {self.timeline.describe(event)}, which has none")
        boxes = (b for name, b in self.machine.accesses(event, reads) if name == self.witness.buffer)
        return sum(all(a < b for a, b in intersection(box, self.witness.box)) for box in boxes)

    def streams(self, event: int) -> bool:
        """Whether the ring loads some of the elements in question for the task of an event."""
        indices = {
            **self.schedule.task_indices(self.machine.ref[event], self.machine.arg[event]),
            POSITION: self.witness.position,
        }
        tiles = (op.region for op in self.schedule.families[self.machine.ref[event]].streams)
        boxes = (region.box(indices) for region in tiles if region.buffer == self.witness.buffer)
        return any(all(a < b for a, b in intersection(box, self.witness.box)) for box in boxes)

    def play(
        self,
        number: int,
        before: Mapping[int, Hook] | None = None,
        after: Mapping[int, Hook] | None = None,
        *,
        last: int = -1,
    ) -> _Execution:
        """Executes an order; hooks run before and after their events. The order has to end with the event `last`.

        The last event itself is left to the caller if it is given.
        """
        order = self.witness.orders[number]
        execution = self._start()
        self.done.append(execution.events)
        for place, sm in enumerate(order):
            if sm not in execution.simulation.ready:
                self._cannot(execution, place, sm)
            event = self.machine.bounds[sm] + execution.simulation.at[sm]
            if before is not None and event in before:
                before[event](execution)
            if event == last:
                if place < len(order) - 1:
                    raise _OtherwiseError(f"{self.task(last)} is event {place} of the order, not the last")
                return execution
            if (error := self.advance(execution, sm)) is not None:
                self.notes.append(error)
            if after is not None and event in after:
                after[event](execution)
        if last >= 0:
            raise _OtherwiseError(f"the order ends without {self.task(last)}")
        return execution

    def advance(self, execution: _Execution, sm: int) -> str | None:
        """Executes the next event of an SM, whatever is wrong with it; what is."""
        simulation, error = execution.simulation, None
        event = self.machine.bounds[sm] + simulation.at[sm]
        tiles = simulation.ring_at[sm]
        try:
            simulation.advance(sm)
        except ExecutionError as e:
            error = str(e)
            simulation.ring_at[sm] = tiles
            simulation.advance(sm, checked=False)
            self._tell_poison_apart(event)
            simulation.start()
        execution.events.append(event)
        execution.known.complete(event)
        if self.machine.kind[event] == EventKind.RUN:
            for name, box in self.machine.accesses(event, False):
                if name == self.witness.buffer:
                    execution.origin[elements(box)] = event
        return error

    def _tell_poison_apart(self, event: int) -> None:
        """What a task computes from poison is poison too, but it was written."""
        for name, box in self.machine.accesses(event, False):
            array = self.interpreter.memory.arrays[name][elements(box)]
            array[is_poison(array)] = np.nan if array.dtype == np.float32 else 0

    def _cannot(self, execution: _Execution, place: int, sm: int) -> None:
        if sm >= self.schedule.num_sms:
            raise UsageError(f"the witness names SM {sm}, the kernel has {self.schedule.num_sms}")
        at = self.machine.bounds[sm] + execution.simulation.at[sm]
        what = "has finished" if at == self.machine.bounds[sm + 1] else f"is blocked at {self.task(at)}"
        raise _OtherwiseError(f"event {place} of the order cannot happen: SM {sm} {what}")

    def _start(self) -> _Execution:
        interpreter = self.interpreter
        memory = interpreter.memory
        interpreter.reset()
        random = np.random.default_rng(self.seed)
        for name, boxes in self._history:
            for low, high in zip(boxes.low.tolist(), boxes.high.tolist(), strict=True):
                part = memory.arrays[name][elements(tuple(zip(low, high, strict=True)))]
                values = random.standard_normal(part.shape, np.float32)
                part[...] = round_to_bf16(values) if is_bf16(memory.buffers[name]) else values
        memory.start_step({name: self._input(name, random) for name in memory.inputs}, poisoned=True)
        interpreter.counters = [0] * len(interpreter.counters)
        simulation = Simulation(interpreter, self.witness.position)
        simulation.start()
        shape = () if self.buffer is None else self.buffer.shape
        return _Execution(simulation, Knowledge(self.machine), np.full(shape, -1, np.int64))

    def _input(self, name: str, random: np.random.Generator) -> Array:
        op = self.interpreter.memory.buffers[name]
        if not isinstance(op.type.get_element_type(), IntegerType):
            return random.standard_normal(op.shape, np.float32)
        tables = [
            o.region.dims[0].size.constant
            for family in self.schedule.families
            for o in family.body.block.ops
            if isinstance(o, GatherOp)
        ]
        return random.integers(0, min(tables, default=1), op.shape, np.int32)


def _trace(player: _Player, events: list[int]) -> Iterator[str]:
    timeline = player.timeline
    for sm, stretch in groupby(events, key=lambda e: int(timeline.sm[e])):
        mine = list(stretch)
        first, last = timeline.position(mine[0]), timeline.position(mine[-1])
        if first == last:
            yield f"SM {sm}, event {first}: {timeline.describe(mine[0])}"
        else:
            yield f"SM {sm}, events {first} to {last}: up to {timeline.describe(mine[-1])}"


def _show(values: Array) -> str:
    """The first of some values, for a message."""
    flat = values.reshape(-1)
    if is_poison(flat[:1]).any():
        return "nothing (poison)"
    return f"{flat[0]:.6g}" if flat.dtype == np.float32 else str(flat[0])


def _need(condition: bool, otherwise: str) -> None:
    if not condition:
        raise _OtherwiseError(otherwise)


def _ended(execution: _Execution) -> None:
    ready = sorted(execution.simulation.ready)
    _need(not ready, f"the order is not a whole execution: SM {ready[0] if ready else 0} can go on")


def _deadlock(player: _Player) -> str:
    execution = player.play(0)
    _ended(execution)
    _need(bool(execution.simulation.stuck), "every SM finished")
    bounds, at = player.machine.bounds, execution.simulation.at
    for event in player.parties:
        sm = player.machine.sm[event]
        _need(bounds[sm] + at[sm] == event, f"SM {sm} does not stand at {player.task(event)}")
    return execution.simulation.deadlock()


def _missing_task(player: _Player) -> str:
    match = TASK_NAME.fullmatch(player.witness.task)
    families = {f.sym_name.data: f for f in player.schedule.families}
    family = families.get(match[1]) if match else None
    indices = [int(i) for i in match[2].split(",") if i.strip()] if match else []
    shape = family.domain.shape if family is not None else ()
    if family is None or len(indices) != len(shape) or any(i >= n for i, n in zip(indices, shape, strict=True)):
        raise UsageError(f"the witness is about task {player.witness.task!r}, which the kernel does not have")
    execution = player.play(0)
    _ended(execution)
    ran = {task.name for task in execution.simulation.order}
    _need(player.witness.task not in ran, f"task {player.witness.task} ran")
    end = execution.simulation.deadlock() if execution.simulation.stuck else "every SM has finished"
    return f"task {player.witness.task} has not run when the step ends: {end}"


def _repeated_task(player: _Player) -> str:
    machine = player.machine
    first, second = player.parties
    _need(
        first != second
        and machine.kind[first] == machine.kind[second] == EventKind.RUN
        and (machine.ref[first], machine.arg[first]) == (machine.ref[second], machine.arg[second]),
        f"{player.task(first)} and {player.task(second)} are not two runs of one task",
    )
    execution = player.play(0)
    _need({first, second} <= set(execution.events), "the order does not hold both runs of the task")
    return f"{player.timeline.describe(first)} ran twice: {player.timeline.place(first)} and {player.timeline.place(second)}"


def _stream(player: _Player) -> str:
    _need(player.interpreter.has_ring, "the kernel has no ring")
    if not player.parties:
        execution = player.play(0)
        _ended(execution)
        sm = player.witness.sm
        _need(sm >= 0 and sm not in execution.simulation.stuck, f"SM {sm} has not finished")
        taken, stream = execution.simulation.ring_at[sm], player.interpreter.streams[sm]
        _need(taken < len(stream), f"SM {sm} has taken all {len(stream)} tiles of its stream")
        left = player.schedule.task_name(*stream[taken])
        return f"SM {sm} has finished with {len(stream) - taken} fetches left in the ring, the first for task {left}"
    (event,) = player.parties
    sm = player.machine.sm[event]
    execution = player.play(0, last=event)
    taken, stream = execution.simulation.ring_at[sm], player.interpreter.streams[sm]
    wanted = (player.machine.ref[event], player.machine.arg[event])
    error = player.advance(execution, sm)
    _need(taken == len(stream) or stream[taken] != wanted, f"{player.task(event)} finds its tiles in the ring")
    assert error is not None
    return error


def _early_load(player: _Player) -> str:
    write, other = player.parties
    _need(player.touches(write, False) > 0, f"{player.task(write)} does not write {player.where}")
    _need(
        player.touches(other, True) > 0 and player.streams(other),
        f"{player.task(other)} does not stream {player.where}",
    )
    old: list[Array] = []
    sms = player.witness.orders[0][:1]
    first = player.machine.bounds[sms[0]] if sms and sms[0] < player.schedule.num_sms else -1
    execution = player.play(0, {first: lambda _: old.append(player.values.copy())}, last=other)
    _need(write in execution.events, f"the order does not hold {player.task(write)}")
    written = execution.origin[elements(player.witness.box)] >= 0
    values = player.values
    early, late = old[0][written], values[written].copy()
    values[written] = early
    error = player.advance(execution, player.machine.sm[other])
    return (
        f"{player.task(other)} streams {player.where}, which {player.task(write)} has written by then: it finds "
        f"{_show(early)} if the ring has loaded it at the beginning of the step, {_show(late)} if only now"
        f"{f'; {error}' if error else ''}"
    )


def _unwritten_output(player: _Player) -> str:
    assert player.buffer is not None
    _need(player.buffer.kind.data is BufferKind.OUTPUT, f"@{player.witness.buffer} is not an output")
    execution = player.play(0)
    _ended(execution)
    missing = (execution.origin[elements(player.witness.box)] < 0) & is_poison(player.values)
    _need(bool(missing.any()), f"{player.where} was written")
    return f"the step ended without a write to {player.where}"


def _unwritten_read(player: _Player) -> str:
    (event,) = player.parties
    _need(player.touches(event, True) > 0, f"{player.task(event)} does not read {player.where}")
    execution = player.play(0, last=event)
    _need(bool(is_poison(player.values).any()), f"{player.where} was written before {player.task(event)} reads it")
    error = player.advance(execution, player.machine.sm[event])
    return error or f"{player.task(event)} reads {player.where}, which nobody has written"


def _unseen_write(player: _Player) -> str:
    write, other = player.parties
    reads = player.touches(other, True) > 0
    _need(player.touches(write, False) > 0, f"{player.task(write)} does not write {player.where}")
    _need(reads or player.touches(other, False) > 0, f"{player.task(other)} does not access {player.where}")
    old: list[Array] = []

    def keep(_: _Execution) -> None:
        old.append(player.values.copy())

    hook = {write: keep} if write != other else None
    execution = player.play(0, hook, hook, last=other)
    sm, verb = player.machine.sm[other], "reads" if reads else "overwrites"
    if not old:
        error = player.advance(execution, sm)
        return error or f"{player.task(other)} {verb} {player.where} before {player.task(write)}"
    _need(not execution.known.sees(sm, write), f"SM {sm} has seen {player.task(write)} by then")
    before, written = old
    how = f"{player.task(other)} {verb} {player.where} after {player.task(write)}, which SM {sm} has not seen"
    if not reads:
        player.advance(execution, sm)
        return f"{how}: memory may keep {_show(written)} instead of {_show(player.values)}"
    origin = execution.origin[elements(player.witness.box)]
    unseen = np.array([not execution.known.sees(sm, int(e)) for e in origin.reshape(-1)]).reshape(origin.shape)
    if not unseen.any():  # overwritten by what the SM has seen, but that has not seen it either
        return f"{how}: it may find {_show(written)} instead of {_show(player.values)}"
    values = player.values
    new = values[unseen].copy()
    values[unseen] = before[unseen]
    error = player.advance(execution, sm)
    return f"{how}: it may find {_show(before[unseen])} there instead of {_show(new)}{f'; {error}' if error else ''}"


def _rewrite(player: _Player) -> str:
    first, second = player.parties
    if first == second:
        _need(player.touches(first, False) > 1, f"{player.task(first)} writes {player.where} once")
        execution = player.play(0, last=first)
        error = player.advance(execution, player.machine.sm[first])
        return (
            f"{player.task(first)} writes {player.where} twice, in no particular order{f': {error}' if error else ''}"
        )
    for event in (first, second):
        _need(player.touches(event, False) > 0, f"{player.task(event)} does not write {player.where}")
    execution = player.play(0)
    _need({first, second} <= set(execution.events), "the order does not hold both writes")
    # once more, to look at the elements before the later of the two
    last = max(first, second, key=execution.events.index)
    earlier = first if last == second else second
    player.done.clear()
    player.notes.clear()
    execution = player.play(0, last=last)
    mine = execution.origin[elements(player.witness.box)] >= 0
    lost = player.values[mine].copy()
    player.advance(execution, player.machine.sm[last])
    return (
        f"{player.task(last)} overwrites {player.where}, which {player.task(earlier)} wrote in this step: "
        f"{_show(lost)} becomes {_show(player.values[mine])}"
    )


def _unordered(player: _Player) -> str:
    write, other = player.parties
    reads = player.touches(other, True) > 0
    _need(player.touches(write, False) > 0, f"{player.task(write)} does not write {player.where}")
    _need(reads or player.touches(other, False) > 0, f"{player.task(other)} does not access {player.where}")
    seen: list[tuple[NDArray[np.int64], Array]] = []

    def look(execution: _Execution) -> None:
        seen.append((execution.origin[elements(player.witness.box)].copy(), player.values.copy()))

    for number in (0, 1):
        execution = player.play(number, {other: look} if reads else None)
        _need({write, other} <= set(execution.events), f"order {number} does not hold both accesses")
        if not reads:
            look(execution)
    differ = seen[0][0] != seen[1][0]
    _need(bool(differ.any()), f"{player.where} comes from the same writes in both orders")
    values = [_show(values[differ]) for _, values in seen]
    after = (
        f"{player.task(other)} reads" if reads else f"after {player.task(write)} and {player.task(other)}, memory holds"
    )
    same = " (the same value with these weights and inputs)" if values[0] == values[1] else ""
    return f"{after} {player.where}: {values[0]} in one order, {values[1]} in the other{same}"


_CHECKS: Mapping[FailureKind, Callable[[_Player], str]] = {
    FailureKind.DEADLOCK: _deadlock,
    FailureKind.EARLY_LOAD: _early_load,
    FailureKind.MISSING_TASK: _missing_task,
    FailureKind.REPEATED_TASK: _repeated_task,
    FailureKind.REWRITE: _rewrite,
    FailureKind.STREAM: _stream,
    FailureKind.UNORDERED: _unordered,
    FailureKind.UNSEEN_WRITE: _unseen_write,
    FailureKind.UNWRITTEN_OUTPUT: _unwritten_output,
    FailureKind.UNWRITTEN_READ: _unwritten_read,
}
