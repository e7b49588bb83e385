"""The schedule verifier on mutants of real lowerings: verdicts against the truth, and every witness replayed.

python benchmarks/verify_mutants.py --mutants 100000 --state mutants.jsonl --json benchmarks/results/FILE.json
python benchmarks/verify_mutants.py --json benchmarks/results/FILE.json --document docs/verifier_corpus.md

With `--state`, what is done is kept in that file, and the same command goes on from there. `--document` alone writes the
tables of a recorded run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import secrets
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import environment

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from schedules.mutant_corpus import Tally, judge_range
from schedules.mutant_tables import document

BATCH = 200
"""Mutants whose tally is written at once."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--mutants", type=int, default=0)
    parser.add_argument(
        "--seed", type=int, default=None, help="random unless given; that of the state file if it is there"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--state", metavar="FILE", help="keeps what is done, one batch a line")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--document", metavar="FILE", help="writes the tables of the JSON file as Markdown")
    options = parser.parse_args()
    problems = record(options) if options.mutants else []
    if options.document:
        if not options.json:
            parser.error("--document needs --json")
        results = json.loads(Path(options.json).read_text(encoding="utf-8"))
        Path(options.document).write_text(document(results), encoding="utf-8")
    if problems:
        sys.exit(1)


def record(options: argparse.Namespace) -> list[str]:
    """Judges the mutants and writes the results; what went wrong."""
    seed, batches = _resume(options)
    total, seconds = Tally(), 0.0
    for batch in batches.values():
        total.add(Tally.from_json(batch["tally"]))
        seconds += batch["seconds"]
    print(f"seed {seed}: mutant N is schedules.mutant_corpus.mutant('{seed}', N); {total.mutants} are done", flush=True)
    starts = [n for n in range(0, options.mutants, BATCH) if n not in batches]
    started, begun = time.perf_counter(), total.mutants
    for start, tally, spent in _judged(seed, starts, options):
        if options.state:
            with Path(options.state).open("a", encoding="utf-8") as file:
                print(json.dumps({"start": start, "seconds": spent, "tally": tally.to_json()}), file=file)
        total.add(tally)
        seconds += spent
        rate = (total.mutants - begun) / (time.perf_counter() - started)
        left = (options.mutants - total.mutants) / rate / 60
        print(f"{total.mutants} mutants, {rate:.1f}/s, {left:.1f} min left, {len(total.problems)} problems", flush=True)
        for problem in tally.problems:
            print(f"PROBLEM {problem}", flush=True)
    print(total.summary())
    result = {"seed": seed, "mutants": total.mutants, "processor_seconds": round(seconds, 1), **total.to_json()}
    environment.write(options.json, "verify_mutants", result)
    return total.problems


def _resume(options: argparse.Namespace) -> tuple[int, dict[int, Any]]:
    """The seed, and the batches that are done, by their first mutant."""
    path = Path(options.state) if options.state else None
    if path is None or not path.exists():
        seed = secrets.randbits(32) if options.seed is None else options.seed
        if path is not None:
            path.write_text(json.dumps({"seed": seed, "batch": BATCH}) + "\n", encoding="utf-8")
        return seed, {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    head, batches = lines[0], {line["start"]: line for line in lines[1:]}
    if head["batch"] != BATCH or options.seed not in (None, head["seed"]):
        raise SystemExit(f"{path} is of another run: seed {head['seed']}, batches of {head['batch']}")
    return head["seed"], batches


def _judged(seed: int, starts: list[int], options: argparse.Namespace) -> Iterator[tuple[int, Tally, float]]:
    """(first mutant, tally, processor seconds) of each batch."""
    jobs = [(str(seed), start, min(start + BATCH, options.mutants)) for start in starts]
    if options.processes == 1:
        yield from map(_judge, jobs)
        return
    with multiprocessing.Pool(options.processes) as pool:
        yield from pool.imap_unordered(_judge, jobs)


def _judge(job: tuple[str, int, int]) -> tuple[int, Tally, float]:
    seed, start, stop = job
    began = time.process_time()
    tally = judge_range(seed, start, stop)
    return start, tally, time.process_time() - began


if __name__ == "__main__":
    main()
