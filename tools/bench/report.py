"""The result of `amk bench` as text, in lines of at most 80 characters."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from .results import Baseline, ContextResult, Failure, ModelResult, NotRun, Report

WIDTH = 80

_HEAD = (
    f"{'':>9}{'median':>9}{'min':>9}{'q1..q3':>17}{'% read':>8}{'torch.':>9}{'error':>9}{'bf16':>9}",
    f"{'context':>9}{'us':>9}{'us':>9}{'us':>17}{'peak':>8}{'compile':>9}{'':>9}{'error':>9}",
)


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
        yield from _wrapped(f"{result.name}: not measured: {result.error}")
        return
    weights = "random " if result.is_random else ""
    yield from _wrapped(
        f"{result.name}: {weights}{result.weight_dtype} weights, {result.kv_dtype} KV cache of {result.max_seq:,} "
        f"positions, {result.kernel.sms} SMs, pass options: {result.options}"
    )
    yield from _HEAD
    for context in result.contexts:
        yield _row(context, read_peak)
    yield from _bullets(_notes(result, read_peak))


def _row(c: ContextResult, read_peak: float) -> str:
    first, third = c.times.quartiles
    compiled = f"{c.torch_compile.times.median:.1f}" if isinstance(c.torch_compile, Baseline) else "-"
    error = bf16 = "-"
    if not isinstance(c.check, NotRun):
        error = f"{c.check.ours.relative_error:.1e}"
        bf16 = f"{c.check.bf16.relative_error:.1e}" if c.check.bf16 else "-"
    return (
        f"{c.context:>9,}{c.times.median:>9.1f}{c.times.least:>9.1f}{f'{first:.1f}..{third:.1f}':>17}"
        f"{100 * c.peak_share(read_peak):>8.1f}{compiled:>9}{error:>9}{bf16:>9}"
    )


def _notes(result: ModelResult, read_peak: float) -> Iterator[str]:
    if isinstance(result.matmuls, Baseline):
        median = result.matmuls.times.median
        ratios = ", ".join(f"{median / c.times.median:.2f}x" for c in result.contexts)
        yield f"the matrix products alone (cuBLAS, CUDA graph): {median:.1f} us; we are {ratios} as fast"
    else:
        yield f"the matrix products alone: not run: {result.matmuls.reason}"
    yield from dict.fromkeys(
        f"torch.compile at {_at(c)}: not run: {c.torch_compile.reason}"
        if isinstance(c.torch_compile, NotRun)
        else f"torch.compile at {_at(c)}: error {_maybe(c.torch_compile.relative_error)}"
        for c in result.contexts
    )
    for context in result.contexts:
        yield _verdict(context)
    memory = result.memory
    yield (
        f"device memory {memory.used / 1e6:,.0f} MB: {memory.ratio:.3f}x the {memory.weights / 1e6:,.0f} MB of weights "
        f"and {memory.kv / 1e6:,.0f} MB of KV cache; a step reads {result.contexts[0].bytes / 1e6:,.1f} MB at context "
        f"{result.contexts[0].context:,}, in {result.contexts[0].bytes / read_peak * 1e6:,.0f} us at the read peak"
    )
    launches = result.launches
    grown = "no memory lost" if launches.grown <= 0 else f"LEAK: {launches.grown:,} bytes more in use"
    yield f"{launches.count:,} more launches: {grown}"


def _verdict(c: ContextResult) -> str:
    same = "" if c.is_deterministic else "; NOT REPEATABLE: logits of the same step differ"
    if isinstance(c.check, NotRun):
        return f"logits at {_at(c)}: NOT CHECKED: {c.check.reason}{same}"
    ours, half = c.check.ours, c.check.bf16
    verdict = "right" if c.check.ok else "WRONG" if not ours.is_finite or half is None else "WORSE than torch bf16"

    def beside(value: float | None) -> str:
        return "" if value is None else f" ({value:.1e})"

    return (
        f"logits at {_at(c)}: {verdict}; KL mean {ours.kl_mean:.1e}{beside(half and half.kl_mean)}, worst "
        f"{ours.kl_worst:.1e}{beside(half and half.kl_worst)}; worst logit {ours.worst_logit:.1e}"
        f"{beside(half and half.worst_logit)}; best token {ours.same_token}/{ours.positions}; "
        f"against {c.check.against}{' (torch bf16)' if half else ''}{same}"
    )


def _at(c: ContextResult) -> str:
    return f"context {c.context:,}"


def _maybe(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1e}"


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text, WIDTH, break_on_hyphens=False)


def _bullets(texts: Iterator[str]) -> Iterator[str]:
    for text in texts:
        yield from textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)
