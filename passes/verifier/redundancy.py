"""Waits that a safe schedule does not need: found by leaving each out and deciding again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ...dialects.queue import WaitOp
from ...dialects.schedule import EventKind, Events, Schedule
from .check import check_schedule
from .overlap_index import OverlapIndex


@dataclass(frozen=True)
class RedundantWait:
    """A wait without which the schedule is safe too. events: how many SMs and iterations execute it. sm, event: the first."""

    op: WaitOp
    events: int
    sm: int
    event: int


@dataclass(frozen=True)
class RedundantWaits:
    """waits: each of them alone can be removed, not all together. tried, total: how many of the waits were looked at."""

    waits: tuple[RedundantWait, ...]
    tried: int
    total: int


def redundant_waits(
    schedule: Schedule, limit: int, progress: Callable[[str, int, int], None] = lambda what, done, total: None
) -> RedundantWaits:
    """The waits of a safe schedule that it does not need, among its first `limit`; exact, one verification each."""
    body = schedule.body
    waits = np.flatnonzero(body.kind == EventKind.WAIT)
    numbers = sorted(set(body.op[waits].tolist()))
    found: list[RedundantWait] = []
    index = OverlapIndex(schedule.kernel)
    for done, number in enumerate(numbers[:limit]):
        progress("leaving out waits", done, min(limit, len(numbers)))
        mine = waits[body.op[waits] == number]
        op = schedule.ops[number]
        assert isinstance(op, WaitOp)
        if not check_schedule(_without(schedule, mine), index):
            sm = int(body.sm[mine[0]])
            found.append(RedundantWait(op, len(mine), sm, int(mine[0] - body.bounds[sm])))
    progress("leaving out waits", min(limit, len(numbers)), min(limit, len(numbers)))
    return RedundantWaits(tuple(found), min(limit, len(numbers)), len(numbers))


def _without(schedule: Schedule, events: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Schedule:
    body = schedule.body
    keep = np.ones(len(body), np.bool_)
    keep[events] = False
    kept = np.concatenate([[0], np.cumsum(keep)])
    return replace(
        schedule,
        body=Events(body.kind[keep], body.ref[keep], body.arg[keep], body.op[keep], kept[body.bounds].astype(np.int32)),
    )
