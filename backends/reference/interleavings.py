"""In which order the virtual SMs take their turns. Any order is a legal execution: these are the revealing ones."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ...amk_ir.errors import UsageError
from ...dialects.schedule import EventKind


class Interleaving(Protocol):
    """Chooses who goes next. An instance may keep state; it serves one kernel at a time."""

    def choose(self, ready: Sequence[int], next_kind: Callable[[int], EventKind]) -> int:
        """One of the SMs `ready` (ascending, at least one), whose next events are of kind `next_kind(sm)`."""
        ...


class RoundRobin:
    """One event of each SM in turn, blocked ones skipped."""

    def __init__(self) -> None:
        self._last = -1

    def choose(self, ready: Sequence[int], next_kind: Callable[[int], EventKind]) -> int:
        """The first ready SM after the last one chosen."""
        at = bisect_right(ready, self._last)
        self._last = ready[at] if at < len(ready) else ready[0]
        return self._last

    def __str__(self) -> str:
        return "round-robin"


class Seeded:
    """A random ready SM each time, the same ones for the same seed."""

    def __init__(self, seed: int):
        self.seed = seed
        self._random = random.Random(seed)

    def choose(self, ready: Sequence[int], next_kind: Callable[[int], EventKind]) -> int:
        """A random ready SM."""
        return ready[self._random.randrange(len(ready))]

    def __str__(self) -> str:
        return f"seeded {self.seed}"


@dataclass(frozen=True)
class Priority:
    """Always the ready SM that comes first in `order`: the first runs as far ahead as it can, the last starves.

    late_signals: an SM about to signal goes only when all ready SMs are, so that every signal comes as late as possible.
    """

    order: tuple[int, ...]
    late_signals: bool = False

    def choose(self, ready: Sequence[int], next_kind: Callable[[int], EventKind]) -> int:
        """The ready SM of highest priority."""

        def rank(sm: int) -> tuple[bool, int]:
            return self.late_signals and next_kind(sm) is EventKind.SIGNAL, self.order.index(sm)

        return min(ready, key=rank)

    def __str__(self) -> str:
        signals = " with late signals" if self.late_signals else ""
        return f"priority {', '.join(map(str, self.order))}{signals}"


def adversarial(num_sms: int) -> Iterator[Interleaving]:
    """Interleavings that reveal missing synchronisation: each SM far ahead, each starved, signals late."""
    sms = tuple(range(num_sms))
    for late in (False, True):
        yield Priority(sms, late)
        yield Priority(sms[::-1], late)
        for sm in sms[1:-1]:
            others = tuple(s for s in sms if s != sm)
            yield Priority((sm, *others), late)
            yield Priority((*others, sm), late)


def parse_interleaving(text: str, num_sms: int) -> Interleaving:
    """`round-robin`, `seeded:N` or `adversarial:N` (the N-th of `adversarial`, modulo their number).

    Raises:
        UsageError: anything else.
    """
    name, _, number = text.partition(":")
    if text == "round-robin":
        return RoundRobin()
    if number.isdecimal() and name == "seeded":
        return Seeded(int(number))
    if number.isdecimal() and name == "adversarial":
        every = tuple(adversarial(num_sms))
        return every[int(number) % len(every)]
    raise UsageError(f"interleaving: expected round-robin, seeded:N or adversarial:N, found '{text}'")
