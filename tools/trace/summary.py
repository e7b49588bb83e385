"""Where the time of a traced step went, by operation: what the tables in terminal and HTML show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Any

import numpy as np

from .timeline import NO_OPERATION, Spent, Timeline, occupancy


@dataclass(frozen=True)
class OperationSummary:
    """runs: of an SM, the mean over all SMs. median_us, p90_us: of a run with its waits; NaN if there is none.

    shares: of the time of all SMs from the start of the step to its end, what went into each.
    """

    name: str
    runs: float
    median_us: float
    p90_us: float
    shares: dict[Spent, float]


@dataclass(frozen=True)
class TraceSummary:
    """length_us: of the traced step, from the first event to the last. overhead: how much slower the traced kernel was
    than the untraced one, by medians; NaN if they were not timed. ready: mean stages of the ring that had landed and were
    not read yet while stages were still to be read; loading: on their way."""

    length_us: float
    untraced_us: float
    traced_us: float
    overhead: float
    ready: float
    loading: float
    operations: tuple[OperationSummary, ...]
    shares: dict[Spent, float]


def summarise(timeline: Timeline) -> TraceSummary:
    """The sums of `timeline`; the shares of all operations and idle time add up to 1."""
    kinds = list(Spent)
    spent_of = np.array([kinds.index(kind) for kind in timeline.spent])
    shares = np.zeros((len(timeline.operations), len(kinds)))
    durations: list[list[float]] = [[] for _ in timeline.operations]
    total = timeline.length * len(timeline.sms)
    for sm in timeline.sms:
        lengths = sm.ends - sm.starts
        np.add.at(shares, (sm.owners, spent_of[sm.points]), lengths)
        shares[0, kinds.index(Spent.IDLE)] += timeline.length - float(lengths.sum())
        for owner, length in _runs(sm.owners, sm.runs, sm.starts, sm.ends):
            durations[owner].append(length)
    if total > 0:
        shares /= total
    operations = tuple(
        OperationSummary(
            name,
            len(durations[number]) / len(timeline.sms),
            float(np.median(durations[number])) / 1e3 if durations[number] else float("nan"),
            float(np.quantile(durations[number], 0.9)) / 1e3 if durations[number] else float("nan"),
            dict(zip(kinds, shares[number].tolist(), strict=True)),
        )
        for number, name in enumerate(timeline.operations)
    )
    ready, loading = _ring(timeline)
    facts = timeline.facts
    untraced, traced = (median(t) if t else float("nan") for t in (facts.untraced_us, facts.traced_us))
    return TraceSummary(
        timeline.length / 1e3,
        untraced,
        traced,
        traced / untraced - 1,
        ready,
        loading,
        operations,
        dict(zip(kinds, shares.sum(axis=0).tolist(), strict=True)),
    )


def _runs(owners: np.ndarray, ends_run: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[tuple[int, float]]:
    """(operation, ns) of each run: from the end of the one before on its SM, or of what followed that."""
    result: list[tuple[int, float]] = []
    last = np.flatnonzero(ends_run)
    for number, at in enumerate(last):
        first = int(last[number - 1]) + 1 if number else 0
        own = np.flatnonzero(owners[first : at + 1] == owners[at]) + first
        result.append((int(owners[at]), float(ends[at] - starts[own[0]])))
    return result


def _ring(timeline: Timeline) -> tuple[float, float]:
    """Mean (landed, loading) stages over the time in which an SM has stages to read."""
    sums, time = np.zeros(2), 0.0
    for sm in timeline.sms:
        times, loading, ready = occupancy(sm)
        if len(times) > 1:
            steps = np.diff(times)
            sums += ((ready[:-1] * steps).sum(), (loading[:-1] * steps).sum())
            time += float(times[-1] - times[0])
    return (float(sums[0] / time), float(sums[1] / time)) if time > 0 else (0.0, 0.0)


def summary_json(timeline: Timeline, summary: TraceSummary) -> dict[str, Any]:
    """The summary for JSON, with each timed step; NaN becomes None."""
    facts = timeline.facts
    return {
        "model": facts.model,
        "device": facts.device,
        "target": facts.target,
        "sms": facts.sms,
        "context": facts.context,
        "detail": facts.detail,
        "untraced_us": facts.untraced_us,
        "traced_us": facts.traced_us,
        "median_untraced_us": _number(summary.untraced_us),
        "median_traced_us": _number(summary.traced_us),
        "overhead": _number(summary.overhead),
        "shown_us": summary.length_us,
        "events": sum(len(sm.ends) + 1 for sm in timeline.sms),
        "ghz": {"least": min(timeline.ghz), "greatest": max(timeline.ghz)},
        "ring": {"stages": facts.stages, "ready": summary.ready, "loading": summary.loading},
        "shares": {kind.value: share for kind, share in summary.shares.items()},
        "operations": {
            operation.name: {
                "runs": operation.runs,
                "median_us": _number(operation.median_us),
                "p90_us": _number(operation.p90_us),
                "shares": {kind.value: share for kind, share in operation.shares.items()},
            }
            for operation in summary.operations
        },
    }


def _number(value: float) -> float | None:
    return value if isfinite(value) else None


# ---- text ------------------------------------------------------------------------------------------------------------

NAME_WIDTH = 24


def summary_text(timeline: Timeline, summary: TraceSummary) -> str:
    """The summary as a table of at most 80 columns."""
    facts = timeline.facts
    lines = [
        f"{facts.model} at context {facts.context} on {facts.device}, {facts.sms} SMs",
        f"step: {summary.untraced_us:.1f} us; traced ({facts.detail}): {summary.traced_us:.1f} us, "
        f"{_percent(summary.overhead)} slower; shown: {summary.length_us:.1f} us",
        f"ring: {summary.ready:.1f} stages ready and {summary.loading:.1f} loading of {facts.stages}, on average",
        "",
        f"{'operation':<{NAME_WIDTH}}{'per SM':>7}{'median':>8}{'p90':>8}{'work':>7}{'words':>7}{'count':>6}{'ring':>8}",
        f"{'':<{NAME_WIDTH}}{'':>7}{'us':>8}{'us':>8}{'% of the time of all SMs':>28}",
    ]
    for operation in summary.operations:
        if operation.name == NO_OPERATION:
            continue
        lines.append(
            f"{_short(operation.name):<{NAME_WIDTH}}{operation.runs:7.1f}{operation.median_us:8.2f}{operation.p90_us:8.2f}"
            + _shares(operation.shares)
        )
    lines.append(f"{'all':<{NAME_WIDTH}}{'':>23}" + _shares(summary.shares))
    lines.append(f"{'nothing to do':<{NAME_WIDTH}}{'':>23}{100 * summary.shares[Spent.IDLE]:7.1f}")
    return "\n".join(lines)


def _shares(shares: dict[Spent, float]) -> str:
    widths: Sequence[tuple[Spent, int]] = ((Spent.WORK, 7), (Spent.WORDS, 7), (Spent.COUNTER, 6), (Spent.RING, 8))
    return "".join(f"{100 * shares[kind]:{width}.1f}" for kind, width in widths)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _short(name: str) -> str:
    return name if len(name) < NAME_WIDTH else f"{name[: NAME_WIDTH - 2]}~"
