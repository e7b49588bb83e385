"""Traces a step of a model on this machine's GPU, beside the untraced kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

import numpy as np

from ...amk_ir.errors import TraceError
from ...amk_ir.targets import Target
from ...backends.cuda.backend import CudaBackend, CudaExecutable
from ...backends.cuda.plan import KernelPlan
from ...backends.cuda.trace_points import TraceDetail
from ...backends.cuda.tracing import MAX_EVENTS, BlockTrace, TracedKernel
from ...frontends.import_model import ImportedModel
from ...passes.verify_schedule import VerifiedKernel
from ...runtime.backend import Progress, no_progress
from ...runtime.compile import far_position
from ..bench.models import BenchModel
from ..cached_compiler import CachedCompiler
from ..tuned import Choice
from .raw import RawTrace, TraceFacts

_FIRST_EVENTS = 1 << 14
"""Room in a row, before it is known how many events a step has."""


@dataclass(frozen=True)
class TraceOptions:
    """context: positions before the traced step. events: room for events in a row, None: as many as it needs.

    repeat: launches of each kernel that are timed. steps: traced steps, of which the one of median length is kept.
    """

    context: int = 128
    detail: TraceDetail = "phases"
    events: int | None = None
    repeat: int = 50
    steps: int = 9


class TracedStep(Protocol):
    """What `TracedKernel` does, as far as it is needed here. Tests put another one in its place."""

    @property
    def events(self) -> int:
        """How many a row has room for."""
        ...

    def step(self, pos: int) -> Sequence[BlockTrace]:
        """As `TracedKernel.step`."""
        ...

    def time_turns(self, pos: int, repeats: int) -> tuple[list[float], list[float]]:
        """As `TracedKernel.time_turns`."""
        ...

    def close(self) -> None:
        """As `TracedKernel.close`."""
        ...


def collect(
    model: BenchModel, kernel: VerifiedKernel, options: TraceOptions, progress: Progress = no_progress
) -> RawTrace:
    """Loads `kernel`, made of `model`, runs random tokens up to the context, and traces the step after them.

    Raises:
        TraceError: more events than a row has room for.
        DeviceError, CompileError, ScheduleError, CheckpointError: as `CudaBackend.load`.
    """
    backend = CudaBackend(compiler=CachedCompiler())
    progress("compiling", 0, 2)
    backend.compile(kernel)
    progress("compiling", 1, 2)
    traced = backend.compile(kernel, options.detail)
    progress("compiling", 2, 2)
    executable = backend.load(kernel, model.weights, progress)
    try:
        fill(executable, model.model.config.vocab, options.context, progress)
        facts = facts_of(model.name, executable.loaded.info.name, traced.plan, options)
        return trace_step(lambda events: TracedKernel(executable.loaded, traced, events), facts, options)
    finally:
        executable.close()


def plan_step(model: ImportedModel, target: Target, choice: Choice, context: int) -> VerifiedKernel:
    """The kernel that runs the step after `context` positions: from `far_position` on that which divides attention among more SMs,
    unless `choice` says how to divide it."""
    if context >= far_position(model.config) and "parts" not in choice.options:
        return choice.plan_far(model, target)
    return choice.plan(model, target)


def fill(executable: CudaExecutable, vocab: int, context: int, progress: Progress = no_progress) -> None:
    """Runs random tokens up to position `context`."""
    tokens = np.random.default_rng(0).integers(0, vocab, context + 1).tolist()
    for position, token in enumerate(tokens):
        executable.step(token, position)
        progress("filling the KV cache", position + 1, len(tokens))


def facts_of(name: str, device: str, plan: KernelPlan, options: TraceOptions) -> TraceFacts:
    """What is known of a trace before it is taken. plan: of the traced kernel."""
    return TraceFacts(
        model=name,
        device=device,
        target=plan.target,
        sms=plan.grid,
        context=options.context,
        detail=options.detail,
        stages=plan.ring.stages,
        stage_bytes=plan.ring.stage_bytes,
        untraced_us=(),
        traced_us=(),
        points=plan.trace_points,
        operations=tuple(operation.text for operation in plan.operations),
    )


def trace_step(open_kernel: Callable[[int], TracedStep], facts: TraceFacts, options: TraceOptions) -> RawTrace:
    """Times both kernels by turns, and takes the trace. open_kernel: a traced kernel with room for so many events a row.

    Raises TraceError: more events than a row has room for.
    """
    pos = options.context
    kernel = open_kernel(options.events or _FIRST_EVENTS)
    try:
        needed = most_events(kernel.step(pos))
        if options.events is None and needed > kernel.events:
            kernel.close()
            # waits come and go from step to step
            kernel = open_kernel(min(MAX_EVENTS, needed + needed // 8))
        check_complete(kernel.step(pos), kernel.events)
        untraced, traced = kernel.time_turns(pos, options.repeat)
        steps = sorted((kernel.step(pos) for _ in range(options.steps)), key=_length)
        blocks = steps[len(steps) // 2]
        check_complete(blocks, kernel.events)
    finally:
        kernel.close()
    return RawTrace(replace(facts, untraced_us=tuple(untraced), traced_us=tuple(traced)), tuple(blocks))


def most_events(blocks: Sequence[BlockTrace]) -> int:
    """Events, dropped ones included, of the longest row."""
    return max(len(row.clocks) + row.dropped for block in blocks for row in (block.consumers, block.producer))


def check_complete(blocks: Sequence[BlockTrace], events: int) -> None:
    """TraceError if a row had no room for all of its events."""
    dropped = sum(row.dropped for block in blocks for row in (block.consumers, block.producer))
    if dropped:
        raise TraceError(
            f"{dropped} events of the step were dropped: a row has room for {events}, the longest has "
            f"{most_events(blocks)}; give --events {most_events(blocks)} or more, or --detail phases"
        )


def _length(blocks: Sequence[BlockTrace]) -> float:
    """How long a step took: cycles of an SM, the median."""
    clocks = [block.consumers.clocks for block in blocks if len(block.consumers.clocks)]
    return median((int(c[-1]) - int(c[0])) % (1 << 32) for c in clocks) if clocks else 0.0
