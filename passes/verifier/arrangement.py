"""The cells into which boxes cut a buffer: the index by which regions are intersected.

The end points of all boxes, dimension by dimension, cut the buffer into a grid of cells; within a cell, every element
is in the same boxes. Tiles of real schedules are aligned, so there are about as many cells as tiles. Where boxes are
not aligned and the grid would be larger than `MAX_CELLS`, the buffer is halved until each part's grid is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import prod

import numpy as np

from .arrays import Ints, distinct, ranges
from .regions import Boxes

MAX_CELLS = 1 << 22
"""Cells of one grid."""

MAX_COVER = 1 << 26
"""Cells of all boxes of a set together: the memory and time that intersecting them takes."""


KEPT_COVER = 1 << 12
"""Cells of a cover that is remembered; larger ones take more memory than it is worth."""


class TooLargeError(Exception):
    """A question about the schedule, such as which boxes of a buffer overlap, would take too much memory."""


@dataclass(frozen=True)
class Part:
    """A part of a buffer with its grid.

    edges: the cuts of each dimension, the part's bounds included. members: for each set of boxes, the numbers of those
    that touch the part. spans: their cells, as boxes of cell coordinates.
    """

    edges: tuple[Ints, ...]
    members: tuple[Ints, ...]
    spans: tuple[Boxes, ...]
    _covers: dict[int, tuple[Ints, Ints]] = field(default_factory=dict[int, tuple[Ints, Ints]], repr=False)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Cells in each dimension."""
        return tuple(len(e) - 1 for e in self.edges)

    @cached_property
    def cells(self) -> int:
        return prod(self.shape)

    def cover(self, which: int) -> tuple[Ints, Ints]:
        """(box, cell) of every cell of every box of a set, boxes by their original numbers, in ascending order."""
        if (kept := self._covers.get(which)) is not None:
            return kept
        spans = self.spans[which]
        if (spans.high - spans.low).prod(axis=1, dtype=np.float64).sum() > MAX_COVER:
            raise TooLargeError
        box, cell = _expand(spans, self.shape)
        result = self.members[which][box], cell
        if len(cell) <= KEPT_COVER:
            self._covers[which] = result
        return result

    def box_of(self, cell: int) -> tuple[tuple[int, int], ...]:
        """The elements of a cell."""
        index = np.unravel_index(cell, self.shape)
        return tuple((int(e[i]), int(e[i + 1])) for e, i in zip(self.edges, index, strict=True))


def _expand(spans: Boxes, shape: tuple[int, ...]) -> tuple[Ints, Ints]:
    extents = spans.high - spans.low
    counts = extents.prod(axis=1)
    box = np.repeat(np.arange(len(spans)), counts)
    rest = ranges(np.zeros_like(counts), counts)
    cell = np.zeros(len(box), np.int64)
    stride = 1
    for axis in reversed(range(len(shape))):
        if shape[axis] == 1:
            continue
        if (extents[:, axis] == 1).all():
            cell += spans.low[box, axis] * stride
        else:
            rest, inner = np.divmod(rest, extents[box, axis])
            cell += (spans.low[box, axis] + inner) * stride
        stride *= shape[axis]
    return box, cell


def arrangement(shape: tuple[int, ...], sets: tuple[Boxes, ...]) -> Iterator[Part]:
    """The parts of a buffer of `shape`, each with the grid that the boxes of all `sets` cut it into."""
    bounds = Boxes(np.zeros((1, len(shape)), np.int64), np.array([shape], np.int64).reshape(1, len(shape)))
    yield from _parts(bounds, tuple(np.arange(len(s)) for s in sets), sets)


def _parts(bounds: Boxes, members: tuple[Ints, ...], sets: tuple[Boxes, ...]) -> Iterator[Part]:
    edges = tuple(
        distinct(
            np.concatenate(
                [bounds.low[:, axis], bounds.high[:, axis]] + [x[:, axis] for s in sets for x in (s.low, s.high)]
            )
        )
        for axis in range(bounds.low.shape[1])
    )
    if prod(len(e) - 1 for e in edges) <= MAX_CELLS:
        spans = tuple(
            Boxes(
                np.stack([np.searchsorted(e, s.low[:, a]) for a, e in enumerate(edges)], axis=1) if edges else s.low,
                np.stack([np.searchsorted(e, s.high[:, a]) for a, e in enumerate(edges)], axis=1) if edges else s.high,
            )
            for s in sets
        )
        yield Part(edges, members, spans)
        return
    axis = max(range(len(edges)), key=lambda a: len(edges[a]))
    middle = edges[axis][len(edges[axis]) // 2]
    for upper in (False, True):
        part = Boxes(bounds.low.copy(), bounds.high.copy())
        (part.low if upper else part.high)[0, axis] = middle
        inside = [(s.high[:, axis] > middle) if upper else (s.low[:, axis] < middle) for s in sets]
        clipped: list[Boxes] = []
        for s, keep in zip(sets, inside, strict=True):
            low, high = s.low[keep], s.high[keep]
            if upper:
                low[:, axis] = np.maximum(low[:, axis], middle)
            else:
                high[:, axis] = np.minimum(high[:, axis], middle)
            clipped.append(Boxes(low, high))
        yield from _parts(part, tuple(m[k] for m, k in zip(members, inside, strict=True)), tuple(clipped))
