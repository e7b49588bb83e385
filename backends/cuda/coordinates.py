"""Coordinates of a tile element as C++ expressions, and addresses made of them. Text only, no IR."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod

from ...amk_ir.access import Access
from ...amk_ir.linear import POSITION, Linear

INDEX_PREFIX = "f_"
"""Prefix of the C++ variables of a task's own indices: those that its run does not bind."""
LOOP_PREFIX = "l_"
"""Prefix of the C++ variables of loop indices."""


@dataclass(frozen=True)
class Segment:
    """Consecutive dimensions of extents `sizes`, addressed together by the row-major number `text`."""

    text: str
    sizes: tuple[int, ...]

    def part(self, first: int, last: int) -> str:
        """The row-major number within the dimensions first to last - 1."""
        if prod(self.sizes[first:last]) == 1:
            return "0"
        text, after = self.text, prod(self.sizes[last:])
        if after > 1:
            text = f"({text}) / {after}"
        if prod(self.sizes[:first]) > 1:
            text = f"({text}) % {prod(self.sizes[first:last])}"
        return text


@dataclass(frozen=True)
class Coordinates:
    """One element of a tile: segments that cover the tile's dimensions in order."""

    segments: tuple[Segment, ...]

    @staticmethod
    def flat(text: str, shape: Sequence[int]) -> Coordinates:
        """The element with row-major number `text` in a tile of `shape`."""
        return Coordinates((Segment(text, tuple(shape)),))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(size for segment in self.segments for size in segment.sizes)

    @property
    def dims(self) -> tuple[str, ...]:
        """One expression for each dimension."""
        return tuple(s.part(i, i + 1) for s in self.segments for i in range(len(s.sizes)))

    def segment_of(self, axis: int) -> int:
        """The number of the segment that has a dimension."""
        return next(n for n, last in enumerate(accumulate(len(s.sizes) for s in self.segments)) if axis < last)

    def number(self, first: int, last: int) -> str:
        """The row-major number within the dimensions first to last - 1."""
        offset = 0
        for segment in self.segments:
            if offset <= first and last <= offset + len(segment.sizes):
                return segment.part(first - offset, last - offset)
            offset += len(segment.sizes)
        return sum_text([(f, prod(self.shape[i + 1 : last])) for i, f in enumerate(self.dims) if first <= i < last])

    def with_dim(self, axis: int, text: str) -> Coordinates:
        """The element at `text` in dimension `axis`, else the same."""
        dims = [Segment(t, (n,)) for t, n in zip(self.dims, self.shape, strict=True)]
        dims[axis] = Segment(text, (self.shape[axis],))
        return Coordinates(tuple(dims))

    def select(self, axes: Sequence[int]) -> Coordinates:
        """The coordinates in the dimensions `axes` alone; contiguous ones stay one number."""
        if axes and tuple(axes) == tuple(range(axes[0], axes[-1] + 1)):
            sizes = self.shape[axes[0] : axes[-1] + 1]
            return Coordinates((Segment(self.number(axes[0], axes[-1] + 1), sizes),))
        return Coordinates(tuple(Segment(self.dims[a], (self.shape[a],)) for a in axes))


def sum_text(terms: Sequence[tuple[str, int]], constant: int = 0) -> str:
    """`sum(text * factor) + constant`, zero terms left out."""
    parts = [f"({t})" if f == 1 else f"({t}) * {f}" for t, f in terms if t != "0" and f != 0]
    if constant or not parts:
        parts.append(str(constant))
    return " + ".join(parts)


def linear_text(value: Linear, task_indices: frozenset[str] = frozenset()) -> str:
    """`value` in C++: the position, a task's own indices (`task_indices`), all others are loop indices."""

    def name(index: str) -> str:
        if index == POSITION:
            return "pos"
        return (INDEX_PREFIX if index in task_indices else LOOP_PREFIX) + index

    return sum_text([(name(n), c) for n, c in value.terms], value.constant)


def row_major_strides(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


@dataclass(frozen=True)
class Address:
    """The element number within a buffer, and the condition under which it may be accessed ("" is always).

    vectors: the variable of which elements where it is 4 n to 4 n + 3 are an aligned vector. run: the same, where the number is
    the sum of the variable and of a multiple of 4. "" if there is none.
    """

    offset: str
    inside: str
    run: str = ""
    vectors: str = ""


def address_of(access: Access, shape: Sequence[int], at: Coordinates, task_indices: frozenset[str]) -> Address:
    """Where the element `at` of the tile `access` lies in a row-major buffer of `shape`.

    Runs of dimensions that are dense in both the tile and the buffer stay one number.
    """
    strides = row_major_strides(shape)
    start = Linear()
    for dim, stride in zip(access.dims, strides, strict=True):
        start = start + dim.start * stride
    kept = [axis for axis, dim in enumerate(access.dims) if dim.kept]
    terms: list[tuple[str, int]] = []
    first = 0
    while first < len(kept):
        last = first + 1
        # extents of 1 may stand between: they contribute nothing
        while (
            last < len(kept)
            and strides[kept[last - 1]] == strides[kept[last]] * at.shape[last]
            and at.segment_of(last) == at.segment_of(first)
        ):
            last += 1
        terms.append((at.number(first, last), strides[kept[last - 1]]))
        first = last
    inside = inside_text(access, at, task_indices)
    offset = sum_text([(linear_text(start, task_indices), 1), *terms])
    if prod(shape) > 2**31 - 1:
        # promote every product: the first factor of each term is the only variable one
        offset = sum_text(
            [(f"(long long)({linear_name(n, task_indices)})", c) for n, c in start.terms]
            + [(f"(long long)({t})", f) for t, f in terms if t != "0"],
            start.constant,
        )
    moving = [(t, f) for t, f in terms if t != "0"]
    steps = [*(c for _, c in start.terms), start.constant, *(f for _, f in moving[:-1])]
    if not moving or moving[-1][1] != 1 or inside or any(step % 4 for step in steps):
        return Address(offset, inside)
    # what is before the last dimension is the same for neighbours in it
    last = re.fullmatch(r"\(?(\w+)\)?(?: % (\d+))?", moving[-1][0])
    if last is None or int(last[2] or 0) % 4:
        return Address(offset, inside)
    return Address(offset, inside, "" if last[2] else last[1], last[1])


def inside_text(access: Access, at: Coordinates, task_indices: frozenset[str]) -> str:
    """The condition under which the element `at` of the tile `access` lies before its limits, "" where it always does."""
    kept = (dim for dim in access.dims if dim.kept)
    return " && ".join(
        f"{linear_text(dim.start, task_indices)} + {text} < {dim.limit}"
        for dim, text in zip(kept, at.dims, strict=True)
        if dim.limit is not None
    )


def index_texts(access: Access, at: Coordinates, task_indices: frozenset[str]) -> list[str]:
    """The element `at` of the tile `access` as an expression for each dimension of the buffer."""
    inner = iter(at.dims)
    return [
        sum_text([(linear_text(dim.start, task_indices), 1), (next(inner) if dim.kept else "0", 1)])
        for dim in access.dims
    ]


def linear_name(index: str, task_indices: frozenset[str]) -> str:
    """The C++ variable of one index."""
    return linear_text(Linear.of(index), task_indices)
