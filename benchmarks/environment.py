"""Where the results of a benchmark are written, with what they were measured with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from amk.runtime.files import write_atomically
from amk.tools.bench.environment import environment


def write(path: str | None, benchmark: str, results: Any) -> None:
    """Writes `results` with the environment to `path`, whole or not at all; nothing without a path."""
    if path is not None:
        record = {"benchmark": benchmark, "environment": environment(), "results": results}
        write_atomically(Path(path), (json.dumps(record, indent=1) + "\n").encode())
