"""Traces made by hand, whose times are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from amk.backends.cuda.trace_points import (
    FIXED_POINTS,
    LANDED,
    POINT_BITS,
    PUSHED,
    STAGE_DONE,
    STAGE_READY,
    TIME,
    TIMER_NS,
    PointKind,
    TraceDetail,
    TracePoint,
)
from amk.backends.cuda.tracing import BlockTrace, TraceRow
from amk.tools.trace.raw import RawTrace, TraceFacts

LAYERS = 40
_LOOPS = (("layer", LAYERS),)
_QKV, _DOWN = "queue.run @linear_q[layer] on cyclic 0", "queue.run @linear_down[layer] on cyclic 0"
POINTS = (
    *FIXED_POINTS,
    TracePoint(PointKind.WORK, "start of the step"),
    TracePoint(PointKind.WORDS, "the read of @x[layer, 0:1, 0:64]", "", _LOOPS),
    TracePoint(PointKind.WORK, "activations", f"{_QKV}, queue.run @linear_k[layer] on cyclic 0", _LOOPS),
    TracePoint(PointKind.WORK, "products", _QKV, _LOOPS),
    TracePoint(PointKind.WORK, "results", _QKV, _LOOPS),
    TracePoint(PointKind.WORK, "signal", "queue.signal @done[layer]", _LOOPS),
    TracePoint(PointKind.COUNTER, "wait for counters", "queue.wait @done[layer]", _LOOPS),
    TracePoint(PointKind.WORK, "activations", _DOWN, _LOOPS),
    TracePoint(PointKind.WORK, "products", _DOWN, _LOOPS),
    TracePoint(PointKind.WORK, "results", _DOWN, _LOOPS),
)
START, WORDS, ACTIVATIONS, PRODUCTS, RESULTS, SIGNAL, COUNTERS, DOWN, *_ = range(len(FIXED_POINTS), len(POINTS))
OPERATIONS = (
    "queue.fetch @linear_q",
    "queue.fetch @linear_down",
    "task.stream in @linear_q, consumed",
    "task.stream in @linear_down, consumed",
)
STAGES_EACH = 2


def facts(detail: TraceDetail = "stages", sms: int = 4, **more: Any) -> TraceFacts:
    """What a synthetic trace says of itself."""
    fields: dict[str, Any] = {
        "model": "synthetic",
        "device": "a GPU made by hand",
        "target": "sm_90a",
        "sms": sms,
        "context": 16,
        "detail": detail,
        "stages": 4,
        "stage_bytes": 16384,
        "untraced_us": (10.0, 11.0, 12.0),
        "traced_us": (10.1, 11.11, 12.3),
        "points": POINTS,
        "operations": OPERATIONS,
    }
    return TraceFacts(**{**fields, **more})


def times_of(sm: int) -> tuple[list[tuple[float, int, int]], list[tuple[float, int, int]]]:
    """(consumers' and producer's) events of an SM in ns: (time, point, index), with all stages."""
    now, consumers, producer = 100.0 + sm, [(100.0 + sm, START, 0)], []
    for layer in range(LAYERS):
        for operation in range(2):
            waits = WORDS if operation == 0 else COUNTERS
            first = ACTIVATIONS if operation == 0 else DOWN
            consumers += [(now + 300, waits, layer), (now + 350, first, layer)]
            now += 350
            for _ in range(STAGES_EACH):
                producer += [(now - 200, PUSHED, operation), (now + 30, LANDED, 0), (now - 190, TIME, 0)]
                consumers += [(now + 40, STAGE_READY, 2 + operation), (now + 200, STAGE_DONE, 0)]
                now += 200
            consumers += [(now + 20, first + 1, layer), (now + 70, first + 2, layer)]
            if operation == 0:
                consumers.append((now + 90, SIGNAL, layer))
            now += 90
    producer.sort()
    return consumers, producer


def synthetic(
    detail: TraceDetail = "stages",
    sms: int = 4,
    ghz: float = 1.75,
    resolution: int = 32,
    first_clock: int = 2**32 - 900,
    slowdown: float = 0.0,
) -> RawTrace:
    """A trace whose SMs started their clocks at different times, every other one 1% faster, and whose timer ticks every
    `resolution` ns. slowdown: share by which SM 1 is slower for the first 30 us."""
    rng, epoch = np.random.default_rng(0), 1_763_781_600_000_000_777 // resolution * resolution
    blocks: list[BlockTrace] = []
    for sm in range(sms):
        offset = first_clock + int(rng.integers(0, 2000)) * sm
        own, slow = ghz * (1 + sm % 2 / 100), slowdown if sm == 1 else 0.0

        def clock(ns: float, offset: int = offset, own: float = own, slow: float = slow) -> int:
            return (offset + round((ns - min(ns, 30_000.0) * slow) * own)) % 2**32

        def timer(ns: float) -> int:
            return epoch + int(ns // resolution) * resolution

        def row(events: list[tuple[float, int, int]]) -> TraceRow:
            clocks = np.array([clock(ns) for ns, _, _ in events], np.uint32)
            indices = [(timer(ns) // TIMER_NS) % (1 << 20) if point == TIME else n for ns, point, n in events]
            codes = [point | index << POINT_BITS for (_, point, _), index in zip(events, indices, strict=True)]
            codes = np.array(codes, np.uint32)
            return TraceRow(clocks, codes, 0)

        consumers, producer = times_of(sm)
        if detail == "phases":
            consumers = [event for event in consumers if event[1] not in (STAGE_READY, STAGE_DONE)]
        begin, end = 90.0 + 3 * sm, -(-(producer[-1][0] + 5 * sm) // resolution) * resolution
        blocks.append(
            BlockTrace(
                row(consumers),
                row(producer),
                timer(begin),
                clock(begin),
                epoch + int(end),
                clock(end),
                resolution * (1 + sm % 2),
            )
        )
    return RawTrace(facts(detail, sms), tuple(blocks))
