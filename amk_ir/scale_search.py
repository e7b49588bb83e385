"""Scales and offsets of integer codes with a small squared error: a grid of steps, each refitted by least squares.

A group of values x is approximated by `step * (code - offset)`, codes being integers of a range. For every step of a grid
the codes are the nearest; for these codes, least squares give the best step, and offset if there is one, in closed form.
The best candidate is refined in the same way (Lloyd's iteration). Squared errors may be weighted by the element.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Offset: TypeAlias = Literal["none", "integer", "real"]
"""What an offset may be: 0; an integer of the range of the codes; any number."""

GRID = (1.0, 0.94, 0.88, 0.8, 0.7)
"""Steps that are tried, in units of the one with which nothing is clipped."""
SHORT_GRID = (0.96, 0.82)
"""Those for few codes and errors that count alike: five make the error only a hundredth smaller."""
_ROUNDS = 2  # of refinement
_ZERO, _ONE = np.float32(0), np.float32(1)
_CHUNK = (
    1 << 17
)  # elements worked on at a time: few enough for caches, and so many that threads seldom wait for the interpreter


def search_steps(
    values: Floats, offsets: Floats, codes: tuple[int, int], kind: Offset, weights: Floats | None = None
) -> tuple[Floats, Floats]:
    """Steps and offsets, each [groups], for `values` [groups, elements] in units of a step that clips nothing.

    offsets: [groups], what goes with a step of 1. codes: the smallest and the largest. weights: [groups, elements], how
    much the squared error of each element counts; 0 or more. A step may be negative where `kind` is "none", which lets
    the side with the larger values have the additional code. Deterministic, and each group on its own.
    """
    steps, found = np.empty_like(offsets), np.empty_like(offsets)
    count = max(1, _CHUNK // values.shape[1])
    for start in range(0, len(values), count):
        rows = slice(start, start + count)
        search = _Search(values[rows], offsets[rows], codes, kind, None if weights is None else weights[rows])
        steps[rows], found[rows] = search.best()
    return steps, found


class _Search:
    """Candidates for some groups."""

    def __init__(
        self, values: Floats, offsets: Floats, codes: tuple[int, int], kind: Offset, weights: Floats | None
    ) -> None:
        self.values, self.weights, self.kind = values, weights, kind
        self.lowest, self.highest = codes
        self.is_narrow = self.highest - self.lowest < 16
        self.grid = SHORT_GRID if self.is_narrow and weights is None else GRID
        self.total: Floats = np.full_like(offsets, values.shape[1]) if weights is None else weights.sum(axis=1)
        self.offsets = offsets
        self.step = np.ones_like(offsets)
        self.offset = offsets
        self.error = np.full_like(offsets, np.inf)
        self.residuals, self.codes = np.empty_like(values), np.empty_like(values)  # of the last candidate

    def best(self) -> tuple[Floats, Floats]:
        if self.kind == "none":
            # -8 to 7 reach further to one side; of 256 codes one more is nothing
            signs = (1, -1) if self.is_narrow else (1,)
            for factor in self.grid:
                for sign in signs:
                    self._try(np.full_like(self.step, factor * sign), self.offsets)
        else:
            middle = (self.values.min(axis=1) + self.values.max(axis=1)) / 2
            for factor in self.grid:  # the middle of the values stays in the middle of the codes
                offset = (self.lowest + self.highest) / 2 - middle / np.float32(factor)
                self._try(np.full_like(self.step, factor), self._allowed(offset))
        for _ in range(_ROUNDS):
            self._try(self.step, self.offset)
        return self.step, self.offset

    def _allowed(self, offset: Floats) -> Floats:
        return np.clip(np.rint(offset), self.lowest, self.highest) if self.kind == "integer" else offset

    def _try(self, step: Floats, offset: Floats) -> None:
        """Takes what least squares make of the codes for `step` and `offset`, where that is better than the best."""
        step, offset, error = self._refit(step, offset)
        better = error < self.error
        self.step = np.where(better, step, self.step)
        self.offset = np.where(better, offset, self.offset)
        self.error = np.where(better, error, self.error)

    def _refit(self, step: Floats, offset: Floats) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Least squares for the codes nearest to the values, and their squared error.

        With codes c, residuals r = x / step + offset - c and sums S over the elements, step * (1 + a) and an offset
        lowered by b minimise the sum of (r - a c - b)^2. Residuals are small, so that nothing cancels in float32.
        """
        residuals = np.divide(self.values, step[:, None], out=self.residuals)
        if self.kind != "none":
            residuals += offset[:, None]
        codes = np.rint(residuals, out=self.codes)
        np.clip(codes, self.lowest, self.highest, out=codes)
        residuals -= codes
        weighted = residuals if self.weights is None else self.weights * residuals
        rr, cr = _dot(residuals, weighted), _dot(codes, weighted)
        r = _sum(weighted) if self.kind != "none" else cr
        weighted = codes if self.weights is None else np.multiply(self.weights, codes, out=weighted)
        cc = _dot(codes, weighted)
        square = step * step
        if self.kind == "none":
            a = _ratio(cr, cc)
            return step * (1 + a), offset, square * (rr - a * cr)
        c = _sum(weighted)
        determinant = cc * self.total - c * c
        # where all codes are the same, only the offset can be fitted
        determinant *= determinant > np.float32(1e-6) * cc * self.total
        a = _ratio(cr * self.total - r * c, determinant)
        b = _ratio(r - a * c, self.total)
        moved = np.where(a == -1, offset, (offset - b) / np.where(a == -1, _ONE, 1 + a))
        if self.kind == "real":
            return step * (1 + a), moved, square * (rr - a * cr - b * r)
        # With the integer next to it, the codes less the offset are p and the residuals r + d.
        moved = self._allowed(moved)
        d = moved - offset
        pr = cr + d * c - moved * (r + d * self.total)
        pp = cc - moved * (2 * c - moved * self.total)
        a = _ratio(pr, pp)
        return step * (1 + a), moved, square * (rr + d * (2 * r + d * self.total) - a * pr)


def _dot(a: Floats, b: Floats) -> Floats:
    return np.einsum("ge,ge->g", a, b)


def _sum(a: Floats) -> Floats:
    return np.einsum("ge->g", a)


def _ratio(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """a / b, 0 where b is not positive."""
    is_positive = b > 0
    return np.where(is_positive, a, _ZERO) / np.where(is_positive, b, _ONE)
