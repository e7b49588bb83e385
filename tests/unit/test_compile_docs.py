"""The numbers of docs/compile.md are those of the recorded run."""

import json
import re
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]


def test_table_of_times():
    record = json.loads((ROOT / "benchmarks" / "results" / "compile_time.json").read_text())["results"]
    page = (ROOT / "docs" / "compile.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (none|\d+) \| (\w+) \| ([0-9.]+) \| ([0-9.]+) \| ([0-9.]+) \|$", page, re.MULTILINE)
    expected = [
        (
            "none" if of["chunk"] == 1 else str(of["chunk"]),
            kind,
            f"{median(run['cpu_s'] for run in runs):.1f}",
            f"{median(run['wall_s'] for run in runs):.1f}",
            f"{min(run['wall_s'] for run in runs):.1f}",
        )
        for of in record["configurations"]
        for kind, runs in of["runs"].items()
    ]
    assert found == expected
