"""Execute a witness of `amk verify` on virtual SMs and show what goes wrong. docs/verify.md has an example.

Exit status: 0 the failure happened, 2 it did not."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..progress import ProgressBar
from .kernel_file import read_kernels
from .options import natural

NAME = "replay"
HELP = "execute a witness of amk verify, and show the failure"

_SHOWN = 12
"""Lines of an order that are printed without --trace."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="SCHEDULE.mlir", type=Path, help="the file that was verified")
    parser.add_argument("witness", metavar="WITNESS", type=Path, help="what amk verify --witness wrote")
    parser.add_argument(
        "--model",
        metavar="MODEL",
        default=argparse.SUPPRESS,
        help="take the weights of this model (folder, GGUF file or hub id; default: random ones)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=natural, default=0, help="of weights, inputs and earlier state (default: 0)"
    )
    parser.add_argument("--trace", action="store_true", help="print the whole interleaving")


def run(args: argparse.Namespace) -> int:
    from ...amk_ir.errors import UsageError
    from ...passes.verifier import Witness
    from ...passes.verifier.check import content_hash

    try:
        witness = Witness.from_text(args.witness.read_text(encoding="utf-8"))
    except UnicodeDecodeError as e:
        raise UsageError(f"{args.witness}: not UTF-8 text ({e.reason})") from e
    except UsageError as e:
        raise UsageError(f"{args.witness}: {e}") from e
    kernels = read_kernels(args.file)
    kernel = next((k for k in kernels if content_hash(k) == witness.digest), kernels[0])
    weights = None
    if (model := getattr(args, "model", None)) is not None:
        from ...frontends.import_model import import_model

        weights = import_model(model).checkpoint
    from ...backends.reference.replay import replay

    with ProgressBar() as progress:
        outcome = replay(kernel, witness, weights, seed=args.seed, progress=progress)
    kind = witness.rule if witness.rule == witness.failure else f"{witness.rule}, {witness.failure}"
    print(f"@{witness.kernel} at position {witness.position}: {kind}")
    for number, lines in enumerate(outcome.trace):
        print(f"{f'order {number + 1}' if len(outcome.trace) > 1 else 'order'}:{'' if lines else ' nothing happens'}")
        hidden = 0 if args.trace else max(0, len(lines) - _SHOWN)
        if hidden:
            print(f"  {hidden} more lines before (--trace shows them)")
        for line in lines[hidden:]:
            print(f"  {line}")
    for note in outcome.notes:
        print(f"on the way: {note}")
    print(f"{'reproduced' if outcome.reproduced else 'not reproduced'}: {outcome.text}")
    return 0 if outcome.reproduced else 2
