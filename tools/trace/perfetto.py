"""A timeline in the Chrome trace event format, which ui.perfetto.dev and chrome://tracing open.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

from .timeline import SmTimeline, Spent, Timeline, occupancy

CONSUMERS, LOADS, RING = 1, 2, 3
"""Processes: the SMs' consumers; their loads; how full their rings are."""


def perfetto_events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """The trace events: times in microseconds, an SM is a thread of each process."""
    for process, name in ((CONSUMERS, "consumers"), (LOADS, "weight loads"), (RING, "weight ring")):
        yield _metadata("process_name", process, 0, name=name)
        yield _metadata("process_sort_index", process, 0, sort_index=process)
    for number, sm in enumerate(timeline.sms):
        for process in (CONSUMERS, LOADS):
            yield _metadata("thread_name", process, number, name=f"SM {number}")
            yield _metadata("thread_sort_index", process, number, sort_index=number)
        yield from _consumers(timeline, number, sm)
        yield from _loads(timeline, number, sm)
        yield from _ring(number, sm)


def perfetto_json(timeline: Timeline, *, compress: bool = False) -> bytes:
    """The file; compress: with gzip, which Perfetto opens as well."""
    facts = timeline.facts
    head = {
        "displayTimeUnit": "ns",
        "otherData": {
            "model": facts.model,
            "device": facts.device,
            "target": facts.target,
            "context": facts.context,
            "detail": facts.detail,
        },
    }
    events = ",\n".join(json.dumps(event, separators=(",", ":")) for event in perfetto_events(timeline))
    text = json.dumps(head)[:-1] + ', "traceEvents": [\n' + events + "\n]}\n"
    return gzip.compress(text.encode(), 6, mtime=0) if compress else text.encode()


def _metadata(kind: str, process: int, thread: int, **args: Any) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": args}


def _us(ns: float) -> float:
    """Microseconds, of whole ns: so that what ends where the next one starts does so in the file."""
    return round(ns) / 1e3


def interval_name(timeline: Timeline, point: int, owner: int) -> str:
    """What an interval is called: the operation for work, what was waited for otherwise."""
    operation, text = timeline.operations[owner], timeline.facts.points[point].text
    kind = timeline.spent[point]
    if kind is Spent.WORK:
        return f"{operation}: {text}" if owner else text
    return f"{kind.value} ({operation})"


def _consumers(timeline: Timeline, number: int, sm: SmTimeline) -> Iterator[dict[str, Any]]:
    points = timeline.facts.points
    columns = (sm.starts, sm.ends, sm.points, sm.indices, sm.owners)
    for start, end, point, index, owner in zip(*(column.tolist() for column in columns), strict=True):
        described = points[point]
        args: dict[str, Any] = {"what": described.text}
        if described.operation:
            args["ir"] = described.operation
        if described.loops:
            args |= loop_indices(described.loops, index)
        elif timeline.spent[point] is Spent.RING:
            args["ir"] = timeline.facts.operations[index]
        yield {
            "ph": "X",
            "name": interval_name(timeline, point, owner),
            "cat": timeline.spent[point].value,
            "pid": CONSUMERS,
            "tid": number,
            "ts": _us(start),
            "dur": _us(round(end) - round(start)),
            "args": args,
        }


def loop_indices(loops: tuple[tuple[str, int], ...], index: int) -> dict[str, int]:
    """The index of each loop in an iteration whose row-major number is `index`."""
    result: dict[str, int] = {}
    for name, extent in reversed(loops):
        index, result[name] = divmod(index, extent)
    return dict(reversed(result.items()))


def _loads(timeline: Timeline, number: int, sm: SmTimeline) -> Iterator[dict[str, Any]]:
    """Loads overlap, so they are asynchronous events; the names of their ids begin with the SM."""
    for stage, (pushed, landed, fetch) in enumerate(
        zip(sm.pushed.tolist(), sm.landed.tolist(), sm.fetches.tolist(), strict=True)
    ):
        name = timeline.facts.operations[fetch]
        common = {"name": name, "cat": "load", "pid": LOADS, "tid": number, "id": f"{number}.{stage}"}
        yield {"ph": "b", **common, "ts": _us(pushed), "args": {"stage": stage}}
        yield {"ph": "e", **common, "ts": _us(max(pushed, landed))}


def _ring(number: int, sm: SmTimeline) -> Iterator[dict[str, Any]]:
    name = f"SM {number} ring"
    for time, loading, ready in zip(*(column.tolist() for column in occupancy(sm)), strict=True):
        args = {"ready": ready, "loading": loading}
        yield {"ph": "C", "name": name, "pid": RING, "tid": number, "ts": _us(time), "args": args}
