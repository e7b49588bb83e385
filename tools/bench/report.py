"""The result of `amk bench` as text, in lines of at most 80 characters."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from .correctness import Check
from .results import Baseline, ContextResult, Failure, ModelResult, NotRun, Report

WIDTH = 80

_HEAD = (
    f"{'':>8}{'median':>9}{'min':>9}{'q1':>9}{'q3':>9}{'% read':>8}{'torch.':>9}{'matmuls':>9}",
    f"{'context':>8}{'us':>9}{'us':>9}{'us':>9}{'us':>9}{'peak':>8}{'compile':>9}{'alone':>9}{'logits':>9}",
)
_WEIGHT_ONLY = "the products with torch's int8 or int4 weights"
_REASON = 200
"""Characters of a reason that are shown; --json has all of it."""


def report_lines(report: Report) -> Iterator[str]:
    """The whole report."""
    yield from _wrapped(
        f"{report.gpu}, {report.target}, {report.num_sms} SMs; read peak {report.read_peak / 1e9:,.0f} GB/s"
    )
    for model in report.models:
        yield ""
        yield from model_lines(model, report.read_peak)


def model_lines(result: ModelResult | Failure, read_peak: float) -> Iterator[str]:
    """The part about one model. read_peak: bytes per second."""
    if isinstance(result, Failure):
        yield from _wrapped(f"{result.name}, {result.weight_dtype} weights: not measured: {result.error}")
        return
    weights = f", {result.weights_from}" if result.is_random else ""
    yield from _wrapped(
        f"{result.name}: {result.weight_dtype} weights{weights}, {result.kv_dtype} KV cache of {result.max_seq:,} "
        f"positions, {result.kernel.sms} SMs, pass options: {result.options}"
    )
    yield from _HEAD
    for context in result.contexts:
        yield _row(context, result.matmuls, read_peak)
    yield from _bullets(_notes(result, read_peak))


def _row(c: ContextResult, matmuls: Baseline | NotRun, read_peak: float) -> str:
    first, third = c.times.quartiles
    compiled, alone = (f"{b.times.median:.1f}" if isinstance(b, Baseline) else "-" for b in (c.torch_compile, matmuls))
    times = "".join(f"{us:>9.1f}" for us in (c.times.median, c.times.least, first, third))
    return f"{c.context:>8,}{times}{100 * c.peak_share(read_peak):>8.1f}{compiled:>9}{alone:>9}{_verdict(c):>9}"


def _verdict(c: ContextResult) -> str:
    """One word about the logits."""
    if not c.is_deterministic:
        return "UNSTEADY"
    if isinstance(c.check, NotRun):
        return "?"
    return _word(c.check)


def _word(check: Check) -> str:
    """WORSE: than torch in bf16."""
    if check.ok:
        return "right"
    return "WRONG" if check.bf16 is None or not check.ours.is_finite else "WORSE"


def _notes(result: ModelResult, read_peak: float) -> Iterator[str]:
    for context in result.contexts:
        yield _logits(context)
    for context in result.contexts:
        if isinstance(context.torch_compile, Baseline):
            yield _speed("torch.compile", context.torch_compile, [context])
    if isinstance(result.matmuls, Baseline):
        yield _speed("the matrix products alone", result.matmuls, result.contexts)
    if isinstance(result.weight_only, Baseline):
        yield f"{_speed(_WEIGHT_ONLY, result.weight_only, result.contexts)}; {result.weight_only.what}"
    missing: dict[str, list[str]] = {}
    for context in result.contexts:
        if isinstance(context.torch_compile, NotRun):
            missing.setdefault(context.torch_compile.reason, []).append(f"torch.compile at {_at(context)}")
    if isinstance(result.matmuls, NotRun):
        missing.setdefault(result.matmuls.reason, []).append("the matrix products alone")
    if isinstance(result.weight_only, NotRun):
        missing.setdefault(result.weight_only.reason, []).append(_WEIGHT_ONLY)
    for reason, names in missing.items():
        yield f"not run: {', '.join(names)}: {reason[:_REASON]}"
    memory, first = result.memory, result.contexts[0]
    yield (
        f"device memory {memory.used / 1e6:,.0f} MB: {memory.ratio:.3f}x the {memory.weights / 1e6:,.0f} MB of weights "
        f"and {memory.kv / 1e6:,.0f} MB of KV cache; a step reads {first.bytes / 1e6:,.1f} MB at {_at(first)}, in "
        f"{first.bytes / read_peak * 1e6:,.0f} us at the read peak"
    )
    launches = result.launches
    grown = "no memory lost" if launches.grown <= 0 else f"LEAK: {launches.grown:,} bytes more in use"
    yield f"{launches.count:,} more launches: {grown}"


def _speed(name: str, baseline: Baseline, contexts: Sequence[ContextResult]) -> str:
    ratios = ", ".join(f"{baseline.times.median / c.times.median:.2f} times at {_at(c)}" for c in contexts)
    error = "" if baseline.relative_error is None else f"; its error is {baseline.relative_error:.1e}"
    return f"{name}: {baseline.times.median:.1f} us, {ratios} what we take{error}"


def _logits(c: ContextResult) -> str:
    same = "" if c.is_deterministic else ", and NOT REPEATABLE"
    if isinstance(c.check, NotRun):
        return f"logits at {_at(c)}: NOT CHECKED{same}: {c.check.reason[:_REASON]}"
    ours, half = c.check.ours, c.check.bf16
    word = _word(c.check)
    parts = (
        ("error", ours.relative_error, half and half.relative_error),
        ("KL mean", ours.kl_mean, half and half.kl_mean),
        ("KL worst", ours.kl_worst, half and half.kl_worst),
        ("worst logit", ours.worst_logit, half and half.worst_logit),
    )
    texts = [f"{what} {value:.1e}" + ("" if other is None else f" ({other:.1e})") for what, value, other in parts]
    return (
        f"logits at {_at(c)}: {word}{same}: {', '.join(texts)}, best token {ours.same_token}/{ours.positions}; against "
        f"{c.check.against}{' (in brackets: torch in bf16)' if half else ''}"
    )


def _at(c: ContextResult) -> str:
    return f"context {c.context:,}"


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, WIDTH, break_on_hyphens=False)


def _bullets(texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
