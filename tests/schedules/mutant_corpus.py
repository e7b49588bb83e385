"""The corpus of mutants: which lowering and which class a number stands for, and what came of many of them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from . import (  # noqa: F401  (they register their classes)
    mutant_kernel,
    mutant_order,
    mutant_regions,
    mutant_sync,
    mutant_tiles,
)
from .lowerings import Lowering, Source, corpus, lowering
from .mutants import CLASSES, GROUPS, Judgement, Mutant, MutantClass, Truth, judge

ATTEMPTS = 60
"""Lowerings that are tried until a class finds something to change."""

SHARES = {"tiles": 3, "buffers": 3, "state": 3, "tags": 3, "resources": 3, "not valid IR": 1}
"""Mutants of a class in a round, by its group: 8, but fewer of those that change ops, which take three times as long."""


def in_order() -> list[MutantClass]:
    """All classes, group by group."""
    return sorted(CLASSES.values(), key=lambda c: GROUPS.index(c.group))


@cache
def _sequence() -> list[MutantClass]:
    """The classes of consecutive mutants, again and again."""
    return [c for turn in range(8) for c in in_order() if turn < SHARES.get(c.group, 8)]


def _names() -> list[str]:
    return [c.name for c in in_order()]


@cache
def _sources() -> list[Source]:
    return corpus()


def mutant(seed: str, number: int, attempt: int = 0) -> tuple[MutantClass, Source, Lowering, Mutant]:
    """Mutant number `number` of a seed; another one for each attempt."""
    return of_class(_sequence()[number % len(_sequence())], random.Random(f"{seed}/{number}/{attempt}"))


def of_class(
    kind: MutantClass, rng: random.Random, sources: list[Source] | None = None
) -> tuple[MutantClass, Source, Lowering, Mutant]:
    """A mutant of a class, of a random lowering (of `sources`, all unless given) in which it has something to change."""
    for _ in range(ATTEMPTS):
        source = rng.choice(_sources() if sources is None else sources)
        if (found := kind.mutate(rng, lowering(source))) is not None:
            return kind, source, lowering(source), found
    raise AssertionError(f"nothing to change for: {kind.name}")


@dataclass
class Tally:
    """What came of a number of mutants.

    mutants: all that were decided. classes, shapes, targets, class_shapes (by "class / shape"): counts by name, of "safe",
    "unsafe" and "refused" by the oracle, of "undecided" mutants in whose place others were taken, of "false accept" and
    "false reject", of "by construction", and of witnesses by outcome. witnesses: replays by rule and outcome. reasons:
    mutants by what the oracle found. problems: whatever is wrong.
    """

    mutants: int = 0
    classes: dict[str, Counter[str]] = field(default_factory=dict)
    shapes: dict[str, Counter[str]] = field(default_factory=dict)
    targets: dict[str, Counter[str]] = field(default_factory=dict)
    class_shapes: dict[str, Counter[str]] = field(default_factory=dict)
    witnesses: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list[str])

    def count(self, kind: MutantClass, source: Source, found: Mutant, judgement: Judgement, name: str) -> None:
        """Adds a mutant."""
        self.mutants += judgement.truth is not Truth.UNDECIDED
        outcomes = [str(judgement.truth)]
        if judgement.truth is Truth.UNSAFE and judgement.accepted:
            outcomes.append("false accept")
        if judgement.truth is Truth.SAFE and not judgement.accepted:
            outcomes.append("false reject")
        if found.certain is not None:
            outcomes.append("by construction")
        outcomes += [f"witness {outcome}" for _, outcome in judgement.witnesses]
        tables = (self.classes, self.shapes, self.targets, self.class_shapes)
        for table, key in zip(
            tables, (kind.name, source.shape, source.target, f"{kind.name} / {source.shape}"), strict=True
        ):
            table.setdefault(key, Counter()).update(outcomes)
        self.reasons[
            judgement.why.partition(" at ")[0] if judgement.truth is Truth.UNSAFE else str(judgement.truth)
        ] += 1
        for rule, outcome in judgement.witnesses:
            self.witnesses.setdefault(rule, Counter())[outcome] += 1
        self.problems += [f"{name}: {kind.name}, {source}: {found.what}: {p}" for p in judgement.problems]

    def add(self, other: Tally) -> None:
        """Adds all that another counted."""
        self.mutants += other.mutants
        for name in ("classes", "shapes", "targets", "class_shapes", "witnesses"):
            mine: dict[str, Counter[str]] = getattr(self, name)
            for key, counts in getattr(other, name).items():
                mine.setdefault(key, Counter()).update(counts)
        self.reasons.update(other.reasons)
        self.problems += other.problems

    def total(self, outcome: str) -> int:
        """How many mutants there are of an outcome."""
        return sum(counts[outcome] for counts in self.classes.values())

    def summary(self) -> str:
        """In one line."""
        outcomes = [*Truth, "false accept", "false reject", "by construction"]
        witnesses: Counter[str] = sum(self.witnesses.values(), Counter())
        numbers = ", ".join(f"{self.total(str(o))} {o}" for o in outcomes)
        return f"{self.mutants} mutants of {len(self.classes)} classes: {numbers}; witnesses: {dict(witnesses)}"

    def to_json(self) -> dict[str, Any]:
        """As data, in the order of the classes."""
        return {
            "mutants": self.mutants,
            "false_accepts": self.total("false accept"),
            "false_rejects": self.total("false reject"),
            "classes": {name: self.classes[name] for name in _names() if name in self.classes},
            "shapes": self.shapes,
            "targets": self.targets,
            "class_shapes": dict(sorted(self.class_shapes.items())),
            "witnesses": self.witnesses,
            "reasons": self.reasons,
            "problems": self.problems,
        }

    @staticmethod
    def from_json(data: dict[str, Any]) -> Tally:
        """What `to_json` made."""
        tables = {
            name: {key: Counter(counts) for key, counts in data[name].items()}
            for name in ("classes", "shapes", "targets", "class_shapes", "witnesses")
        }
        return Tally(data["mutants"], **tables, reasons=Counter(data["reasons"]), problems=list(data["problems"]))


def judge_range(seed: str, start: int, stop: int) -> Tally:
    """Judges the mutants `start` to `stop - 1` of a seed. Where the oracle cannot decide one, another takes its place."""
    tally = Tally()
    for number in range(start, stop):
        for attempt in range(ATTEMPTS):
            kind, source, base, found = mutant(seed, number, attempt)
            name = f"mutant('{seed}', {number}, {attempt})"
            judgement = judged(base, found)
            tally.count(kind, source, found, judgement, name)
            if judgement.truth is not Truth.UNDECIDED:
                break
        else:
            tally.problems.append(f"mutant('{seed}', {number}): none could be decided")
    return tally


def judged(base: Lowering, found: Mutant) -> Judgement:
    """`judge`; an exception is a problem of the mutant, not of whoever asks."""
    try:
        return judge(base, found)
    except Exception as e:
        return Judgement(Truth.UNDECIDED, "crashed", problems=[f"{type(e).__name__}: {e}"])
