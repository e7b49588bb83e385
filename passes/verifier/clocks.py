"""Vector clocks over SMs: for every event, how far each SM certainly is when it executes.

Two relations, because not every hand-off carries all data (docs/semantics.md):

- VISIBLE follows program order and counters. A signal releases all that its SM and those it has heard from did before.
- ORDERED follows tagged words too: their reader runs after their writer, but may not yet see its other writes.

A wait for n signals of a counter comes after those that *can* be among the first n: if exactly n signals stand before
the first wait for n or more of that counter on their SM, these n are they. That covers counters that are waited for as
a whole, and counters that rise from phase to phase. Other waits give no edge here; `races` decides what is left open.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from .arrangement import TooLargeError
from .arrays import Bools, Ints
from .execution import ItemKind, Items
from .timeline import Timeline


class Relation(IntEnum):
    """Row of a clock."""

    VISIBLE = 0
    ORDERED = 1


@dataclass(frozen=True)
class Clocks:
    """rows: [n, relations, SMs]; entry s: every event of SM s with a smaller number has happened.

    row_of_event: the row in force when a task starts.
    """

    timeline: Timeline
    rows: NDArray[np.int32]
    row_of_event: Ints

    def happens_before(self, first: Ints, then: Ints, relation: Relation) -> Bools:
        """Whether each event of `first` certainly happens before the one of `then` (True is a proof, False is not)."""
        sm_first, sm_then = self.timeline.sm[first], self.timeline.sm[then]
        plane = self.rows[:, min(int(relation), self.rows.shape[1] - 1)]
        known = plane[self.row_of_event[then], sm_first] > first
        return np.where(sm_first == sm_then, first < then, known)


@dataclass(frozen=True)
class _Classes:
    """Accumulators of counters. of_wait: that of each wait item, -1 without an edge. of_signal: [low, high) that a
    signal item enters."""

    count: int
    of_wait: dict[int, int]
    of_signal: dict[int, tuple[int, int]]


MAX_NUMBERS = 2**29
"""Numbers in all clocks (2 GiB): each acquire, counter and tagged region has one for each SM."""


def compute_clocks(items: Items) -> Clocks:
    """The clocks of a schedule that runs to its end; one pass in the order of the greedy run.

    Raises:
        TooLargeError: they would take too much memory.
    """
    timeline = items.timeline
    num_sms = timeline.num_sms
    planes = 2 if items.tagged.count else 1
    classes = _threshold_classes(items)
    acquires = sum(1 for k in items.kind if k in (ItemKind.WAIT, ItemKind.NEED))
    clocks = planes * (num_sms + acquires + classes.count) + items.tagged.count
    if clocks * num_sms > MAX_NUMBERS:
        raise TooLargeError
    rows = np.zeros((num_sms + acquires, planes, num_sms), np.int32)
    counted = np.zeros((classes.count, planes, num_sms), np.int32)
    written = np.zeros((items.tagged.count, num_sms), np.int32)
    current = [rows[sm] for sm in range(num_sms)]
    used = num_sms
    # (event, row) from which on each row is in force
    since = timeline.schedule.body.bounds[:-1].tolist()
    row_since = list(range(num_sms))

    event, kinds, refs, args, bounds = items.event, items.kind, items.ref, items.arg, items.bounds
    of_wait, of_signal = classes.of_wait, classes.of_signal
    counters = [0] * len(timeline.schedule.counters)
    missing = list(items.missing)
    at = bounds[:-1]
    waiting: dict[tuple[int, int], list[int]] = {}
    needing: dict[int, list[int]] = {}
    ready = list(range(num_sms))
    maximum = np.maximum
    while ready:
        sm = ready.pop()
        i, end = at[sm], bounds[sm + 1]
        mine = current[sm]
        while i < end:
            kind, ref = kinds[i], refs[i]
            if kind == ItemKind.SIGNAL:
                mine[:, sm] = event[i] + 1
                low, high = of_signal[i]
                if high == low + 1:
                    maximum(counted[low], mine, out=counted[low])
                elif high > low:
                    maximum(counted[low:high], mine, out=counted[low:high])
                counters[ref] = value = counters[ref] + 1
                ready += waiting.pop((ref, value), ())
            elif kind == ItemKind.WAIT:
                if counters[ref] < args[i]:
                    waiting.setdefault((ref, args[i]), []).append(sm)
                    break
                if (group := of_wait[i]) >= 0:
                    heard = counted[group]
                    if (heard > mine).any():
                        maximum(mine, heard, out=rows[used])
                        current[sm] = mine = rows[used]
                        since.append(event[i])
                        row_since.append(used)
                        used += 1
            elif kind == ItemKind.NEED:
                if missing[ref]:
                    needing.setdefault(ref, []).append(sm)
                    break
                heard = written[ref]
                if (heard > mine[1]).any():
                    rows[used, 0] = mine[0]
                    maximum(mine[1], heard, out=rows[used, 1])
                    current[sm] = mine = rows[used]
                    since.append(event[i])
                    row_since.append(used)
                    used += 1
            else:
                mine[:, sm] = event[i] + 1
                maximum(written[ref], mine[1], out=written[ref])
                missing[ref] -= 1
                if not missing[ref]:
                    ready += needing.pop(ref, ())
            i += 1
        at[sm] = i
    return Clocks(
        timeline, rows[:used], _spread(timeline, np.asarray(since, np.int64), np.asarray(row_since, np.int64))
    )


def _spread(timeline: Timeline, since: Ints, row: Ints) -> Ints:
    """For every event, the last row of its SM that is in force by then."""
    order = np.lexsort((row, since))  # rows of one SM are used in ascending order
    since, row = since[order], row[order]
    return row[np.searchsorted(since, np.arange(len(timeline.sm)), side="right") - 1]


def _threshold_classes(items: Items) -> _Classes:
    """The waits that give edges, and the signals that they come after (see the top of this file)."""
    timeline = items.timeline
    body, signals = timeline.schedule.body, timeline.schedule.signals
    kind, ref, arg = (np.asarray(column, np.int64) for column in (items.kind, items.ref, items.arg))
    counters = len(signals)
    wait_items = np.flatnonzero(kind == ItemKind.WAIT)
    signal_items = np.flatnonzero(kind == ItemKind.SIGNAL)
    partial = np.zeros(counters, np.bool_)
    partial[ref[wait_items][arg[wait_items] < signals[ref[wait_items]]]] = True
    # whole counters: one class each, in which every signal counts
    of_wait = dict(
        zip(
            wait_items.tolist(),
            np.where(partial[ref[wait_items]] | (arg[wait_items] == 0), -1, ref[wait_items]).tolist(),
            strict=True,
        )
    )
    of_signal = {i: (c, c + 1) for i, c in zip(signal_items.tolist(), ref[signal_items].tolist(), strict=True)}
    count = counters
    event = np.asarray(items.event, np.int64)
    for counter in np.flatnonzero(partial).tolist():
        waits = wait_items[ref[wait_items] == counter]
        mine = signal_items[ref[signal_items] == counter]
        thresholds, which = np.unique(arg[waits], return_inverse=True)
        # first[s, j]: the first wait of SM s for thresholds[j] or more
        first = np.full((timeline.num_sms, len(thresholds)), len(body), np.int64)
        np.minimum.at(first, (timeline.sm[event[waits]], which.reshape(-1)), event[waits])
        first = np.minimum.accumulate(first[:, ::-1], axis=1)[:, ::-1]
        possible = event[mine][:, None] < first[timeline.sm[event[mine]]]
        exact = possible.sum(axis=0) == thresholds
        for item, threshold in zip(waits.tolist(), which.reshape(-1).tolist(), strict=True):
            of_wait[item] = count + threshold if exact[threshold] else -1
        # a signal that counts for a threshold counts for all higher ones
        lowest = len(thresholds) - possible.sum(axis=1)
        for item, low in zip(mine.tolist(), lowest.tolist(), strict=True):
            of_signal[item] = (count + low, count + len(thresholds))
        count += len(thresholds)
    return _Classes(count, of_wait, of_signal)
