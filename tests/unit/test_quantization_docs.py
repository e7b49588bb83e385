"""The numbers of docs/quantization.md are those of the recorded run."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_table_of_formats():
    record = json.loads((ROOT / "benchmarks" / "results" / "eval_formats.json").read_text())["results"]
    page = (ROOT / "docs" / "quantization.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"^\| `([^|]+) \| ([0-9.]+ \| [0-9.]+) \|", page, re.MULTILINE))
    expected = {
        f"{r['format']}`{', head and embedding too' if r['outer'] else ''}": (
            f"{r['matrix_bytes'] / 1e6:.1f} | {r['perplexity']:.3f}"
        )
        for r in record["formats"]
        if r["format"] != "f32 reference"
    }
    assert found == expected
    assert f"All {sum(record['windows']):,} tokens of the text in {len(record['windows'])} windows" in page
