"""The schedule verifier against exhaustive enumeration, on many random small schedules; witnesses replayed.

python benchmarks/verify_enumeration.py --kernels 1000000 --seed S --json benchmarks/results/FILE.json

A kernel is named by its seed: `S-17 / 3` is kernel 3 of `scenario_kernels("S-17")` in tests/schedules/comparison.py. Parts
that are done are appended to a file beside the result, FILE.parts; started again with the same arguments, the run goes on.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import secrets
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import environment

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from schedules.comparison import ARRANGEMENTS, Tally, compare
from schedules.enumerate_many import STATE_LIMIT, decide

PART = 25
"""Seeds of one part: progress is kept from part to part."""


def run_part(arguments: tuple[str, int, int]) -> dict[str, Any]:
    """The tally of the seeds `[PART * number, PART * (number + 1))`, as data."""
    seed, number, replay_every = arguments
    start, tally = time.process_time(), Tally()
    for n in range(PART * number, PART * (number + 1)):
        compare(f"{seed}-{n}", tally, replay_every=replay_every)
    return {
        "part": number,
        "replay_every": replay_every,
        "cpu_seconds": time.process_time() - start,
        **vars(tally),
    }


def sums(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """All parts together: numbers added, lists concatenated."""
    total: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            if name in ("part", "replay_every"):
                continue
            if isinstance(value, dict):
                total[name] = dict(sorted((Counter(total.get(name, {})) + Counter(value)).items()))
            else:
                total[name] = total[name] + value if name in total else value
    return total


def result(options: argparse.Namespace, parts: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What the run found, for the record."""
    total = sums(parts)
    kernels = sum(total["verdicts"].values())
    replayed_of: Counter[str] = Counter()
    for part in parts:
        replayed_of[f"1 in {part['replay_every']}"] += sum(part["verdicts"].values())
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": options.seed,
        "scenarios": PART * len(parts),
        "schedules_per_scenario": ARRANGEMENTS,
        "kernels": kernels,
        "over_limit": {"states": STATE_LIMIT, "kernels": total["undecided"], "compared": False},
        "verdicts_of_enumeration": total["verdicts"],
        "of_kernels_that_stream_state": total["tiles"],
        "unsafe_by_rule_of_verifier": total["rules"],
        "disagreements": total["disagreements"],
        "deadlock_verdicts_compared": total["deadlocks_compared"],
        "states_enumerated": total["states"],
        "shapes": total["shapes"],
        "witnesses": {
            "kernels_by_share_replayed": dict(replayed_of),
            "replayed": sum(total["witnesses"].values()) + len(total["bad_witnesses"]),
            "reproduced": sum(total["witnesses"].values()),
            "by_rule_and_failure": total["witnesses"],
            "missing_or_not_reproduced": total["bad_witnesses"],
        },
        "processes": options.processes,
        "seconds_of_last_start": seconds,
        "cpu_seconds": total["cpu_seconds"],
        "compiler": subprocess.run(["g++", "--version"], capture_output=True, text=True).stdout.partition("\n")[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--kernels", type=int, default=1_000_000, help="at least so many are decided")
    parser.add_argument("--seed", default=str(secrets.randbits(32)))
    parser.add_argument("--replay-every", type=int, default=10, help="replay the witnesses of every n-th kernel")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", metavar="FILE", required=True)
    options = parser.parse_args()

    start = time.perf_counter()
    progress = Path(options.json + ".parts")
    parts: list[dict[str, Any]] = []
    if progress.exists():
        lines = progress.read_text().split("\n")[:-1]  # the last may be cut off
        parts = [json.loads(line) for line in lines]
        progress.write_text("".join(f"{line}\n" for line in lines))
    done = {p["part"] for p in parts}
    decided = sum(sum(p["verdicts"].values()) for p in parts)
    print(f"seed {options.seed}; {decided} kernels are done already", flush=True)
    decide([])  # compiles the oracle once, before the processes start

    def numbers():
        """Parts to do, without end: those over the oracle's limit are made up for by further ones."""
        number = 0
        while decided < options.kernels:
            if number not in done:
                yield options.seed, number, options.replay_every
            number += 1

    with progress.open("a") as file, multiprocessing.Pool(options.processes, maxtasksperchild=100) as pool:
        todo = numbers()
        running = [pool.apply_async(run_part, (n,)) for _, n in zip(range(options.processes), todo, strict=False)]
        while running:
            part = running.pop(0).get()
            parts.append(part)
            file.write(json.dumps(part) + "\n")
            file.flush()
            decided += sum(part["verdicts"].values())
            bad = sum(len(p["disagreements"]) + len(p["bad_witnesses"]) for p in parts)
            print(f"{decided} kernels, {bad} findings, {time.perf_counter() - start:.0f} s", flush=True)
            if (following := next(todo, None)) is not None:
                running.append(pool.apply_async(run_part, (following,)))
    environment.write(options.json, "verify_enumeration", result(options, parts, time.perf_counter() - start))
    progress.unlink()


if __name__ == "__main__":
    main()
