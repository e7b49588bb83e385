"""A trace as the device took it, and as a file: enough to draw it again without a GPU."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.errors import TraceError
from ...backends.cuda.trace_points import FIXED_POINTS, POINT_BITS, PointKind, TraceDetail, TracePoint
from ...backends.cuda.tracing import BlockTrace, TraceRow
from ...runtime.files import write_atomically

VERSION = 2
"""Of the files."""
_HEADER = "header"
_COLUMNS = {"clocks": np.uint32, "codes": np.uint32, "lengths": np.int64, "dropped": np.int64, "anchors": np.uint64}


@dataclass(frozen=True)
class TraceFacts:
    """What was traced. times: microseconds of a step, each launch, of both kernels in turns. device: name of the GPU.

    stages: of the weight ring, each of `stage_bytes`. operations: text of those that points refer to.
    """

    model: str
    device: str
    target: str
    sms: int
    context: int
    detail: TraceDetail
    stages: int
    stage_bytes: int
    untraced_us: tuple[float, ...]
    traced_us: tuple[float, ...]
    points: tuple[TracePoint, ...]
    operations: tuple[str, ...]


@dataclass(frozen=True)
class RawTrace:
    """One traced step: what was traced, and what each block noted."""

    facts: TraceFacts
    blocks: tuple[BlockTrace, ...]


def write_raw(path: Path, trace: RawTrace) -> None:
    """Writes `trace` as an .npz file, whole or not at all; StorageError."""
    rows = [row for block in trace.blocks for row in (block.consumers, block.producer)]
    anchors = [[b.begin_ns, b.begin_clock, b.align_ns, b.align_clock, b.tick_ns] for b in trace.blocks]
    header = {"amk_trace": VERSION, **asdict(trace.facts)}
    content = io.BytesIO()
    np.savez_compressed(
        content,
        clocks=np.concatenate([row.clocks for row in rows]),
        codes=np.concatenate([row.codes for row in rows]),
        lengths=np.array([len(row.clocks) for row in rows], np.int64),
        dropped=np.array([row.dropped for row in rows], np.int64),
        anchors=np.array(anchors, np.uint64),
        header=np.frombuffer(json.dumps(header).encode(), np.uint8),
    )
    write_atomically(path, content.getvalue())


def read_raw(path: Path) -> RawTrace:
    """The trace that `write_raw` wrote to `path`.

    Raises TraceError: no such file, another kind of file, another version, or content that contradicts itself.
    """
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            columns: dict[str, NDArray[Any]] = {name: file[name] for name in (*_COLUMNS, _HEADER)}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else "it is no .npz file of `amk trace -o`"
        raise TraceError(f"{path}: cannot be read as a trace: {reason}") from e
    facts = _facts(path, columns[_HEADER])
    for name, kind in _COLUMNS.items():
        if columns[name].dtype != kind:
            raise TraceError(
                f"{path}: column '{name}' of a trace: expected {np.dtype(kind)}, found {columns[name].dtype}"
            )
    lengths, anchors = columns["lengths"], columns["anchors"]
    events = len(columns["clocks"])
    consistent = (
        lengths.shape == columns["dropped"].shape == (2 * facts.sms,)
        and anchors.shape == (facts.sms, 5)
        and columns["codes"].shape == columns["clocks"].shape == (events,)
        and bool((lengths >= 0).all())
        and int(lengths.sum()) == events
    )
    known = len(facts.points)
    if not consistent or (events and int((columns["codes"] & ((1 << POINT_BITS) - 1)).max()) >= known):
        raise TraceError(f"{path}: its columns do not fit {facts.sms} SMs and {known} points; trace again")
    ends = np.cumsum(lengths)
    rows = [
        TraceRow(columns["clocks"][end - n : end], columns["codes"][end - n : end], int(dropped))
        for end, n, dropped in zip(ends, lengths, columns["dropped"], strict=True)
    ]
    return RawTrace(
        facts,
        tuple(
            BlockTrace(rows[2 * sm], rows[2 * sm + 1], *(int(word) for word in anchor))
            for sm, anchor in enumerate(anchors)
        ),
    )


def _facts(path: Path, header: NDArray[Any]) -> TraceFacts:
    try:
        fields = dict(json.loads(header.tobytes()))
        version = fields.pop("amk_trace")
        if version != VERSION:
            raise TraceError(f"{path}: a trace of version {version!r}, this AMK reads version {VERSION}; trace again")
        points = tuple(
            TracePoint(
                PointKind(p["kind"]),
                str(p["text"]),
                str(p["operation"]),
                tuple((str(name), int(extent)) for name, extent in p["loops"]),
            )
            for p in fields.pop("points")
        )
        facts = TraceFacts(
            model=str(fields["model"]),
            device=str(fields["device"]),
            target=str(fields["target"]),
            sms=int(fields["sms"]),
            context=int(fields["context"]),
            detail="stages" if fields["detail"] == "stages" else "phases",
            stages=int(fields["stages"]),
            stage_bytes=int(fields["stage_bytes"]),
            untraced_us=tuple(float(t) for t in fields["untraced_us"]),
            traced_us=tuple(float(t) for t in fields["traced_us"]),
            points=points,
            operations=tuple(str(text) for text in fields["operations"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise TraceError(f"{path}: the header of a trace cannot be read ({type(e).__name__}: {e}); trace again") from e
    if facts.points[: len(FIXED_POINTS)] != FIXED_POINTS or facts.sms < 1 or facts.stages < 1:
        raise TraceError(f"{path}: the header of a trace contradicts itself; trace again")
    return facts
