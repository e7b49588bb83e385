"""What an event knows to have happened, while waits are being added: the clocks of the schedule, and the new edges."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from ..verifier.arrays import Ints
from ..verifier.clocks import Clocks

Row = Ints
"""[relations, SMs], as a row of `Clocks`: every event of SM s with a smaller number than entry s."""


class Knowledge:
    """Grows in the order of a legal execution: what an event knows is final once everything before it was added."""

    def __init__(self, clocks: Clocks):
        self._clocks = clocks
        self._sm: list[int] = clocks.timeline.sm.tolist()
        # of each SM: the events that new waits stand before, and what is known from there on
        self._added: dict[int, tuple[list[int], list[Row]]] = {}
        self._after: dict[int, Row] = {}

    def before(self, event: int) -> Row:
        """What is known when an event starts."""
        sm = self._sm[event]
        row = np.empty((2, self._clocks.rows.shape[2]), np.int64)
        row[:] = self._clocks.rows[self._clocks.row_of_event[event]]  # one relation stands for both without tags
        row[:, sm] = event
        for other, (events, rows) in self._added.items():
            for relation in range(2):
                upto = row[relation, other] + (other == sm)
                if (number := bisect_left(events, upto)) > 0:
                    np.maximum(row[relation], rows[number - 1][relation], out=row[relation])
        return row

    def after(self, event: int) -> Row:
        """What a signal after an event tells."""
        if (row := self._after.get(event)) is None:
            row = self._after[event] = self.before(event)
            row[:, self._sm[event]] = event + 1
        return row

    def add(self, event: int, row: Row) -> None:
        """New waits stand before `event`, which then knows `row`."""
        events, rows = self._added.setdefault(self._sm[event], ([], []))
        events.append(event)
        rows.append(row)
