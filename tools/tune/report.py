"""The result of `amk tune` as text, in lines of at most 80 characters, and as JSON."""

from __future__ import annotations

import dataclasses
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...runtime.pass_options import spelled
from .race import Outcome, Rules
from .search import Found, Trial
from .space import Axis, Candidate

FORMAT = 1
"""Version of the JSON."""
WIDTH = 80
_NOTES = 12
"""Candidates that were refused, failed or wrong which are listed with the reason."""

_HEAD = f"{'option':<12}{'value':<20}{'time':>9}{'quartiles':>17}  tried"


def report_lines(
    name: str, found: Found, axes: Sequence[Axis], contexts: Sequence[int], path: Path | None
) -> Iterator[str]:
    """What each option brought, what went wrong, and the end. path: where the result is kept, None if it is not."""
    yield _HEAD
    for axis in ("found before", *(a.name for a in axes)):
        yield from _axis_lines(axis, [t for t in found.trials if t.axis == axis])
    yield ""
    counts = Counter(trial.verdict for trial in found.trials)
    odd = [t for t in found.trials if t.verdict in ("refused", "failed", "wrong")]
    for trial in odd[:_NOTES]:
        yield from _wrapped(f"{trial.verdict}: {trial.candidate}: {trial.reason}", "    ")
    if len(odd) > _NOTES:
        yield f"and {len(odd) - _NOTES} more (--json lists them)"
    tried = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) or "none"
    yield from _wrapped(f"{len(found.trials)} candidates tried: {tried}")
    if found.same is not None:
        yield from _wrapped(
            f"two copies of the defaults differ by {_change(found.same)} ({_quartiles(found.same)}): a winner must save "
            "well over that"
        )
    if not found.is_complete:
        yield from _wrapped("the time was up before all options were tried: --budget SECONDS gives more")
    for context, default, best in zip(contexts, found.default_us, found.best_us, strict=True):
        change = "the defaults are best" if found.best.is_default else f"{best:.1f} us with {found.best}"
        yield from _wrapped(f"{name} at context {context:,}: {default:.1f} us by default, {change}")
    if found.final is not None:
        yield from _wrapped(f"{_change(found.final)} ({_quartiles(found.final)}) in a last race against the defaults")
    if path is not None:
        yield f"kept in {path}"


def _axis_lines(axis: str, trials: Sequence[Trial]) -> Iterator[str]:
    if not trials:
        return
    tried = f"{len(trials)}"
    if others := sum(t.outcome is None for t in trials):
        tried += f", {others} not timed"
    wins = [t for t in trials if t.verdict == "faster"]
    timed = [t for t in trials if t.outcome is not None and t.verdict != "wrong"]
    label = axis if axis == "found before" else spelled(axis)
    for trial in wins:
        value = "" if axis == "found before" else f"{_text(trial.before)} -> {_text(trial.after)}"
        assert trial.outcome is not None
        yield f"{label:<12}{value:<20}{_change(trial.outcome):>9}{_quartiles(trial.outcome):>17}  {tried}"
        label = tried = ""
    if wins:
        return
    if not timed:
        yield f"{label:<12}{_text(trials[0].before) + ' stays':<20}{'-':>9}{'-':>17}  {tried}"
        return
    nearest = min(timed, key=lambda t: t.outcome.ratio if t.outcome else 0)
    assert nearest.outcome is not None
    value = f"{_text(nearest.before)} stays, {_text(nearest.after)}:"
    yield f"{label:<12}{value:<20}{_change(nearest.outcome):>9}{_quartiles(nearest.outcome):>17}  {tried}"


def trial_line(trial: Trial) -> str:
    """What is said of a trial while the search goes on."""
    said = f": {trial.reason}" if trial.reason else ""
    if trial.outcome is not None:
        said = f" ({_change(trial.outcome)}){said}"
    return f"{trial.candidate}: {trial.verdict}{said} [{trial.seconds:.1f} s]"


def _change(outcome: Outcome) -> str:
    return f"{100 * (outcome.ratio - 1):+.1f}%"


def _quartiles(outcome: Outcome) -> str:
    first, third = outcome.quartiles
    return f"{100 * (first - 1):+.1f}..{100 * (third - 1):+.1f}%"


def _text(value: object) -> str:
    return "all" if value is None else str(value)


def _wrapped(text: str, indent: str = "  ") -> Iterator[str]:
    yield from textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False)


def to_json(
    name: str, found: Found, contexts: Sequence[int], rules: Rules, facts: Mapping[str, Any], path: Path | None
) -> dict[str, Any]:
    """The file of --json (docs/tune.md). facts: GPU, environment and arguments."""
    return {
        "amk_tune": FORMAT,
        **facts,
        "model": name,
        "contexts": list(contexts),
        "rules": dataclasses.asdict(rules),
        "is_complete": found.is_complete,
        "best": _candidate(found.best),
        "same": None if found.same is None else _outcome(found.same),
        "default_us": list(found.default_us),
        "best_us": list(found.best_us),
        "final": None if found.final is None else _outcome(found.final),
        "kept_in": None if path is None else str(path),
        "trials": [
            {
                "option": trial.axis if trial.axis == "found before" else spelled(trial.axis),
                "before": trial.before,
                "after": trial.after,
                "candidate": _candidate(trial.candidate),
                "verdict": trial.verdict,
                "reason": trial.reason,
                "seconds": trial.seconds,
                "race": None if trial.outcome is None else _outcome(trial.outcome),
            }
            for trial in found.trials
        ],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {"options": dict(candidate.options), "sms": candidate.sms}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "ratio": outcome.ratio,
        "ratios": list(outcome.ratios),
        "incumbent_us": list(outcome.incumbent_us),
        "candidate_us": list(outcome.candidate_us),
        "is_won": outcome.is_won,
    }
