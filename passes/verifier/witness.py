"""Witnesses: for a rejection, an execution that goes wrong as it says, in a form that another program can follow.

A witness names SMs, one for each event in the order in which they complete; `amk replay` executes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

from ...amk_ir.errors import UsageError
from .failures import Box, FailureKind

VERSION = 1


@dataclass(frozen=True)
class Party:
    """An event of a failure: its SM, its place in the SM's queue, and what it is."""

    sm: int
    event: int
    name: str


@dataclass(frozen=True)
class Witness:
    """An execution that goes wrong.

    kernel, digest: the schedule, by name and SHA-256 of its text. failure: what happens, see `FailureKind`. position:
    where the step starts. parties: the events that `failure` speaks of. buffer, box: the elements in question. sm, task:
    as in `Failure`. orders: the interleaving, the SM of each event; two of them if both orders are the point.
    """

    kernel: str
    digest: str
    rule: str
    failure: FailureKind
    position: int
    parties: tuple[Party, ...]
    buffer: str
    box: Box
    sm: int
    task: str
    orders: tuple[tuple[int, ...], ...]

    def to_text(self) -> str:
        """JSON, one line for each order; runs of one SM are written as [SM, count]."""
        runs = [[[sm, len(list(same))] for sm, same in groupby(order)] for order in self.orders]
        data = {
            "amk_witness": VERSION,
            "kernel": self.kernel,
            "digest": self.digest,
            "rule": self.rule,
            "failure": self.failure.value,
            "position": self.position,
            "parties": [{"sm": p.sm, "event": p.event, "name": p.name} for p in self.parties],
            "buffer": self.buffer,
            "box": [list(side) for side in self.box],
            "sm": self.sm,
            "task": self.task,
        }
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in data.items()]
        orders = ",\n".join(f"    {json.dumps(order)}" for order in runs)
        return "{\n" + ",\n".join([*lines, f'  "orders": [\n{orders}\n  ]']) + "\n}\n"

    def to_json(self) -> dict[str, Any]:
        """The same as data."""
        return json.loads(self.to_text())

    @staticmethod
    def from_text(text: str) -> Witness:
        """What `to_text` wrote. UsageError says what is wrong with any other text."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as e:
            raise UsageError(f"not a witness: {e}") from e
        if not isinstance(data, dict) or "amk_witness" not in data:
            raise UsageError(
                'not a witness: expected a JSON object with "amk_witness"; `amk verify --witness` writes one'
            )
        fields = _Fields(cast("dict[str, object]", data))
        if (version := fields.number("amk_witness")) != VERSION:
            raise UsageError(f"a witness of version {version}, this AMK reads version {VERSION}")
        try:
            kind = FailureKind(fields.text("failure"))
        except ValueError as e:
            raise UsageError(f'"failure" of a witness is one of {", ".join(FailureKind)}: {e}') from e
        events, elements, orders = _FORMS[kind]
        result = Witness(
            fields.text("kernel"),
            fields.text("digest"),
            fields.text("rule"),
            kind,
            fields.number("position"),
            tuple(
                Party(f.number("sm"), f.number("event"), f.text("name"))
                for f in map(_Fields, cast("list[dict[str, object]]", fields.items("parties", dict)))
            ),
            fields.text("buffer"),
            fields.pairs("box"),
            fields.number("sm", -1),
            fields.text("task"),
            tuple(_expand(order) for order in fields.orders()),
        )
        if len(result.parties) not in events or (elements and not result.buffer) or len(result.orders) != orders:
            raise UsageError(
                f'a witness of "{kind}" has {" or ".join(map(str, events))} parties{", a buffer" * elements} and '
                f"{orders} order{'s' * (orders != 1)}; this one lacks some"
            )
        return result


MAX_EVENTS = 1 << 26
"""Events of one order of a witness that is read: a file of a few bytes must not fill the memory."""

_FORMS: Mapping[FailureKind, tuple[Sequence[int], bool, int]] = {
    FailureKind.DEADLOCK: (range(1 << 16), False, 1),
    FailureKind.EARLY_LOAD: ((2,), True, 1),
    FailureKind.MISSING_TASK: ((0,), False, 1),
    FailureKind.REPEATED_TASK: ((2,), False, 1),
    FailureKind.REWRITE: ((2,), True, 1),
    FailureKind.STREAM: ((0, 1), False, 1),
    FailureKind.UNORDERED: ((2,), True, 2),
    FailureKind.UNSEEN_WRITE: ((2,), True, 1),
    FailureKind.UNWRITTEN_OUTPUT: ((0,), True, 1),
    FailureKind.UNWRITTEN_READ: ((1,), True, 1),
}
"""(numbers of parties, whether it is about elements, number of orders) of each kind."""


class _Fields:
    """The fields of a JSON object, checked as they are read."""

    def __init__(self, data: dict[str, object]):
        self.data = data

    def _get(self, name: str) -> object:
        if name not in self.data:
            raise UsageError(f'a witness without "{name}"')
        return self.data[name]

    def text(self, name: str) -> str:
        value = self._get(name)
        if not isinstance(value, str):
            raise UsageError(f'"{name}" of a witness is a string, found {_shown(value)}')
        return value

    def number(self, name: str, least: int = 0) -> int:
        value = self._get(name)
        if type(value) is not int or value < least:
            raise UsageError(f'"{name}" of a witness is an integer of at least {least}, found {_shown(value)}')
        return value

    def items(self, name: str, kind: type) -> list[object]:
        value = self._get(name)
        if not isinstance(value, list) or not all(isinstance(v, kind) for v in cast("list[object]", value)):
            raise UsageError(f'"{name}" of a witness is a list of {kind.__name__}, found {_shown(value)}')
        return cast("list[object]", value)

    def pairs(self, name: str) -> tuple[tuple[int, int], ...]:
        return _pairs(self.items(name, list), name)

    def orders(self) -> list[tuple[tuple[int, int], ...]]:
        return [_pairs(cast("list[object]", order), "orders") for order in self.items("orders", list)]


def _pairs(items: list[object], name: str) -> tuple[tuple[int, int], ...]:
    for item in items:
        numbers = cast("list[object]", item) if isinstance(item, list) else []
        if len(numbers) != 2 or any(type(n) is not int or n < 0 for n in numbers):
            raise UsageError(f'"{name}" of a witness holds pairs of natural numbers, found {_shown(item)}')
    return tuple((a, b) for a, b in cast("list[list[int]]", items))


def _expand(order: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    if sum(count for _, count in order) > MAX_EVENTS:
        raise UsageError(f"an order of a witness has more than {MAX_EVENTS} events")
    return tuple(sm for sm, count in order for _ in range(count))


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


TASK_NAME = re.compile(r"@([^\[]+)\[([0-9, ]*)\]")
"""`@family[i, j]`."""
