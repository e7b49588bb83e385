"""The enumeration oracle in C++ (enumeration.cpp), for many kernels at a time. It shares no code with the verifier."""

import ctypes
import hashlib
import os
import subprocess
import tempfile
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from .small_kernels import Box, Kernel

STATE_LIMIT = 300_000
"""States of one kernel after which it is given up."""

_SOURCE = Path(__file__).with_name("enumeration.cpp")
_BUFFER_KINDS = ("scratch", "scratch tagged", "state", "output")
_EVENT_KINDS = {"run": 0, "wait": 1, "signal": 2}
_DECIDED, _OVER_LIMIT = 0, 1
PROBLEMS = ("", "stream", "deadlock", "written twice", "output", "write race", "race", "coverage")


@dataclass(frozen=True)
class Verdict:
    """decided: neither the states nor the parts of the kernel were too many. problem: the first that was found, "" of a safe kernel; position: where.

    deadlock: at any position, whatever else is wrong. tags_rewritten: tagged words are written twice in a step, and so do
    not say when their readers may go on. states: how many were visited.
    """

    decided: bool
    problem: str
    position: int
    deadlock: bool
    tags_rewritten: bool
    states: int


def decide(kernels: Sequence[Kernel], limit: int = STATE_LIMIT) -> list[Verdict]:
    """Decides kernels whose tasks each run once."""
    data, offsets = array("i"), np.zeros(len(kernels), np.int64)
    for number, kernel in enumerate(kernels):
        offsets[number] = len(data)
        _pack(kernel, data)
    numbers = np.frombuffer(data, np.int32) if data else np.zeros(0, np.int32)
    verdicts, visited = np.zeros((len(kernels), 4), np.int32), np.zeros(len(kernels), np.int64)
    _library().decide(
        *(ctypes.c_void_p(a.ctypes.data) for a in (numbers, offsets)),
        len(kernels),
        ctypes.c_int64(limit),
        *(ctypes.c_void_p(a.ctypes.data) for a in (verdicts, visited)),
    )
    result: list[Verdict] = []
    for (status, problem, flags, position), states in zip(verdicts.tolist(), visited.tolist(), strict=True):
        if status not in (_DECIDED, _OVER_LIMIT):
            raise ValueError("a kernel accesses what is not in a buffer")
        result.append(
            Verdict(status == _DECIDED, PROBLEMS[problem], position, bool(flags & 1), bool(flags & 2), states)
        )
    return result


def _pack(kernel: Kernel, data: array) -> None:
    """Appends a kernel in the format that `Kernel` in enumeration.cpp reads."""
    names = list(kernel.buffers)
    data.extend((kernel.tokens, kernel.max_seq, len(names)))
    for kind, shape in kernel.buffers.values():
        data.extend((_BUFFER_KINDS.index(kind), len(shape), *shape))
    data.append(len(kernel.families))
    for family in kernel.families:
        data.append(family.streams)
        for boxes in (family.reads, family.writes):
            data.append(len(boxes))
            for box in boxes:
                data.extend(_packed(box, names))
    data.extend((kernel.counters, len(kernel.queues)))
    for queue in kernel.queues:
        data.append(len(queue))
        for kind, ref, *rest in queue:
            data.extend((_EVENT_KINDS[kind], ref, -1 if rest == [None] else rest[0] if rest else 0))
    for fetches in kernel.fetches:
        data.append(len(fetches))
        for fetch in fetches:
            data.extend(fetch)


def _packed(box: Box, names: list[str]) -> list[int]:
    return [names.index(box.buffer), int(box.streamed), *(n for start, size in box.dims for n in (*start, *size))]


@cache
def _library() -> ctypes.CDLL:
    """The compiled oracle; compiled once for each version of its source."""
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"amk_enumeration_{os.getuid()}_{digest}.so"
    if not target.exists():
        partial = target.with_suffix(f".{os.getpid()}.partial")
        subprocess.run(
            ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", _SOURCE, "-o", partial],
            check=True,
        )
        partial.replace(target)
    return ctypes.CDLL(str(target))
