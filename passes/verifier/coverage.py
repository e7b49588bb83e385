"""Who writes what a task reads: every element written before it is read, and written once.

The result, besides diagnostics, is the list of dependences that an execution has to respect, as pairs of regions that
overlap. Whether it does is decided in `races`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...amk_ir.access import Dim
from ...amk_ir.attrs import BufferKind
from ...amk_ir.linear import POSITION
from .arrangement import Part, arrangement
from .arrays import Bools, Ints, distinct, ranges
from .diagnostics import Diagnostic
from .failures import Failure, FailureKind, Rule
from .regions import Boxes, BufferAccesses, RegionSet
from .timeline import Timeline


@dataclass(frozen=True)
class Overlaps:
    """Which regions of a buffer overlap at one position.

    reader, writer: read and write regions that share elements, sorted by reader. first, second: write regions that do
    (state only: elsewhere it is an error). parts: the arrangement, with sets (writes, reads, history).
    """

    accesses: BufferAccesses
    position: int
    parts: tuple[Part, ...]
    reader: Ints
    writer: Ints
    first: Ints
    second: Ints


def history(accesses: BufferAccesses, position: int, tokens: int) -> Boxes:
    """The elements of a state buffer that earlier steps have certainly written before a step at `position`.

    The first step is at position 0, each next one at most `tokens` further (a step may have rows that do not count).
    A row r = q + c + i, i < size, of a write `[pos + c : size]` is written by the step at q. With size >= tokens, no
    sequence of steps jumps over row r unless it has not come far enough: [c, max(position + size - tokens, size) + c).
    With fewer, only the step at 0 is certain. A write that does not depend on the position was done by that step.

    Writes whose box grows with the position, or moves in several dimensions, or faster, are not counted.
    """
    found: list[Boxes] = []
    if accesses.kind is BufferKind.STATE and position > 0:
        for site in accesses.writes.sites:
            moving = [a for a, d in enumerate(site.access.dims) if POSITION in (d.start.names | d.size.names)]
            boxes = site.boxes(0)
            if not moving:
                found.append(boxes)
            elif len(moving) == 1 and _moves_by_one(site.access.dims[moving[0]]):
                axis, dim = moving[0], site.access.dims[moving[0]]
                size = dim.size.constant
                boxes.high[:, axis] = boxes.low[:, axis] + max(position * (size >= tokens) + size - tokens, size)
                if dim.limit is not None:
                    boxes.high[:, axis] = np.minimum(boxes.high[:, axis], dim.limit)
                boxes.high[:, axis] = np.minimum(boxes.high[:, axis], accesses.shape[axis])
                found.append(boxes)
    result = Boxes.concatenate(found, len(accesses.shape))
    return result.take(np.flatnonzero((result.low < result.high).all(axis=1)))


def _moves_by_one(dim: Dim) -> bool:
    return dim.start.coefficient(POSITION) == 1 and dim.size.is_constant


def overlaps(accesses: BufferAccesses, position: int, tokens: int) -> Overlaps:
    """Intersects all regions of a buffer at one position."""
    sets = (accesses.writes.boxes(position), accesses.reads.boxes(position), history(accesses, position, tokens))
    parts = tuple(arrangement(accesses.shape, sets))
    writes = len(sets[0])
    read_pairs: list[Ints] = [np.zeros(0, np.int64)]
    write_pairs: list[Ints] = [np.zeros(0, np.int64)]
    for part in parts:
        write, write_cell = part.cover(0)
        read, read_cell = part.cover(1)
        order = np.argsort(write_cell, kind="stable")
        write, counts = write[order], np.bincount(write_cell, minlength=part.cells)
        starts = np.cumsum(counts) - counts
        read_pairs.append(_pairs(read, read_cell, write, starts, counts, writes))
        if (counts > 1).any():
            shared = counts[write_cell[order]] > 1
            write_pairs.append(_pairs(write[shared], write_cell[order][shared], write, starts, counts, writes))
    both = distinct(np.concatenate(read_pairs))
    twice = distinct(np.concatenate(write_pairs))
    first, second = twice // max(writes, 1), twice % max(writes, 1)
    return Overlaps(
        accesses,
        position,
        parts,
        both // max(writes, 1),
        both % max(writes, 1),
        first[first < second],
        second[first < second],
    )


def _pairs(box: Ints, cell: Ints, write: Ints, starts: Ints, counts: Ints, writes: int) -> Ints:
    """`box * writes + write` for every write of a cell of a box; each cell's writes are write[starts:][:counts]."""
    repeats = counts[cell]
    return distinct(np.repeat(box, repeats) * writes + write[ranges(starts[cell], repeats)])


