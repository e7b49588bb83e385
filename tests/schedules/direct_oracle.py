"""An oracle for schedules of some hundred events, by brute force in C++ (direct_oracle.cpp).

It goes through every element of every buffer at every position and through one execution for each write that is held
back; it shares no code with the verifier. Its input is plain data; `lowerings.py` reads it off a kernel.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SOURCE = Path(__file__).with_name("direct_oracle.cpp")

Event = tuple
"""("run", family, task) | ("wait", counter, threshold, None for all signals) | ("signal", counter), all by number."""

KINDS = ("scratch", "tagged", "output", "state", "constant")
"""Kinds of buffers; `constant` are those that no task writes."""


class Verdict(IntEnum):
    """What is wrong, first; UNDECIDED: whether a write is seen could not be settled."""

    SAFE = 0
    TASKS = 1
    STREAM = 2
    DEADLOCK = 3
    WRITTEN_TWICE = 4
    OUTPUT_HOLE = 5
    UNWRITTEN = 6
    RACE = 7
    UNDECIDED = 8


@dataclass(frozen=True)
class Side:
    """One dimension of a region: `[start, start + size)`, both linear in the position; `limit` cuts it."""

    start: int
    start_pos: int
    size: int
    size_pos: int
    limit: int | None
    factors: tuple[int, ...]
    """Of the family's indices, in `start`."""


@dataclass(frozen=True)
class Region:
    """A box of buffer number `buffer`; `streamed`: taken from the ring, so read at any time before its task ends."""

    buffer: int
    sides: tuple[Side, ...]
    streamed: bool = False


@dataclass(frozen=True)
class Family:
    """Equal tasks over a domain; task numbers are row-major."""

    extents: tuple[int, ...]
    streams: bool
    reads: tuple[Region, ...]
    writes: tuple[Region, ...]


@dataclass(frozen=True)
class Head:
    """What a schedule is about. buffers: (one of `KINDS`, shape)."""

    tokens: int
    max_pos: int
    has_ring: bool
    buffers: tuple[tuple[str, tuple[int, ...]], ...]
    families: tuple[Family, ...]
    counters: int

    def packed(self) -> list[int]:
        """As direct_oracle.cpp reads it."""
        data = [self.tokens, self.max_pos, int(self.has_ring), len(self.buffers)]
        for kind, shape in self.buffers:
            data += [KINDS.index(kind), len(shape), *shape]
        data.append(len(self.families))
        for family in self.families:
            data += [len(family.extents), *family.extents, int(family.streams)]
            for regions in (family.reads, family.writes):
                data.append(len(regions))
                for region in regions:
                    data += [region.buffer, int(region.streamed), len(region.sides)]
                    for s in region.sides:
                        limit = -1 if s.limit is None else s.limit
                        data += [s.start, s.start_pos, s.size, s.size_pos, limit, *s.factors]
        data.append(self.counters)
        return data


def decide(
    head: list[int], bodies: list[list[Event]], streams: list[list[tuple[int, int]]]
) -> tuple[Verdict, tuple[int, int, int]]:
    """The verdict on a schedule with a packed `head`, and what it is about: (position, event, event), -1 for none."""
    data = _packed(head, bodies, streams)
    where = (ctypes.c_int * 3)()
    return Verdict(_library().decide(ctypes.c_void_p(data.ctypes.data), where)), (where[0], where[1], where[2])


def execute(head: list[int], bodies: list[list[Event]], seed: int) -> list[tuple[int, int]]:
    """A random execution at position 0: (SM, place in its body) of each event that completes, in that order."""
    data = _packed(head, bodies, [[] for _ in bodies])
    place = [(sm, i) for sm, body in enumerate(bodies) for i in range(len(body))]
    order = (ctypes.c_int * len(place))()
    count = _library().execute(ctypes.c_void_p(data.ctypes.data), ctypes.c_uint(seed), order)
    return [place[e] for e in order[:count]]


def _packed(head: list[int], bodies: list[list[Event]], streams: list[list[tuple[int, int]]]) -> NDArray[np.int32]:
    data = [*head, len(bodies)]
    for body in bodies:
        data.append(len(body))
        for event in body:
            match event:
                case ("run", family, task):
                    data += (0, family, task)
                case ("wait", counter, threshold):
                    data += (1, counter, threshold or 0)
                case (_, counter):
                    data += (2, counter, 0)
    for stream in streams:
        data.append(2 * len(stream))
        for entry in stream:
            data += entry
    return np.array(data, np.int32)


@cache
def _library() -> ctypes.CDLL:
    """The compiled oracle, kept in the user's temporary folder under the hash of its source."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"amk-oracles-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"direct_oracle-{digest}.so"
    if not library.exists():
        partial = library.with_suffix(f".{os.getpid()}")
        command = ["g++", "-O2", "-std=c++17", "-shared", "-fPIC", str(_SOURCE), "-o", str(partial)]
        subprocess.run(command, check=True)
        partial.replace(library)
    return ctypes.CDLL(str(library))
