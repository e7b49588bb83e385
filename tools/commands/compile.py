"""Compile a model for a GPU; needs no GPU. The folder gets the plan (plan.mlir), the kernel (kernel.cu, kernel.cubin),
the packed weights and a manifest with the SHA-256 of each. Plans and kernels are kept in a cache."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..progress import ProgressBar
from .options import add_model, add_pass_options, add_target, import_named, pass_options

NAME = "compile"
HELP = "compile a model for a GPU into a folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, weights="bf16")
    add_target(parser, "sm_90a")
    add_pass_options(parser)
    parser.add_argument("-o", "--output", metavar="DIR", type=Path, required=True, help="the folder to make or replace")
    parser.add_argument(
        "--token-loop", action="store_true", help="make a kernel for `amk generate --steps-per-launch K`"
    )
    parser.add_argument("--no-weights", action="store_true", help="leave the packed weights out")


def run(args: argparse.Namespace) -> None:
    from ..api import choose_target, compile

    target = choose_target("cuda", args.target)
    options = pass_options(args)
    model = import_named(args, "bf16")
    with ProgressBar() as progress:
        result = compile(
            model,
            target,
            args.output,
            sms=getattr(args, "sms", None),
            options=options,
            with_weights=not args.no_weights,
            token_loop=args.token_loop,
            progress=progress,
        )
    manifest = result.artifact.manifest
    how = "kernel from the cache" if result.from_cache else "kernel compiled"
    print(
        f"{args.output}: {manifest['model']} for {manifest['target']}, {manifest['sms']} SMs, "
        f"{manifest['registers']} registers, {manifest['shared_memory']:,} bytes of shared memory; {how}"
    )
    if result.choice.options or result.choice.record is not None:
        print(f"  pass options  {result.choice}")
    for name, entry in manifest["files"].items():
        print(f"  {name:<13} {entry['bytes']:>14,} bytes")
