"""Write a model in the graph dialect: its mathematics, with weights referenced by name in the checkpoint."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..streams import write_utf8
from .options import add_model, check_folder, import_named

NAME = "import"
HELP = "write a model in the graph dialect (.mlir)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, weights="f32")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="where to write it instead of stdout")


def run(args: argparse.Namespace) -> None:
    from ...runtime.compile import module_text
    from ...runtime.files import write_atomically

    if args.output is not None:
        check_folder("--output", args.output)
    text = module_text(import_named(args).module)
    if args.output is None:
        write_utf8()
        sys.stdout.write(text)
    else:
        write_atomically(args.output, text.encode())
