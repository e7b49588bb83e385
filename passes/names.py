"""Readable and unique symbol names for what passes create."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass
class NameTable:
    """The names already taken in one symbol table."""

    taken: set[str] = field(default_factory=set[str])

    def reserve(self, names: Iterable[str]) -> None:
        self.taken.update(names)

    def unique(self, name: str) -> str:
        """`name`, or `name_2`, `name_3`, ... if it is taken; takes the result. Always a bare identifier."""
        name = re.sub(r"\W", "_", name, flags=re.ASCII)
        name = f"_{name}" if name[:1].isdigit() else name
        candidate, number = name, 2
        while candidate in self.taken:
            candidate, number = f"{name}_{number}", number + 1
        self.taken.add(candidate)
        return candidate


def join_names(names: Sequence[str]) -> str:
    """One name for several things: the words that all share, at the front or the end, are written once.

    k_cache and v_cache give k_v_cache, linear_gate and linear_up give linear_gate_up.
    """
    words = [name.split("_") for name in dict.fromkeys(names)]
    if len(words) == 1:
        return names[0]
    front = _shared(words)
    # each name keeps at least one word of its own
    front = min(front, *(len(w) - 1 for w in words))
    words = [w[front:] for w in words]
    back = min(_shared([w[::-1] for w in words]), *(len(w) - 1 for w in words))
    prefix = names[0].split("_")[:front]
    suffix = words[0][len(words[0]) - back :]
    middle = [word for w in words for word in w[: len(w) - back]]
    return "_".join([*prefix, *middle, *suffix])


def _shared(words: Sequence[Sequence[str]]) -> int:
    """Number of leading words that all have in common."""
    count = 0
    for column in zip(*words, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count
