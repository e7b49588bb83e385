"""Coverage-guided fuzzing (atheris, libFuzzer): inputs that reach new code of AMK or of xDSL's parser are mutated again.

    python tests/fuzz/coverage_guided.py --seconds 60 --findings FOLDER

Needs `pip install atheris`. The mutations are those of `mutate.py`. libFuzzer never returns, so the report is written where --report says.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["amk", "xdsl.parser", "xdsl.irdl", "xdsl.utils.mlir_lexer"]):
    from fuzz import corpus
    from fuzz.commands import command
    from fuzz.execute import limit_address_space
    from fuzz.mutate import mutate
    from fuzz.worker import MEBIBYTES, Fuzzer


class Guided(Fuzzer):
    """Inputs come from libFuzzer. The first bytes of an input choose the command."""

    def __init__(self, seed: int, folder: Path, findings: Path | None, report: Path | None):
        super().__init__(seed, folder, findings)
        self.report_to = report
        self.start, self.wall = time.process_time(), time.monotonic()
        self.write()

    def one_input(self, data: bytes) -> None:
        """Called by libFuzzer."""
        head, text = data[:HEAD], data[HEAD:]
        chosen = command(Random(head), text.decode("utf-8", "replace"))
        self.execute(chosen, text)
        if self.statuses.total() % 20 == 0:
            self.write()

    def write(self) -> None:
        """The report so far."""
        if self.report_to is None:
            return
        report = self.report(time.process_time() - self.start, time.monotonic() - self.wall)
        self.report_to.write_text(json.dumps(report, indent=1), encoding="utf-8")


HEAD = 4
"""Bytes that choose the command."""


def custom_mutator(data: bytes, max_size: int, seed: int) -> bytes:
    """Called by libFuzzer for a new input."""
    random = Random(seed)
    head, text = data[:HEAD].ljust(HEAD, b"\0"), data[HEAD:].decode("utf-8", "replace")
    seeds = corpus.seeds()
    if random.random() < 0.3:
        head = random.randbytes(HEAD)
    if not text or random.random() < 0.02:
        text = seeds[random.choice(corpus.valid())]
    return (head + mutate(random, text, random.choice(seeds), 2).encode("utf-8", "replace"))[:max_size]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=60, help="of wall-clock time")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--findings", type=Path, default=None, help="a folder for the inputs that are findings")
    parser.add_argument("--report", type=Path, default=None, help="a file for the report (JSON)")
    args = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    seed = args.seed if args.seed is not None else int.from_bytes(os.urandom(4))
    folder = Path(tempfile.mkdtemp())  # libFuzzer ends the process: nobody could remove it
    start = folder / "corpus"
    start.mkdir()
    random = Random(seed)
    for number in corpus.valid():
        (start / f"{number}").write_bytes(random.randbytes(HEAD) + corpus.seeds()[number].encode())
    guided = Guided(seed, folder, args.findings, args.report)
    limit_address_space(MEBIBYTES)
    options = [
        f"-max_total_time={args.seconds}",
        "-max_len=20000",
        f"-seed={seed % 2**31 or 1}",
        "-timeout=120",
        "-rss_limit_mb=0",
    ]
    atheris.Setup([sys.argv[0], str(start), *options], guided.one_input, custom_mutator=custom_mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
