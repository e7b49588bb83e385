"""A model of a step's time, from the IR of its kernel: bytes, phases, hand-offs, and what the weight ring hides of them.

A kernel passes *phases* one after the other. In each, an SM first gathers the activation words that other SMs have just
written, which takes a hand-off; then it works through the bytes that its ring brings. Meanwhile, and while it waits, the
ring goes on loading, up to its size: that is how much of a wait costs nothing. docs/step_time.md has the formula, and
how well it predicts what was measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.access import Access
from ...amk_ir.attention_turn import GROUP
from ...amk_ir.attrs import BufferKind
from ...amk_ir.errors import CompileError
from ...amk_ir.linear import POSITION
from ...dialects.queue import KernelOp, PhaseOp, ProgramOp, RunOp
from ...dialects.schedule import place
from ...dialects.task import AttentionOp, AttentionPartOp, FamilyOp, ForOp, LoadOp, StreamOp, op_of
from .caches import CacheLayout
from .context import EmitContext, attentions_of, cache_layouts
from .emit import LOADS
from .first_stages import early_bytes
from .placement import PlacedTasks

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PhaseWork:
    """What each SM does in one phase: arrays [SMs].

    name: of its runs, with the loop indices. owns: whether an SM has a task of it; the others skip it. weight_bytes,
    cache_bytes: what comes through the ring, of weights and of earlier keys and values. words: of activations that other
    tasks of the step write, and that an SM gathers; those that several runs load are gathered once. early_bytes: of weights, what
    registers have taken from the ring before the words are there.
    """

    name: str
    owns: NDArray[np.bool_]
    weight_bytes: Floats
    cache_bytes: Floats
    words: Floats
    early_bytes: Floats


@dataclass(frozen=True)
class StepParameters:
    """What the model knows of a device and of the engine on it.

    sm_bytes_per_us: what a ring loads, the read peak's share of an SM. phase_us: from the last store of a phase to the first word that a
    reader has, with the barriers and sums around it. word_ns: for each word that an SM gathers. multiply_bytes_per_us,
    attend_bytes_per_us: how fast an SM works through weights, and through keys and values, that are in its ring.
    """

    sm_bytes_per_us: float
    phase_us: float
    word_ns: float
    multiply_bytes_per_us: float
    attend_bytes_per_us: float


@dataclass(frozen=True)
class StepTime:
    """A predicted step: microseconds.

    read_us: the bytes of the busiest SM at the rate of its ring. handoff_us, work_us: the hand-offs, and working through
    bytes that are in the ring, of the SM that ends each phase. hidden_us: what of these three happens at the same time as
    another. phases: the duration of each.
    """

    total_us: float
    read_us: float
    handoff_us: float
    work_us: float
    hidden_us: float
    phases: tuple[float, ...]


def step_phases(kernel: KernelOp, pos: int) -> list[PhaseWork]:
    """The phases of a step of `kernel` at position `pos`, in order.

    Raises CompileError: a kernel without a ring, of several programs, or one that the CUDA backend cannot pack.
    """
    if len(kernel.programs) != 1:
        raise CompileError(
            f"kernel @{kernel.sym_name.data} has {len(kernel.programs)} programs, the model of a step's time is of kernels "
            "with one for all SMs: give it the compact form, before expand-queues"
        )
    if not 0 <= pos <= kernel.max_pos:
        raise CompileError(
            f"kernel @{kernel.sym_name.data}: expected a position from 0 to {kernel.max_pos}, found {pos}"
        )
    return _Reader(kernel, pos).phases()


def ring_bytes_of(kernel: KernelOp) -> int:
    """Bytes that the ring of an SM holds; CompileError for a kernel without one."""
    return EmitContext.of(kernel, LOADS[0], 0).ring.total_bytes


def predict(phases: Sequence[PhaseWork], ring_bytes: int, of: StepParameters) -> StepTime:
    """The time of a step that passes `phases`, on SMs with rings of `ring_bytes` bytes each."""
    if not phases:
        return StepTime(0.0, 0.0, 0.0, 0.0, 0.0, ())
    rate = of.sm_bytes_per_us
    sms = len(phases[0].owns)
    total = handoffs = work = 0.0
    loaded = np.zeros(sms)  # bytes in the ring that nobody has used yet
    durations: list[float] = []
    for phase, following in zip_longest(phases, phases[1:]):
        used = phase.weight_bytes + phase.cache_bytes
        wait = np.where(phase.words > 0, of.phase_us + of.word_ns * 1e-3 * phase.words, 0.0)
        ready = np.minimum(ring_bytes + phase.early_bytes, loaded + rate * wait)
        busy = phase.weight_bytes / of.multiply_bytes_per_us + phase.cache_bytes / of.attend_bytes_per_us
        lasts = np.where(phase.owns, wait + np.maximum(busy, (used - ready) / rate), 0.0)
        duration = float(lasts.max())
        # An SM that skips the phase, or is done with it, loads on until its ring is full, and takes the next weights from it.
        wait = np.where(phase.owns, wait, 0.0)
        ready = np.where(phase.owns, ready, loaded)
        most = ring_bytes if following is None else ring_bytes + following.early_bytes
        loaded = np.clip(ready + rate * (duration - wait) - used, 0.0, most)
        slowest = int(lasts.argmax())
        handoffs += float(wait[slowest])
        work += float(busy[slowest])
        total += duration
        durations.append(duration)
    read = float(np.sum([phase.weight_bytes + phase.cache_bytes for phase in phases], axis=0).max()) / rate
    return StepTime(total, read, handoffs, work, read + handoffs + work - total, tuple(durations))


class _Reader:
    def __init__(self, kernel: KernelOp, pos: int):
        self.kernel = kernel
        self.pos = pos
        self.context = EmitContext.of(kernel, LOADS[0], 0)
        self.caches = cache_layouts(kernel)

    def phases(self) -> list[PhaseWork]:
        (program,) = self.kernel.programs
        return list(self._walk(program, list(program.body.block.ops), {}))

    def _walk(self, program: ProgramOp, ops: Sequence[object], scope: Mapping[str, int]) -> Iterator[PhaseWork]:
        for op in ops:
            match op:
                case ForOp():
                    for value in op.range:
                        inner = list(op.body.block.ops)
                        yield from self._walk(program, inner, {**scope, op.index.data: value})
                case PhaseOp():
                    yield self._phase(program, list(op.runs), scope)
                case RunOp():
                    yield self._phase(program, [op], scope)
                case _:
                    pass  # waits and signals are part of a hand-off

    def _phase(self, program: ProgramOp, runs: Sequence[RunOp], scope: Mapping[str, int]) -> PhaseWork:
        sms = self.kernel.num_sms
        owns = np.zeros(sms, np.bool_)
        weights, cache, words, early = (np.zeros(sms) for _ in range(4))
        gathered: dict[tuple[str, tuple[int, ...]], NDArray[np.bool_]] = {}  # by which SMs
        for run in runs:
            family = self.kernel.families[run.family_name]
            owners, tasks = place(run, family, program, scope)
            placed = PlacedTasks(run, family, program.sms, 0)
            counts = np.bincount(owners, minlength=sms).astype(np.float64)
            owns |= counts > 0
            if (stream := self.context.streams.get(run.family_name)) is not None:
                weights += counts * stream.layout.task_bytes
                early = np.maximum(early, np.where(counts > 0, early_bytes(self.context, placed), 0))
            for attention in attentions_of(family):
                sizes = [self._cache_bytes(attention, family.domain.unflatten(int(task))) for task in tasks]
                cache += np.bincount(owners, sizes, minlength=sms)
            bound = tuple(value.evaluate(scope) for value in run.indices.data)
            names = family.domain.names[len(bound) :]
            for access in self._gathered(family):
                size = self._elements(access)
                own = access.names.intersection(names)
                if not own:  # the same words for all tasks of the run
                    have = gathered.setdefault((str(access), bound), np.zeros(sms, np.bool_))
                    words += np.where((counts > 0) & ~have, size, 0)
                    have |= counts > 0
                elif own <= placed.steady:  # for all tasks of an SM
                    words += np.where(counts > 0, size, 0)
                else:
                    words += counts * size
        name = ", ".join(dict.fromkeys(f"@{run.family_name}" for run in runs))
        where = ", ".join(f"{index} = {value}" for index, value in scope.items())
        return PhaseWork(f"{name} ({where})" if where else name, owns, weights, cache, words, early)

    def _gathered(self, family: FamilyOp) -> Iterator[Access]:
        """The loads of what other tasks of the step write."""
        for op in family.body.block.ops:
            if isinstance(op, LoadOp) and not isinstance(op, StreamOp):
                kind = self.kernel.buffers[op.region.buffer].kind.data
                if kind in (BufferKind.SCRATCH, BufferKind.OUTPUT):
                    yield op.region

    def _elements(self, access: Access) -> int:
        size = 1
        for dim in access.dims:
            size *= dim.size.evaluate({POSITION: self.pos})
        return size

    def _cache_bytes(self, op: AttentionOp | AttentionPartOp, indices: Mapping[str, int]) -> int:
        """Bytes of the whole groups of positions that a task's producer copies into the ring."""
        earlier = np.arange(self.pos)
        if isinstance(op, AttentionPartOp):
            mine = op.part.data.evaluate(indices)
            earlier = earlier[earlier // op.block.value.data % op.parts.value.data == mine]
        whole = self.pos // GROUP * GROUP
        positions = int((earlier < whole).sum())
        return sum(positions * self._row_bytes(value) for value in (op.k, op.v))

    def _row_bytes(self, value: object) -> int:
        stream = op_of(value)  # pyright: ignore[reportArgumentType]
        assert isinstance(stream, StreamOp), "cache_layouts has looked"
        layout: CacheLayout = self.caches[stream.region.buffer]
        element = 2 if self.context.buffers[stream.region.buffer].element == "bf16" else 4
        heads = stream.region.dims[-3].size.constant
        return heads * layout.row * element
