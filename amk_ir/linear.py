"""Linear index expressions: a sum of integer coefficients times named indices, plus a constant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

POSITION = "pos"
"""The reserved index: the position of the first token of the step, in [0, max_seq - tokens per step]."""


@dataclass(frozen=True)
class Linear:
    """`sum(coefficient * name) + constant`, names sorted, no zero coefficient: equal expressions are equal objects."""

    terms: tuple[tuple[str, int], ...] = ()
    constant: int = 0

    @staticmethod
    def of(value: int | str | Linear) -> Linear:
        """The expression of a constant, of one index, or itself."""
        if isinstance(value, Linear):
            return value
        return Linear(constant=value) if isinstance(value, int) else Linear(((value, 1),))

    @staticmethod
    def make(terms: Mapping[str, int], constant: int = 0) -> Linear:
        """Normal form of `terms` and `constant`."""
        return Linear(tuple(sorted((n, c) for n, c in terms.items() if c)), constant)

    def __add__(self, other: int | Linear) -> Linear:
        other = Linear.of(other)
        terms = dict(self.terms)
        for name, coefficient in other.terms:
            terms[name] = terms.get(name, 0) + coefficient
        return Linear.make(terms, self.constant + other.constant)

    def __mul__(self, factor: int) -> Linear:
        return Linear.make({n: c * factor for n, c in self.terms}, self.constant * factor)

    def __sub__(self, other: int | Linear) -> Linear:
        return self + Linear.of(other) * -1

    @property
    def names(self) -> frozenset[str]:
        """The indices that the expression depends on."""
        return frozenset(n for n, _ in self.terms)

    @property
    def is_constant(self) -> bool:
        return not self.terms

    def coefficient(self, name: str) -> int:
        """The factor of `name`, 0 if it does not occur."""
        return dict(self.terms).get(name, 0)

    def evaluate(self, indices: Mapping[str, int]) -> int:
        """The value under `indices`; KeyError names an unbound index."""
        return self.constant + sum(c * indices[n] for n, c in self.terms)

    def substitute(self, values: Mapping[str, int | Linear]) -> Linear:
        """Replace the named indices by constants or expressions."""
        result = Linear(constant=self.constant)
        for name, coefficient in self.terms:
            result = result + Linear.of(values.get(name, Linear.of(name))) * coefficient
        return result

    def bounds(self, extents: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
        """The least and greatest value over inclusive index ranges `extents`."""
        low = high = self.constant
        for name, coefficient in self.terms:
            first, last = extents[name]
            low += coefficient * (first if coefficient > 0 else last)
            high += coefficient * (last if coefficient > 0 else first)
        return low, high

    def __str__(self) -> str:
        text = ""
        for name, coefficient in self.terms:
            sign = " - " if coefficient < 0 else " + "
            factor = "" if abs(coefficient) == 1 else f"*{abs(coefficient)}"
            if not text:
                text = f"{'-' if coefficient < 0 else ''}{name}{factor}"
            else:
                text += f"{sign}{name}{factor}"
        if not text:
            return str(self.constant)
        if self.constant:
            text += f" {'-' if self.constant < 0 else '+'} {abs(self.constant)}"
        return text
