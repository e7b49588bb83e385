"""A long fuzzing run of the tools, recorded: mutated inputs and coverage-guided ones in turn, each turn with a new seed.

python benchmarks/fuzz_tools.py --minutes 30 --json benchmarks/results/fuzz_tools.json

Minutes are of processor time. The record is written after each turn, so a run that is stopped has one too. Findings are
kept below --findings, and the exit status is 1 if there are any. What a finding is: tests/fuzz/__init__.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import environment

FUZZ = Path(__file__).parents[1] / "tests" / "fuzz"

TURNS = (("worker", 0.65), ("coverage_guided", 0.35))
"""Fuzzers, and the part of the time that each gets."""

FIXED = (
    "KeyError: an op's verifier looked at an op around or beside it that lacks a property",
    "KeyError, AttributeError: the same, with a property of the wrong kind",
    "ValueError: an integer literal, `iN` or `%0#N` of more than 4300 digits",
    "ValueError: an operand of graph.layers named like an argument of its region",
    "IndexError: task.gather from a scalar",
    "OverflowError: a placement's offset, a threshold or a loop bound beyond 64 bits",
    "wrapped to a negative number: max_seq, tokens and SMs of a kernel beyond 63 bits",
    "memory: counters, loops and families that stand for 10^9 events",
    "memory: dense<1> of 10^9 elements, 100 MB of comments, expand-queues of 10^6 events",
    "memory: replay of a kernel whose buffers are larger than the machine",
    "memory: what 57,373 SMs know of each other at each wait (98 GiB)",
    "hang: an index expression of 20,000 terms (quadratic)",
    "hang: a million iterations of a loop that synchronises two SMs",
    "hang: half a million ops of an unrolled loop; memory: a witness among 51 GiB of tagged words",
    "IR of passes that does not verify: more tokens than positions, loops beyond the limits of a kernel",
    "printed text that does not parse: names that are not ASCII",
)
"""What the fuzzers, and the limits that they look for, have found; tests/unit/test_fuzz_findings.py keeps each."""

PATIENCE = 600
"""Seconds that a process may take beyond its turn before it counts as hanging."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30, help="of processor time (default: 30)")
    parser.add_argument("--wall-minutes", type=float, default=float("inf"), help="stop after so long in any case")
    parser.add_argument("--turn", type=float, default=240, help="seconds of a round of both fuzzers (default: 240)")
    parser.add_argument("--findings", type=Path, default=Path(tempfile.gettempdir()) / "amk-fuzz")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()

    start = time.monotonic()
    turns: list[dict[str, Any]] = []
    while (
        sum(t["processor_seconds"] for t in turns) < options.minutes * 60
        and time.monotonic() - start < options.wall_minutes * 60
    ):
        for fuzzer, part in TURNS:
            turns.append({"fuzzer": fuzzer, **_turn(fuzzer, options.turn * part, options.findings)})
            results = _sum(turns)
            environment.write(options.json, "fuzz_tools", results)
            print(_line(turns[-1]), flush=True)
    sys.exit(1 if _sum(turns)["open_findings"] else 0)


def _turn(fuzzer: str, seconds: float, findings: Path) -> dict[str, Any]:
    """One process; its report."""
    seed = int.from_bytes(os.urandom(4))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, str(FUZZ / f"{fuzzer}.py"), "--seed", str(seed), "--findings", str(findings)]
        if fuzzer == "worker":
            command += ["--seconds", "inf", "--wall-seconds", str(seconds)]
        else:
            command += ["--seconds", str(round(seconds)), "--report", str(report)]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE, check=False)
        except subprocess.TimeoutExpired:
            return _lost(seed, "hangs, and no signal stops it")
        text = run.stdout if fuzzer == "worker" else report.read_text() if report.exists() else ""
        try:
            found = json.loads(text)
        except ValueError:
            return _lost(seed, f"the process ended with {run.returncode}: {run.stderr[-2000:]}")
        if run.returncode not in (0, 1):
            found["findings"].append(
                {"kind": f"exit status {run.returncode}", "count": 1, "problem": run.stderr[-2000:]}
            )
        return found


def _lost(seed: int, problem: str) -> dict[str, Any]:
    finding = {"kind": "the process", "count": 1, "problem": problem}
    return {
        "seed": seed,
        "executions": 0,
        "processor_seconds": 0.0,
        "wall_seconds": 0.0,
        "statuses": {},
        "findings": [finding],
    }


def _sum(turns: list[dict[str, Any]]) -> dict[str, Any]:
    statuses = Counter[str]()
    for turn in turns:
        statuses.update(turn["statuses"])
    return {
        "executions": sum(t["executions"] for t in turns),
        "processor_seconds": round(sum(t["processor_seconds"] for t in turns), 1),
        "wall_seconds": round(sum(t["wall_seconds"] for t in turns), 1),
        "statuses": dict(sorted(statuses.items())),
        "fixed_findings": FIXED,
        "open_findings": [f for t in turns for f in t["findings"]],
        "turns": [
            {k: t[k] for k in ("fuzzer", "seed", "executions", "processor_seconds", "wall_seconds")} for t in turns
        ],
    }


def _line(turn: dict[str, Any]) -> str:
    kinds = [f["kind"] for f in turn["findings"]]
    return (
        f"{turn['fuzzer']} --seed {turn['seed']}: {turn['executions']} inputs in {turn['processor_seconds']} s"
        f"{': ' if kinds else ''}{'; '.join(kinds)}"
    )


if __name__ == "__main__":
    main()