def check_written_once(timeline: Timeline, found: Overlaps) -> Iterator[Diagnostic]:
    """Every element of an output is written exactly once in a step, of a scratch buffer at most once."""
    accesses = found.accesses
    if accesses.kind is BufferKind.STATE:
        return
    if len(found.first):
        writers = [int(found.first[0]), int(found.second[0])]
        events = [event_of(accesses.writes, w) for w in writers]
        tasks = [timeline.task(e) for e in events]
        regions = [region_text(accesses.writes, w, found.position) for w in writers]
        shared = intersection(*(accesses.writes.access(w).box({POSITION: found.position}) for w in writers))
        yield Diagnostic(
            Rule.WRITTEN_ONCE,
            f"tasks {tasks[0]} ({timeline.place(events[0])}) and {tasks[1]} ({timeline.place(events[1])}) both write "
            f"{box_text(accesses.name, shared)}",
            "shrink one of the two regions, or let one of the tasks write to a buffer of its own",
            execution="what a reader sees depends on which of the two came last",
            ops=tuple(accesses.writes.site(w).op for w in writers),
            sms=tuple(int(timeline.sm[e]) for e in events),
            tasks=tuple(tasks),
            regions=tuple(regions),
            occurrences=len(found.first),
            failure=Failure(FailureKind.REWRITE, found.position, tuple(events), accesses.name, shared),
        )
    if accesses.kind is BufferKind.OUTPUT:
        missing: list[tuple[tuple[int, int], ...]] = []
        for part in found.parts:
            _, cell = part.cover(0)
            holes = np.flatnonzero(np.bincount(cell, minlength=part.cells) == 0)
            missing += [part.box_of(int(c)) for c in holes[:100]]
        if missing:
            region = box_text(accesses.name, missing[0])
            yield Diagnostic(
                Rule.COVERAGE,
                f"no task writes {region} of the output @{accesses.name}{_at(accesses, found.position)}",
                f"let the stores to @{accesses.name} cover all of it",
                execution="the host reads what an earlier step left there",
                ops=(accesses.buffer,),
                regions=(region,),
                occurrences=len(missing),
                failure=Failure(FailureKind.UNWRITTEN_OUTPUT, found.position, (), accesses.name, missing[0]),
            )


def check_read_before_written(
    timeline: Timeline, found: Overlaps, before: tuple[Ints, Ints, int | None] | None = None
) -> Iterator[Diagnostic]:
    """Every element that is read was written: in this step, or, in a state buffer, by earlier ones.

    `before`: look only at some read regions, and count only the given write regions: (read regions, write regions, the
    task at whose event they are read, None for the first of each).
    """
    accesses = found.accesses
    if not len(accesses.reads):
        return
    uncovered: dict[int, tuple[tuple[int, int], ...]] = {}
    for part in found.parts:
        write, write_cell = part.cover(0)
        read, read_cell = part.cover(1)
        if before is not None:
            write_cell = write_cell[np.isin(write, before[1])]
            mine = np.isin(read, before[0])
            read, read_cell = read[mine], read_cell[mine]
        written: Bools = np.zeros(part.cells, np.bool_)
        written[part.cover(2)[1]] = True
        written[write_cell] = True
        bad = ~written[read_cell]
        for region, cell in zip(read[bad].tolist(), read_cell[bad].tolist(), strict=True):
            if region not in uncovered:
                uncovered[region] = part.box_of(cell)
    by_op: dict[int, list[int]] = {}
    for region in uncovered:
        by_op.setdefault(id(accesses.reads.site(region).op), []).append(region)
    for regions in by_op.values():
        region = regions[0]
        event = None if before is None else before[2]
        event = event_of(accesses.reads, region) if event is None else event
        text = box_text(accesses.name, uncovered[region])
        whole = region_text(accesses.reads, region, found.position)
        verb, lacks, remedy = (
            "reads",
            "not written before in this step",
            f"let a task write {text} before, or shrink the load",
        )
        if accesses.kind is BufferKind.STATE:
            lacks += ", nor certainly by earlier steps"
        if accesses.reads.streamed[region]:  # whatever this step writes may come after the load
            verb, lacks = "streams", "not certainly written by earlier steps"
            remedy = f"let earlier steps write {text}, or shrink the tile; load what this step writes, do not stream it"
        ends = "waits forever for words that nobody writes" if accesses.tagged else "reads what nobody has written"
        yield Diagnostic(
            Rule.COVERAGE,
            f"task {timeline.task(event)} ({timeline.place(event)}) {verb} {whole}, but {text} is {lacks}"
            f"{_at(accesses, found.position)}",
            remedy,
            execution=f"the task {ends}",
            ops=(accesses.reads.site(region).op,),
            sms=(int(timeline.sm[event]),),
            tasks=(timeline.task(event),),
            regions=(text, whole),
            occurrences=len(regions),
            failure=Failure(
                FailureKind.DEADLOCK if accesses.tagged else FailureKind.UNWRITTEN_READ,
                found.position,
                (event,),
                accesses.name,
                uncovered[region],
            ),
        )


def event_of(regions: RegionSet, region: int) -> int:
    """The first event that accesses a region."""
    region_of, event = regions.accesses
    return int(event[np.searchsorted(region_of, region)])


def region_text(regions: RegionSet, region: int, position: int) -> str:
    """A region with its indices filled in, and the position where it matters: `@k[3, pos : 1] at pos = 0`."""
    access = regions.access(region)
    return f"{access} at {POSITION} = {position}" if POSITION in access.names else str(access)


def box_text(buffer: str, box: tuple[tuple[int, int], ...]) -> str:
    """A box as an access would be written."""
    return f"@{buffer}[{', '.join(str(a) if b == a + 1 else f'{a} : {b - a}' for a, b in box)}]"


def _at(accesses: BufferAccesses, position: int) -> str:
    return f" at {POSITION} = {position}" if accesses.depends_on_position else ""


def intersection(
    first: tuple[tuple[int, int], ...], second: tuple[tuple[int, int], ...]
) -> tuple[tuple[int, int], ...]:
    """The elements of both boxes."""
    return tuple((max(a[0], b[0]), min(a[1], b[1])) for a, b in zip(first, second, strict=True))
