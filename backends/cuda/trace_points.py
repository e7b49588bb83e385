"""The points of a traced kernel at which a block takes a timestamp, and the text that takes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from math import prod
from typing import Literal, TypeAlias

from .coordinates import LOOP_PREFIX
from .source import SourceWriter

TraceDetail: TypeAlias = Literal["phases", "stages"]
"""What a traced kernel notes of its consumers: the parts of each phase, or each stage of the weight ring as well."""

POINT_BITS = 12
"""Bits of an event's code for its point; as in device/trace.cuh."""
TIMER_NS = 32
"""Unit of the indices of TIME; as in device/trace.cuh."""
TRACE_HEADER = 5
"""Words before the events of a row; as in device/trace.cuh."""


class PointKind(StrEnum):
    """What the time was spent on that ends at a point."""

    WORK = "work"
    RING = "ring"
    """Waited for a stage of the weight ring."""
    WORDS = "words"
    """Waited for tagged words, the latency of loading them included."""
    COUNTER = "counter"
    """Waited for counters."""
    PRODUCER = "producer"
    """Of a producer's row: a stage was pushed or has landed, or the time."""


@dataclass(frozen=True)
class TracePoint:
    """What ends at a timestamp.

    text: what it was. operation: the IR that it belongs to. loops: (index, extent) of the loops around it, outermost
    first; the index of an event numbers their iterations in row-major order. At STAGE_READY, PUSHED and PUSHED_NEXT it numbers
    `KernelPlan.operations`, at TIME it is the GPU's timer in units of TIMER_NS, without its higher bits.
    """

    kind: PointKind
    text: str
    operation: str = ""
    loops: tuple[tuple[str, int], ...] = ()


STAGE_READY, STAGE_DONE, PUSHED, LANDED, PUSHED_NEXT, TIME = range(6)
"""Numbers of the points that the device library knows; as in device/trace.cuh."""
FIXED_POINTS = (
    TracePoint(PointKind.RING, "wait for the ring"),
    TracePoint(PointKind.WORK, "a stage was read"),
    TracePoint(PointKind.PRODUCER, "load of a stage started"),
    TracePoint(PointKind.PRODUCER, "load of a stage landed"),
    TracePoint(PointKind.PRODUCER, "load of a stage landed, and that of another one started"),
    TracePoint(PointKind.PRODUCER, "the GPU's timer"),
)


@dataclass
class TraceWriter:
    """Writes the timestamps of one kernel, or nothing where `detail` is None. loops: those around what is written."""

    detail: TraceDetail | None = None
    points: list[TracePoint] = field(default_factory=lambda: list(FIXED_POINTS))
    loops: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])

    @property
    def is_on(self) -> bool:
        return self.detail is not None

    @property
    def has_stages(self) -> bool:
        return self.detail == "stages"

    def write_defines(self, source: SourceWriter) -> None:
        """What device/trace.cuh asks for."""
        if self.detail is not None:
            source.line("#define AMK_TRACED")
        if self.has_stages:
            source.line("#define AMK_TRACED_STAGES")

    def write_begin(self, source: SourceWriter, row: int, name: str) -> None:
        """Gives `name` the row of the consumers (0) or of the producer (1)."""
        if self.detail is not None:
            source.line(f"{name} = Trace::of_row(p.trace, {row}, p.trace_events);")

    def write(self, source: SourceWriter, statement: str) -> None:
        """A statement of a traced kernel."""
        if self.detail is not None:
            source.line(statement)

    def mark(self, source: SourceWriter, text: str, operation: str = "", kind: PointKind = PointKind.WORK) -> None:
        """A timestamp of what ends here."""
        self._point(source, "mark", text, operation, kind)

    def read(self, source: SourceWriter) -> None:
        """Reads the time of an event, which `store` names before the next one: the clock takes some cycles to answer."""
        self.write(source, "trace.read();")

    def store(self, source: SourceWriter, text: str, operation: str = "", kind: PointKind = PointKind.WORK) -> None:
        """A timestamp of what ended where `read` was written."""
        self._point(source, "store_as", text, operation, kind)

    def _point(self, source: SourceWriter, how: str, text: str, operation: str, kind: PointKind) -> None:
        if self.detail is None:
            return
        point = TracePoint(kind, text, operation, tuple((name, stop - start) for name, start, stop in self.loops))
        if point not in self.points:
            self.points.append(point)
        terms = [f"{self.points.index(point)}u"]
        for number, (name, start, _) in enumerate(self.loops):
            after = prod(stop - first for _, first, stop in self.loops[number + 1 :])
            index = f"static_cast<u32>({LOOP_PREFIX}{name}{f' - {start}' if start else ''})"
            terms.append(f"({index}{f' * {after}' if after > 1 else ''} << POINT_BITS)")
        source.line(f"trace.{how}({' + '.join(terms)});")
