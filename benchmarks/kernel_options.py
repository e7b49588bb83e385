"""--set OPTION=VALUE of the benchmarks that compile kernels: pass options, as `amk bench` takes them."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from typing import Any

from amk.amk_ir.errors import UsageError
from amk.runtime.pass_options import parse_options, spelled


def add_set(parser: argparse.ArgumentParser) -> None:
    """The option; `chosen` reads it."""
    parser.add_argument(
        "--set",
        metavar="OPTION=VALUE",
        action="append",
        default=[],
        help="an option of the pass graph-to-queue, such as in-flight=4 (docs/passes.md); may be repeated",
    )


def chosen(parser: argparse.ArgumentParser, args: argparse.Namespace, decided: Collection[str] = ()) -> dict[str, Any]:
    """The pass options that `args` ask for. decided: those that the benchmark varies itself.

    Ends the program, as `parser` does for other mistakes, if there are none such.
    """
    try:
        options = parse_options(args.set, "--set")
    except UsageError as e:
        parser.error(str(e))
    for name in decided:
        if name in options:
            parser.error(f"--set: {spelled(name)} is what this benchmark varies; leave it out")
    return options
