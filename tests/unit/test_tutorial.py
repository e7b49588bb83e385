"""Runs the commands of docs/tutorial.md and README.md's pipeline, and compares what they print."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """(command, expected lines) of every `$` line in the console blocks of a page, in order."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def contains_in_order(output: list[str], expected: list[str]) -> str | None:
    """The first expected line that does not come, in order, in `output`; `...` skips lines, or ends a line early.

    Indentation does not count.
    """
    at, skipping = 0, False
    for line in expected:
        if line == "...":
            skipping = True
            continue
        start = line.strip().removesuffix("...")
        while at < len(output):
            text = output[at].strip()
            found = text.startswith(start) if line.endswith("...") else text == start
            at += 1
            if found:
                break
            if not skipping:
                return line
        else:
            return line
        skipping = False
    return None


def test_the_comparison_notices_what_is_missing():
    output = ["a", "b", "c"]
    assert contains_in_order(output, ["a", "...", "c"]) is None
    assert contains_in_order(output, ["a", "c"]) == "c"
    assert contains_in_order(output, ["...", "d"]) == "d"
    assert contains_in_order(output, ["...", "c", "b"]) == "b"


def test_the_tutorial_prints_what_it_says(tmp_path: Path):
    shutil.copy(ROOT / "tests/lit/passes/Inputs/tiny_llama.mlir", tmp_path / "tiny.mlir")
    tools = Path(sys.executable).parent
    steps = commands(ROOT / "docs/tutorial.md")
    assert len(steps) > 8
    for command, expected in steps:
        # the tools of this environment, whatever PATH says
        line = re.sub(r"^amk-opt", shlex.quote(str(tools / "amk-opt")), command)
        done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == (2 if "error:" in "".join(expected) else 0), (command, done.stderr)
        missing = contains_in_order((done.stdout + done.stderr).splitlines(), expected)
        assert missing is None, f"{command}: expected {missing!r} in\n{done.stdout[-3000:]}{done.stderr}"
