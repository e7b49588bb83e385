"""The schedule verifier against the model checker Spin on random small schedules, and both against the enumeration.

python benchmarks/verify_spin.py --kernels 2000 --json benchmarks/results/FILE.json
"""

from __future__ import annotations

import argparse
import random
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import environment

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from schedules import enumerate_many
from schedules.promela import Spin, UndecidedError, spin_version
from schedules.random_kernels import random_kernel
from schedules.small_kernels import parse

from amk.passes.verifier import check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--kernels", type=int, default=2000, help="how many Spin has to decide")
    parser.add_argument("--minutes", type=float, default=60, help="stop then, even if it has not")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    version = spin_version()
    if version is None:
        parser.error("needs `spin` and `gcc`")

    print(f"seed {options.seed}: kernel N is random_kernel(random.Random(f'{options.seed}-N'))")
    record = Record(options.seed)
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        spin = Spin(Path(folder))
        while record.decided < options.kernels and time.monotonic() < end:
            record.add(spin)
            if record.decided % 100 == 0:
                print(f"{record.decided} decided, {len(record.disagreements)} disagreements", flush=True)
    gcc = subprocess.run(["gcc", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()
    result = {"spin": version, "gcc": gcc, "seed": options.seed, **record.summary()}
    for name, value in result.items():
        print(f"{name}: {value}")
    environment.write(options.json, "verify_spin", result)
    if record.disagreements:
        sys.exit(1)


class Record:
    """Verdicts and seconds so far."""

    def __init__(self, seed: int):
        self.seed = seed
        self.tried = self.decided = self.least = self.twice = self.states = self.searches = self.counted = 0
        self.undecided: list[dict[str, Any]] = []
        self.disagreements: list[dict[str, Any]] = []
        self.verdicts: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.seconds = {"spin": 0.0, "verifier": 0.0, "enumeration": 0.0}
        self._start = 0.0

    def add(self, spin: Spin) -> None:
        """The next kernel."""
        number = self.tried
        self.tried += 1
        kernel = random_kernel(random.Random(f"{self.seed}-{number}"))
        self._start = time.perf_counter()
        try:
            verdict = spin.decide(kernel)
            again = verdict if verdict.least else spin.verdict(kernel, least=True)
        except UndecidedError as error:
            self.undecided.append({"kernel": number, "why": str(error)})
            return
        finally:
            self._lap("spin")
        rejected = {diagnostic.rule.value for diagnostic in check(parse(kernel.text()))}
        self._lap("verifier")
        (enumeration,) = enumerate_many.decide([kernel])
        self._lap("enumeration")

        self.decided += 1
        self.least += verdict.least
        self.states += verdict.states
        self.searches += verdict.searches
        self.counted += enumeration.decided
        self.verdicts[" ".join(sorted(verdict.broken)) or "safe"] += 1
        self.sizes[f"{len(kernel.queues)} SMs"] += 1

        def disagree(who: str, what: str) -> None:
            verdicts = {"spin": sorted(verdict.broken), "verifier": sorted(rejected), "enumeration": str(enumeration)}
            self.disagreements.append({"kernel": number, "who": who, "what": what, **verdicts, "text": kernel.text()})
            print(self.disagreements[-1], flush=True)

        if what := verdict.disagreement(rejected):
            disagree("verifier", what)
        if enumeration.decided and bool(enumeration.problem) != bool(verdict.broken):
            disagree("enumeration", enumeration.problem or "safe")
        if enumeration.deadlock != ("deadlock" in verdict.broken):
            disagree("enumeration", "deadlock")
        if again.broken != verdict.broken:
            disagree("least", " ".join(again.broken))

    def _lap(self, what: str) -> None:
        now = time.perf_counter()
        self.seconds[what] += now - self._start
        self._start = now

    def summary(self) -> dict[str, Any]:
        return {
            "kernels": self.tried,
            "decided_by_spin": self.decided,
            "of_these_waits_observe_the_least": self.least,
            "of_these_also_by_enumeration": self.counted,
            "undecided_by_spin": self.undecided,
            "safe": self.verdicts["safe"],
            "unsafe": self.decided - self.verdicts["safe"],
            "broken_rules_by_spin": dict(self.verdicts.most_common()),
            "kernels_by_size": dict(sorted(self.sizes.items())),
            "searches": self.searches,
            "states": self.states,
            "seconds": self.seconds,
            "disagreements": self.disagreements,
        }


if __name__ == "__main__":
    main()
