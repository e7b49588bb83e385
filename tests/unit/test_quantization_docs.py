"""The numbers of docs/quantization.md are those of the recorded runs."""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def label(row: dict[str, Any]) -> str:
    """What the table calls a row."""
    outer, calibrated = row["outer"], row.get("calibrated", False)
    return f"{row['format']}`{', head and embedding too' * outer}{', with importance' * calibrated}"


def test_table_of_formats():
    heading = "### Every format on SmolLM2-135M-Instruct"
    record = json.loads((ROOT / "benchmarks" / "results" / "eval_formats.json").read_text())["results"]
    page = (ROOT / "docs" / "quantization.md").read_text(encoding="utf-8")
    section = page.partition(f"{heading}\n")[2].partition("\n##")[0]
    found = dict(re.findall(r"^\| `([^|]+) \| ([0-9.]+ \| [0-9.]+) \|", section, re.MULTILINE))
    expected = {
        label(row): f"{row['matrix_bytes'] / 1e6:.1f} | {row['perplexity']:.3f}"
        for row in record["formats"]
        if row["format"] != "f32 reference"
    }
    assert found == expected
    assert re.search(rf"{sum(record['windows']):,} tokens of the text in {len(record['windows'])} windows", section)
    if "calibration" in record:
        assert f"{sum(record['calibration']['windows']):,} tokens of {record['calibration']['text']}" in section
