"""One model: load it, run it, check it, time it, count what it leaves behind; then what it is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...amk_ir.dtypes import itemsize
from ...frontends.import_model import ImportedModel
from ...runtime.backend import Logits, Progress, no_progress
from ...runtime.footprint import footprint, model_of
from .comparison import Comparison, Expected
from .correctness import Check, divergence
from .engine import Engine
from .models import BenchModel
from .results import Baseline, ContextResult, Launches, Memory, ModelResult, NotRun, Times

START_POSITIONS = 4
"""Positions at the start of the text whose logits are kept, beside those before each context."""
CHECKED_POSITIONS = 8
"""Positions up to each context whose logits are compared."""
REPEATED_STEPS = 5
"""Times that the step at each context is repeated, to see whether its bits are the same."""
_WARM_UP = 5
_LAUNCHES_AT_A_TIME = 1000


@dataclass(frozen=True)
class Settings:
    """contexts: positions of the timed steps, ascending. repeats: timed steps at each. launches: more steps, after which
    no more memory may be in use than before them. compiled: those of `contexts` at which torch.compile is asked for first, in
    this order."""

    contexts: tuple[int, ...]
    repeats: int
    launches: int
    compiled: tuple[int, ...] = ()


def token_ids(vocab: int, count: int) -> list[int]:
    """The text that is run: random tokens, the same in every run."""
    return np.random.default_rng(0).integers(0, vocab, count).tolist()


def wanted_positions(contexts: Sequence[int]) -> list[int]:
    """Positions whose logits are kept."""
    near = {p for c in contexts for p in range(c - CHECKED_POSITIONS + 1, c + 1) if p >= 0}
    return sorted(near | {p for p in range(START_POSITIONS) if p <= max(contexts)})


def step_bytes(model: ImportedModel, streamed: int, context: int) -> int:
    """Bytes of weights and KV cache that the step at position `context` must read.

    streamed: those of packed weights that the kernel reads: fewer than the model's own where they are quantised, more
    where tiles are padded, which nobody has to read.
    """
    counts = footprint(model_of(model.module))
    weights = min(streamed, counts.weight_bytes(itemsize(model.weight_dtype)))
    return weights + counts.kv_per_position * (context + 1) * itemsize(model.kv_dtype)


def least_memory(model: ImportedModel, packed: int) -> tuple[int, int]:
    """Bytes of all weights, and of the KV cache, that a device has to hold. packed: of all packed weights."""
    counts = footprint(model_of(model.module))
    own = (counts.parameters - counts.vectors) * itemsize(model.weight_dtype) + counts.vectors * 4
    return min(packed, own), counts.kv_per_position * model.max_seq * itemsize(model.kv_dtype)


def measure(
    model: BenchModel,
    load: Callable[[], Engine],
    used_bytes: Callable[[], int],
    compare: Callable[[], Comparison],
    settings: Settings,
    options: str,
    progress: Progress = no_progress,
) -> ModelResult:
    """Measures `model`. load: makes its engine. used_bytes: of device memory. compare: makes what it is compared with,
    called when the engine has left the device.

    Raises what `load` and the engine's steps raise: AmkErrors.
    """
    before = used_bytes()
    engine = load()
    try:
        facts = engine.facts
        weights, kv = least_memory(model.model, facts.weight_bytes)
        memory = Memory(used_bytes() - before, weights, kv)
        ids = token_ids(model.model.config.vocab, max(settings.contexts) + 1)
        logits, repeatable = _run(engine, ids, settings.contexts, progress)
        progress("timing the steps", 0, 1)
        times = {context: _time(engine, context, settings.repeats) for context in settings.contexts}
        launches = _launch(engine, settings, used_bytes, progress)
    finally:
        engine.close()
    comparison = compare()
    try:
        expected = comparison.expected(ids, sorted(logits))
        order = dict.fromkeys((*settings.compiled, *settings.contexts))
        compiled = {context: comparison.torch_compile(ids, context) for context in order}
        matmuls: Baseline | NotRun = comparison.matmuls()
        weight_only: Baseline | NotRun | None = comparison.weight_only()
    finally:
        comparison.close()
    contexts = tuple(
        ContextResult(
            context,
            times[context],
            step_bytes(model.model, facts.streamed_bytes, context),
            check_logits(logits, expected, context),
            repeatable[context],
            compiled[context],
        )
        for context in settings.contexts
    )
    config = dataclasses.asdict(model.model.config)
    return ModelResult(
        model.name,
        model.is_random,
        model.weights_text,
        model.model.kv_dtype,
        model.model.max_seq,
        config,
        options,
        facts,
        memory,
        launches,
        contexts,
        matmuls,
        weight_only,
    )


def _run(
    engine: Engine, ids: Sequence[int], contexts: Sequence[int], progress: Progress
) -> tuple[dict[int, Logits], dict[int, bool]]:
    """Runs the text once: the logits of the wanted positions, and for each context whether its step is repeatable."""
    wanted = set(wanted_positions(contexts))
    logits: dict[int, Logits] = {}
    repeatable: dict[int, bool] = {}
    for position, token in enumerate(ids):
        progress("running the text", position, len(ids))
        first = engine.step(token, position)
        if position in wanted:
            logits[position] = first[1]
        if position in contexts:
            again = [engine.step(token, position) for _ in range(REPEATED_STEPS)]
            repeatable[position] = all(t == first[0] and x.tobytes() == first[1].tobytes() for t, x in again)
    progress("running the text", len(ids), len(ids))
    return logits, repeatable


def _time(engine: Engine, context: int, repeats: int) -> Times:
    engine.time_steps(context, _WARM_UP)
    return Times(tuple(engine.time_steps(context, repeats)))


def _launch(engine: Engine, settings: Settings, used_bytes: Callable[[], int], progress: Progress) -> Launches:
    before = used_bytes()
    for done in range(0, settings.launches, _LAUNCHES_AT_A_TIME):
        progress("launching", done, settings.launches)
        engine.time_steps(settings.contexts[0], min(_LAUNCHES_AT_A_TIME, settings.launches - done))
    progress("launching", settings.launches, settings.launches)
    return Launches(settings.launches, used_bytes() - before)


def check_logits(logits: dict[int, Logits], expected: Expected | NotRun, context: int) -> Check | NotRun:
    """The verdict on the positions up to `context` that there are expected logits of; if there are none of these, on
    the first positions of the text."""
    if isinstance(expected, NotRun):
        return expected
    known = sorted(set(logits) & set(expected.logits))
    near = [p for p in known if context - CHECKED_POSITIONS < p <= context]
    positions = near if context in near else [p for p in known if p < START_POSITIONS]
    if not positions:
        return NotRun(f"{expected.against}: no logits of any position that was run")
    right = np.stack([expected.logits[p] for p in positions])
    ours = divergence(np.stack([logits[p] for p in positions]), right)
    half = None
    if expected.bf16:
        half = divergence(np.stack([expected.bf16[p] for p in positions]), right)
    return Check(f"{expected.against}, positions {positions[0]} to {positions[-1]}", ours, half)
