"""A process that fuzzes the tools for some seconds and reports what it found, as JSON.

python tests/fuzz/worker.py --seconds 60 --seed 7 --findings FOLDER
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from schedules.random_kernels import random_kernel

from fuzz import corpus
from fuzz.commands import command
from fuzz.execute import Ending, fuzz_one, limit_address_space, run_tool
from fuzz.mutate import encode, mutate, pick
from fuzz.witnesses import mutate_witness

MEBIBYTES = 1024
"""Memory that an input may take beside what Python and the libraries take."""

REPLAYS = 0.12
"""Part of the inputs that are witnesses."""


KERNELS = 0.15
"""Part of the inputs that are random small kernels, mutated."""


class Fuzzer:
    """The state of one worker. folder: of the files that the tools read; findings: where inputs are kept, by kind."""

    def __init__(self, seed: int, folder: Path, findings: Path | None):
        self.random = Random(seed)
        self.seed = seed
        self.folder = folder
        self.findings = findings
        self.statuses: Counter[str] = Counter()
        self.found: dict[str, dict[str, Any]] = {}
        self.witnesses: list[tuple[str, dict[str, Any]]] = []

    def collect_witnesses(self) -> None:
        """Witnesses of all seeds that are rejected, to be damaged."""
        file = self.folder / "seed.mlir"
        for text in corpus.seeds():
            if "queue.kernel" in text:
                file.write_text(text, encoding="utf-8")
                self._keep_witnesses(text, run_tool(["amk", "verify", str(file), "--json"], text.encode()))

    def _keep_witnesses(self, text: str, end: Ending) -> None:
        try:
            report = json.loads(end.output)
        except ValueError:
            return
        for kernel in report["kernels"]:
            self.witnesses += [(text, d["witness"]) for d in kernel["diagnostics"] if d["witness"] is not None]

    def step(self) -> None:
        """One input."""
        if self.witnesses and self.random.random() < REPLAYS:
            text, witness = self.random.choice(self.witnesses)
            kernel = self.folder / "kernel.mlir"
            kernel.write_text(text, encoding="utf-8")
            args = ["amk", "replay", str(kernel), "FILE"]
            if self.random.random() < 0.2:
                self.execute(args, json.dumps(witness).encode(), expected=0)
            else:
                self.execute(args, encode(self.random, mutate_witness(self.random, witness)))
        else:
            text = self._text()
            self.execute(command(self.random, text), encode(self.random, text))

    def execute(self, args: list[str], data: bytes, expected: int | None = None) -> None:
        """Runs a command on an input and notes what came of it, and whether it is the status that was expected."""
        file = self.folder / "input"
        file = file.with_suffix(".json" if "replay" in args else ".mlir")
        out = str(self.folder / "out")
        args = [{"FILE": str(file), "OUT": out, "OUT.mlir": f"{out}.mlir"}.get(a, a) for a in args]
        end = fuzz_one(args, file, data)
        # what does not fit into the little memory of this process is rightly refused
        too_large = any(text in end.error for text in ("this process can have", "too many to be replayed"))
        if expected is not None and not end.problem and end.status != expected and not too_large:
            end = replace(
                end, problem=f"status {end.status} instead of {expected}\n{end.output[-1000:]}{end.error[-1000:]}"
            )
        self.statuses[f"{' '.join(args[:2]) if args[0] == 'amk' else args[0]}: {end.status}"] += 1
        if end.problem:
            self._keep(args, data, end)
        elif args[:2] == ["amk", "verify"] and "--json" in args and len(self.witnesses) < 2000:
            self._keep_witnesses(data.decode("utf-8", "replace"), end)

    def _text(self) -> str:
        random, seeds = self.random, corpus.seeds()
        valid = corpus.valid()
        other = pick(random, seeds)
        if random.random() < KERNELS:
            return mutate(random, random_kernel(random).text(), seeds[other])
        number = random.choice(valid) if random.random() < 0.8 else pick(random, seeds)
        text = corpus.generic(number) if random.random() < 0.35 else seeds[number]
        return mutate(random, text, seeds[other])

    def _keep(self, args: list[str], data: bytes, end: Ending) -> None:
        entry = self.found.setdefault(
            end.kind,
            {"count": 0, "size": 1 << 60, "args": [], "problem": end.problem},
        )
        entry["count"] += 1
        if len(data) < entry["size"]:
            entry |= {"size": len(data), "args": args, "problem": end.problem}
            if self.findings is not None:
                self.findings.mkdir(parents=True, exist_ok=True)
                name = f"{abs(hash(end.kind)) % 10**8:08d}"
                (self.findings / f"{name}.input").write_bytes(data)
                if "replay" in args:
                    (self.findings / f"{name}.kernel.mlir").write_bytes((self.folder / "kernel.mlir").read_bytes())
                (self.findings / f"{name}.txt").write_text(f"{end.kind}\n{args}\n\n{end.problem}\n", encoding="utf-8")

    def report(self, seconds: float, wall: float) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "executions": self.statuses.total(),
            "processor_seconds": round(seconds, 1),
            "wall_seconds": round(wall, 1),
            "statuses": dict(sorted(self.statuses.items())),
            "witnesses": len(self.witnesses),
            "findings": [{"kind": kind, **entry} for kind, entry in sorted(self.found.items())],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="processor time of inputs")
    parser.add_argument(
        "--wall-seconds",
        type=float,
        default=float("inf"),
        help="stop after so long in any case, once witnesses are collected",
    )
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--findings", type=Path, default=None, help="a folder for the inputs that are findings")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    faulthandler.enable()
    seed = args.seed if args.seed is not None else int.from_bytes(os.urandom(4))
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(seed, Path(folder), args.findings)
        fuzzer.collect_witnesses()
        limit_address_space(MEBIBYTES)
        start, wall = time.process_time(), time.monotonic()
        while time.process_time() - start < args.seconds and time.monotonic() - wall < args.wall_seconds:
            fuzzer.step()
        print(json.dumps(fuzzer.report(time.process_time() - start, time.monotonic() - wall), indent=1))
    sys.exit(1 if fuzzer.found else 0)


if __name__ == "__main__":
    main()
