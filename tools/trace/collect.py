"""Traces a step of a model on this machine's GPU, beside the untraced kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from ...amk_ir.errors import TraceError, UsageError
from ...amk_ir.targets import Target
from ...backends.cuda.backend import CudaBackend, CudaExecutable
from ...backends.cuda.compile import CompiledKernel
from ...backends.cuda.pack import WeightProvider
from ...backends.cuda.trace_points import TraceDetail
from ...backends.cuda.tracing import MAX_EVENTS, BlockTrace, TracedKernel
from ...frontends.import_model import ImportedModel
from ...runtime.backend import Progress, no_progress
from ...runtime.compile import plan
from ..compiled import CachedCompiler
from .raw import RawTrace, TraceFacts

_FIRST_EVENTS = 1 << 14
"""Room in a row, before it is known how many events a step has."""
_ROUNDS = 10
"""Times that the untraced and the traced kernel take turns while both are timed."""


@dataclass(frozen=True)
class TraceOptions:
    """context: positions before the traced step. events: room for events in a row, None: as many as it needs.

    repeat: launches of each kernel that are timed. steps: traced steps, of which the one of median length is kept.
    """

    context: int = 128
    detail: TraceDetail = "stages"
    events: int | None = None
    repeat: int = 50
    steps: int = 9


def collect(
    model: ImportedModel,
    name: str,
    weights: WeightProvider,
    target: Target,
    options: TraceOptions,
    *,
    sms: int | None = None,
    progress: Progress = no_progress,
) -> RawTrace:
    """Loads `model`, called `name`, runs random tokens up to the context, and traces the step after them.

    Raises:
        UsageError: a context that the model has no room for.
        TraceError: more events than a row has room for.
        DeviceError, CompileError, ScheduleError, CheckpointError: as `CudaBackend.load`.
    """
    if not 0 <= options.context < model.max_seq:
        raise UsageError(
            f"--context {options.context}: {name} has room for {model.max_seq} positions, so for a context of at most "
            f"{model.max_seq - 1}; raise --max-seq, or take a smaller context"
        )
    progress("compiling", 0, 3)
    kernel = plan(model.module, target, sms)
    progress("compiling", 1, 3)
    backend = CudaBackend(compiler=CachedCompiler())
    compiled = backend.compile(kernel)
    progress("compiling", 2, 3)
    traced = backend.compile(kernel, options.detail)
    progress("compiling", 3, 3)
    executable = backend.load(kernel, weights, progress)
    try:
        tokens = np.random.default_rng(0).integers(0, model.config.vocab, options.context + 1).tolist()
        for position, token in enumerate(tokens):
            executable.step(token, position)
            progress("filling the KV cache", position + 1, len(tokens))
        facts = _facts(name, executable, compiled, traced, options)
        return _trace(executable, traced, facts, options)
    finally:
        executable.close()


def _facts(
    name: str, executable: CudaExecutable, compiled: CompiledKernel, traced: CompiledKernel, options: TraceOptions
) -> TraceFacts:
    plan = compiled.plan
    return TraceFacts(
        model=name,
        device=executable.loaded.info.name,
        target=plan.target,
        sms=plan.grid,
        context=options.context,
        detail=options.detail,
        stages=plan.ring.stages,
        stage_bytes=plan.ring.stage_bytes,
        untraced_us=(),
        traced_us=(),
        points=traced.plan.trace_points,
        operations=tuple(operation.text for operation in traced.plan.operations),
    )


def _trace(executable: CudaExecutable, compiled: CompiledKernel, facts: TraceFacts, options: TraceOptions) -> RawTrace:
    loaded, pos = executable.loaded, options.context
    kernel = TracedKernel(loaded, compiled, options.events or _FIRST_EVENTS)
    try:
        blocks = kernel.step(pos)
        if options.events is None and (needed := most_events(blocks)) > kernel.events:
            kernel.close()
            kernel = TracedKernel(loaded, compiled, min(MAX_EVENTS, needed + needed // 8))
            blocks = kernel.step(pos)
        check_complete(blocks, kernel.events)
        untraced, traced = time_both(kernel, pos, options.repeat)
        attempts = [kernel.step(pos) for _ in range(options.steps)]
        attempts.sort(key=_length)
        blocks = attempts[len(attempts) // 2]
        check_complete(blocks, kernel.events)
    finally:
        kernel.close()
    return RawTrace(replace(facts, untraced_us=tuple(untraced), traced_us=tuple(traced)), tuple(blocks))


def time_both(kernel: TracedKernel, pos: int, repeat: int) -> tuple[list[float], list[float]]:
    """Microseconds of about `repeat` launches of the untraced and of the traced kernel, which take turns."""
    untraced: list[float] = []
    traced: list[float] = []
    each = -(-repeat // _ROUNDS)
    for _ in range(_ROUNDS):
        for times, variant in ((untraced, None), (traced, kernel.variant)):
            # one launch more, which follows the other kernel: it is not counted
            times += [t * 1e3 for t in kernel.loaded.time_steps(pos, each + 1, variant)[1:]]
    return untraced, traced


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
    """How long a step took, in cycles of the slowest SM."""
    return median((int(b.consumers.clocks[-1]) - int(b.consumers.clocks[0])) % (1 << 32) for b in blocks)
