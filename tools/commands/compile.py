"""Compile a model for a GPU; needs no GPU. The folder gets the kernels of a session (plan.mlir, kernel.cu, kernel.cubin;
far.* for long contexts, chunk.* with --chunk), the packed weights that they share, and a manifest with the SHA-256 of each.
Plans and kernels are kept in a cache."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import ProgressBar
from .options import (
    add_import_options,
    add_pass_options,
    add_target,
    import_named,
    pass_options,
    positive,
    quantize_shape,
)

if TYPE_CHECKING:
    from ...frontends.import_model import ImportedModel

NAME = "compile"
HELP = "compile a model for a GPU into a folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="folder, GGUF file, smollm2-135m-instruct or hub id; with --no-weights also a shape of `amk bench`",
    )
    add_import_options(parser, weights="bf16")
    add_target(parser, "sm_90a")
    add_pass_options(parser)
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="the folder to make or replace")
    parser.add_argument(
        "--token-loop", action="store_true", help="make kernels for `amk generate --steps-per-launch K`"
    )
    parser.add_argument(
        "--chunk",
        metavar="T",
        type=positive,
        default=1,
        help="add a kernel that takes T tokens of a prompt at once, up to 8 (default: 1, none)",
    )
    parser.add_argument(
        "--far-from",
        metavar="POSITION",
        type=positive,
        default=argparse.SUPPRESS,
        help="from where on a second kernel divides attention among more SMs; there is none if it is max_seq or later "
        "(default: 320; small models: 384, or 192 with heads of 128 elements)",
    )
    parser.add_argument("--no-weights", action="store_true", help="leave the packed weights out")


def run(args: argparse.Namespace) -> None:
    from ...backends.cuda.limits import MOST_TOKENS
    from ...runtime.artifacts import check_writable
    from ...runtime.session import check_division
    from ..api import choose_target, compile

    # Everything that can be refused is refused before the long work begins.
    check_writable(args.output)
    check_division(args.chunk, None, MOST_TOKENS)
    target = choose_target("cuda", args.target)
    options = pass_options(args)
    model = _import(args)
    with ProgressBar() as progress:
        result = compile(
            model,
            target,
            args.output,
            sms=getattr(args, "sms", None),
            options=options,
            with_weights=not args.no_weights,
            token_loop=args.token_loop,
            chunk=args.chunk,
            far_from=getattr(args, "far_from", None),
            progress=progress,
        )
    manifest = result.artifact.manifest
    how = "kernels from the cache" if result.from_cache else "kernels compiled"
    print(f"{args.output}: {manifest['model']} for {manifest['target']}, {manifest['sms']} SMs; {how}")
    uses = {"step": "one token", "chunk": f"{manifest['chunk']} tokens of a prompt"}
    uses["far"] = f"one token from position {manifest['far_from']} on"
    for role, kernel in manifest["kernels"].items():
        print(
            f"  {role:<7} {uses[role]}: {kernel['registers']} registers, {kernel['shared_memory']:,} bytes of shared memory"
        )
    if result.choice.options or result.choice.record is not None:
        print(f"  pass options  {result.choice}")
    for name, entry in manifest["files"].items():
        print(f"  {name:<18} {entry['bytes']:>14,} bytes")


def _import(args: argparse.Namespace) -> ImportedModel:
    """The model, or the shape, that the arguments name."""
    from ...amk_ir.errors import UsageError
    from ...frontends.import_model import import_config
    from ..bench.shapes import SHAPES

    if args.model not in SHAPES or Path(args.model).exists():
        return import_named(args, "bf16")
    if not args.no_weights:
        raise UsageError(f"{args.model}: is a shape, which has no weights; compile it with --no-weights")
    shape = import_config(
        SHAPES[args.model],
        name=args.model,
        max_seq=getattr(args, "max_seq", None),
        weight_dtype="f32" if getattr(args, "weights", "bf16") == "f32" else "bf16",
        kv_dtype=args.kv,
    )
    return quantize_shape(args, shape)
