"""A timeline as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import base64
import html
import json
import math
import re
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .summary import TraceSummary
from .timeline import Floats, Timeline

COLUMNS = ("ends", "points", "indices", "owners", "pushed", "landed", "read", "fetches")
"""The packed columns, each little-endian u32 with the values of all SMs: ends and pushed in ns after the one before,
landed and read in ns after pushed; page.js reads them."""


def timeline_html(timeline: Timeline, summary: TraceSummary) -> str:
    """The page."""
    facts = timeline.facts
    parts = {
        "title": html.escape(f"{facts.model}, context {facts.context}: trace"),
        "style": _file("page.css").rstrip(),
        # inside a script element only its end tag ends it
        "header": json.dumps(_header(timeline, summary), separators=(",", ":")).replace("<", "\\u003c"),
        "columns": base64.b64encode(zlib.compress(_columns(timeline), 6)).decode(),
        "script": _file("page.js").rstrip(),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _file("page.html"))


@cache
def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _columns(timeline: Timeline) -> bytes:
    columns: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in COLUMNS}
    for sm in timeline.sms:
        columns["ends"].append(np.diff(_whole(sm.ends), prepend=round(float(sm.starts[0])) if len(sm.starts) else 0))
        columns["points"].append(sm.points)
        columns["indices"].append(sm.indices)
        columns["owners"].append(sm.owners)
        pushed = _whole(sm.pushed)
        columns["pushed"].append(np.diff(pushed, prepend=0))
        columns["landed"].append(np.maximum(0, _whole(sm.landed) - pushed))
        columns["read"].append(np.maximum(0, _whole(sm.read) - pushed))
        columns["fetches"].append(sm.fetches)
    return b"".join(np.concatenate(columns[name]).astype("<u4").tobytes() for name in COLUMNS)


def _whole(times: Floats) -> np.ndarray[Any, Any]:
    # a load may be started before the first consumer notes the start of the step
    return np.maximum(0, np.round(times)).astype(np.int64)


def _header(timeline: Timeline, summary: TraceSummary) -> dict[str, Any]:
    facts = timeline.facts
    return {
        "facts": {
            "model": facts.model,
            "device": facts.device,
            "sms": facts.sms,
            "context": facts.context,
            "detail": facts.detail,
            "stages": facts.stages,
            "doubt": timeline.doubt,
            "untraced_us": _number(summary.untraced_us),
            "traced_us": _number(summary.traced_us),
            "overhead": _number(summary.overhead),
        },
        "length": math.ceil(timeline.length),
        "points": [{"text": p.text, "operation": p.operation, "loops": p.loops} for p in facts.points],
        "spent": [kind.value for kind in timeline.spent],
        "operations": timeline.operations,
        "texts": facts.operations,
        "starts": [round(float(sm.starts[0])) if len(sm.starts) else 0 for sm in timeline.sms],
        "intervals": [len(sm.ends) for sm in timeline.sms],
        "loads": [len(sm.pushed) for sm in timeline.sms],
        "shares": summary.shares,
        "summary": [
            {
                "owner": owner,
                "name": operation.name,
                "runs": operation.runs,
                "median_us": _number(operation.median_us),
                "p90_us": _number(operation.p90_us),
                "shares": operation.shares,
            }
            for owner, operation in enumerate(summary.operations)
            if owner
        ],
    }


def _number(value: float) -> float | None:
    """`value` for JSON, which has no NaN."""
    return value if math.isfinite(value) else None
