"""The schedule verifier against z3 on random larger kernels, in both directions; every witness is replayed.

python benchmarks/verify_z3.py --kernels 2000 --json benchmarks/results/verify_z3.json
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import environment
import z3

from amk.backends.reference.replay import replay
from amk.dialects.queue import KernelOp
from amk.passes.verifier import Diagnostic, check

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from schedules.large_kernels import numbered_kernel
from schedules.small_kernels import Kernel, parse
from schedules.smt_verdict import SmtOracle


class Corpus:
    """What a run has found so far. seconds: of CPU time."""

    def __init__(self, seed: str):
        self.seed = seed
        self.kernels = 0
        self.seconds = {"z3": 0.0, "z3_slowest": 0.0, "verifier": 0.0, "replay": 0.0}
        self.verdicts: Counter[str] = Counter()
        self.mutations: dict[str, Counter[str]] = {}
        self.sms: Counter[int] = Counter()
        self.events: Counter[int] = Counter()
        self.operations: Counter[str] = Counter()
        self.witnesses: Counter[str] = Counter()
        self.disagreements: list[dict[str, Any]] = []
        self.unreproduced: list[dict[str, Any]] = []

    def add(self, number: int) -> None:
        """Makes a kernel and decides it by both."""
        kernel, mutation = numbered_kernel(self.seed, number)
        start = time.process_time()
        oracle = SmtOracle(kernel)
        took = time.process_time() - start
        self.seconds["z3"] += took
        self.seconds["z3_slowest"] = max(self.seconds["z3_slowest"], took)
        op = parse(kernel.text())
        start = time.process_time()
        diagnostics = check(op)
        self.seconds["verifier"] += time.process_time() - start

        self.kernels += 1
        self.verdicts[oracle.rule or "safe"] += 1
        self.mutations.setdefault(mutation or "none", Counter())["unsafe" if oracle.problem else "safe"] += 1
        self.count(kernel)
        rules = sorted({str(d.rule) for d in diagnostics})
        agrees = (oracle.problem is None) == (not diagnostics)
        if oracle.rule not in ("tasks", "stream", "written-once"):  # a deadlock may come on top of these
            agrees &= (oracle.rule == "deadlock") == ("deadlock" in rules)
        if not agrees:
            self.disagreements.append(
                {"number": number, "mutation": mutation, "z3": oracle.problem, "verifier": rules, "text": kernel.text()}
            )
            print(f"kernel {number}: {oracle.problem} by z3, {rules} by the verifier", flush=True)
        self.replay(number, op, diagnostics)

    def count(self, kernel: Kernel) -> None:
        events = [event for queue in kernel.queues for event in queue]
        self.sms[len(kernel.queues)] += 1
        self.events[len(events) // 20 * 20] += 1
        self.operations.update(event[0] for event in events)
        partial = [e for e in events if e[0] == "wait" and kernel.threshold(e) < kernel.total(e[1])]
        self.operations["wait for a part of the signals"] += len(partial)

    def replay(self, number: int, op: KernelOp, diagnostics: list[Diagnostic]) -> None:
        start = time.process_time()
        for diagnostic in diagnostics:
            outcome = "none"
            if diagnostic.witness is not None:
                outcome = "reproduced" if replay(op, diagnostic.witness).reproduced else "not reproduced"
            self.witnesses[outcome] += 1
            if outcome != "reproduced":
                about = {"number": number, "rule": str(diagnostic.rule), "message": diagnostic.message}
                self.unreproduced.append({**about, "outcome": outcome})
        self.seconds["replay"] += time.process_time() - start

    def result(self) -> dict[str, Any]:
        return {
            "z3": z3.get_version_string(),
            "seed": self.seed,
            "kernels": self.kernels,
            "verdicts": dict(self.verdicts.most_common()),
            "disagreements": self.disagreements,
            "witnesses": dict(self.witnesses),
            "unreproduced": self.unreproduced,
            "mutations": {name: dict(counts) for name, counts in sorted(self.mutations.items())},
            "sms": dict(sorted(self.sms.items())),
            "events_from": dict(sorted(self.events.items())),
            "operations": dict(self.operations),
            "cpu_seconds": self.seconds,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--kernels", type=int, default=2000)
    parser.add_argument("--seed", default=secrets.token_hex(4), help="repeats a run (random)")
    parser.add_argument("--json", metavar="FILE", help="written after every 100 kernels")
    options = parser.parse_args()

    corpus = Corpus(options.seed)
    print(f"seed {options.seed}")
    for number in range(options.kernels):
        corpus.add(number)
        if corpus.kernels % 100 == 0 or corpus.kernels == options.kernels:
            environment.write(options.json, "verify_z3", corpus.result())
            safe, disagree = corpus.verdicts["safe"], len(corpus.disagreements)
            print(f"{corpus.kernels} kernels, {safe} safe, {disagree} disagreements", flush=True)
    for verdict, count in corpus.verdicts.most_common():
        print(f"{verdict:16} {count:8}")
    print(f"{len(corpus.disagreements)} disagreements; witnesses: {dict(corpus.witnesses)}")
    print(", ".join(f"{name} {value:.0f} s" for name, value in corpus.seconds.items()))


if __name__ == "__main__":
    main()
