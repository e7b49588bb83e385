"""Measure how much the inputs of each matrix count: their mean squares over a text, which the model reads in float32.

`--importance FILE` of the other commands then quantises to int8 and int4 so that the errors weighted by these are small."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

from ..progress import ProgressBar
from .options import add_windows, check_folder, hide_torch, import_named, read_text, text_windows

NAME = "calibrate"
HELP = "measure by which inputs matrices are best quantised"
DEFAULT_TEXT = Path(__file__).parents[1] / "texts" / "declaration.txt"
"""The Declaration of Independence of the United States (1776), which is in the public domain."""
_DEFAULT_CONTEXT = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder, GGUF file, smollm2-135m-instruct or hub id")
    parser.add_argument(
        "--text",
        metavar="FILE",
        type=Path,
        default=DEFAULT_TEXT,
        help="UTF-8 text, best of the kind that the model is for (default: the Declaration of Independence, 1776)",
    )
    add_windows(parser, _DEFAULT_CONTEXT, limit=0)
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="the safetensors file to write"
    )


def run(args: argparse.Namespace) -> None:
    hide_torch()
    from ...frontends.importance import importance_file
    from ...runtime.files import write_atomically
    from ..calibration import measure_importance

    check_folder("--output", args.output)
    text = read_text(args.text)
    imported = argparse.Namespace(model=args.model, weights="f32", kv="f32")
    if "context" in args:
        imported.max_seq = args.context
    model = import_named(imported)
    context = getattr(args, "context", min(_DEFAULT_CONTEXT, model.max_seq))
    windows = text_windows(args, model, text, context)
    with ProgressBar() as progress:
        vectors = measure_importance(model, windows, progress)
    tokens = sum(map(len, windows))
    facts = {
        "model": model.name,
        "text": args.text.name,
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "tokens": str(tokens),
        "context": str(context),
    }
    write_atomically(args.output, importance_file(vectors, facts))
    print(f"{args.output}: {len(vectors)} matrices, {tokens} tokens of {args.text.name} in {len(windows)} windows")
