"""Measure the time of a step on the GPU at hand, beside its correctness, the share of the measured read peak, and what
torch.compile and the matrix products alone need (for int8 and int4 weights also torch's own), in the same run.
docs/bench.md explains the table and the JSON.

MODEL is what the other commands take, or the name of a shape, which gets random weights. --weights may list several formats
with commas in between, bf16,int8,int4:g128, and so may --head: each model is measured with each, the baselines in bf16 once.

Exit status: 0 measured and right, 1 something is wrong (logits, repeatability, lost memory), 2 not measured."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import ProgressBar, StageLines
from .options import add_import_options, add_pass_options, add_target, check_folder, natural, pass_options, positive

if TYPE_CHECKING:
    from ...runtime.backend import Progress
    from ..bench.comparison import Comparison, KnownBaselines
    from ..bench.device import Device
    from ..bench.models import BenchModel
    from ..bench.results import ModelResult, Report

NAME = "bench"
HELP = "measure the time of a step, with its correctness and baselines"

_BASELINES = ("torch-compile", "matmuls", "weight-only")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..bench.shapes import SHAPES

    parser.add_argument(
        "models",
        metavar="MODEL",
        nargs="+",
        help=f"folder, GGUF file, smollm2-135m-instruct, hub id, or a shape: {', '.join(SHAPES)}",
    )
    parser.add_argument(
        "--context",
        metavar="N",
        type=positive,
        nargs="+",
        default=[128],
        help="positions before the timed step (default: 128)",
    )
    parser.add_argument("--repeat", metavar="N", type=positive, default=50, help="timed steps (default: 50)")
    parser.add_argument(
        "--launches",
        metavar="N",
        type=natural,
        default=1000,
        help="more launches, after which no memory may be lost (default: 1000)",
    )
    add_import_options(parser, weights="bf16")
    add_target(parser, "auto")
    add_pass_options(parser)
    parser.add_argument(
        "--far-from",
        metavar="N",
        type=positive,
        default=argparse.SUPPRESS,
        help="position from which a kernel takes over that divides attention among more SMs, as in amk generate",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, default=argparse.SUPPRESS, help="write everything to FILE")
    baselines = parser.add_argument_group("baselines", "They need torch, which sees the GPU, and transformers.")
    baselines.add_argument(
        "--baselines",
        metavar="NAME",
        nargs="+",
        choices=_BASELINES,
        default=list(_BASELINES),
        help=f"those to run, of {', '.join(_BASELINES)} (default: all; the last one is of int8 and int4 weights)",
    )
    baselines.add_argument("--no-baselines", action="store_true", help="run none; logits are still compared")
    baselines.add_argument(
        "--compile-context",
        metavar="N",
        type=positive,
        nargs="+",
        default=argparse.SUPPRESS,
        help="contexts at which torch.compile is run, in this order, up to minutes each (default: those of --context)",
    )
    baselines.add_argument(
        "--compile-mode",
        metavar="MODE",
        choices=["default", "max-autotune-no-cudagraphs"],
        default="max-autotune-no-cudagraphs",
        help="of torch.compile: default or max-autotune-no-cudagraphs (default: the latter)",
    )


def run(args: argparse.Namespace) -> int:
    from ...amk_ir.errors import AmkError
    from ..bench.comparison import KnownBaselines
    from ..bench.device import CudaDevice
    from ..bench.models import open_models
    from ..bench.report import model_lines, report_lines
    from ..bench.results import Failure, Report

    # Everything that can be refused is refused before the long work begins.
    pass_options(args)
    contexts = tuple(sorted(set(args.context)))
    compiled_contexts = tuple(dict.fromkeys(getattr(args, "compile_context", args.context)))
    if "json" in args:
        check_folder("--json", args.json)
    _check_compile_contexts(contexts, compiled_contexts)
    _check_target(args)
    models = open_models(args, args.models, contexts)
    known = KnownBaselines()
    device = CudaDevice()
    _check_device(args, device)
    with ProgressBar() as progress:
        progress("measuring the read peak", 0, 1)
        report = Report(device.name, device.target.name, device.target.num_sms, device.read_peak())
        progress("measuring the read peak", 1, 1)
    print("\n".join(report_lines(report)), flush=True)
    for model in models:
        try:
            report.models.append(_measure(args, model, device, contexts, compiled_contexts, known))
        except AmkError as e:  # the others are worth having
            report.models.append(Failure(model.name, model.weights_text, str(e)))
        print("\n".join(["", *model_lines(report.models[-1], report.read_peak)]), flush=True)
        _write(args, report)
    if any(isinstance(model, Failure) for model in report.models):
        return 2
    return 0 if report.ok else 1


def _check_target(args: argparse.Namespace) -> None:
    """--target before there is a GPU to compare it with."""
    from ...amk_ir.errors import TargetError
    from ...amk_ir.targets import get_target

    if args.target != "auto" and not get_target(args.target).is_cuda:
        raise TargetError(f"target '{args.target}' is not a GPU; leave --target out")


def _check_device(args: argparse.Namespace, device: Device) -> None:
    from ...amk_ir.errors import TargetError

    if args.target not in ("auto", device.target.name):
        raise TargetError(f"--target {args.target}: {device.name} is {device.target.name}; leave --target out")


def _check_compile_contexts(contexts: Sequence[int], compiled: Sequence[int]) -> None:
    from ...amk_ir.errors import UsageError

    if others := sorted(set(compiled) - set(contexts)):
        raise UsageError(f"--compile-context {others[0]}: expected one of --context, which are {_list(contexts)}")


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _measure(
    args: argparse.Namespace,
    model: BenchModel,
    device: Device,
    contexts: tuple[int, ...],
    compiled_contexts: tuple[int, ...],
    known: KnownBaselines,
) -> ModelResult:
    from ...runtime.compile import far_position
    from ..bench.engine import load_engine
    from ..bench.measure import Settings, measure
    from ..tuned import choose_options

    choice = choose_options(model.model, device.target, sms=getattr(args, "sms", None), options=pass_options(args))
    far_from: int | None = getattr(args, "far_from", far_position(model.model.config))
    if far_from is not None and far_from > contexts[-1]:
        far_from = None  # it would not be used
    with StageLines(f"{model.name}, {model.weights_text}") as progress:
        result = measure(
            model,
            lambda: load_engine(model, device.target, choice, far_from, progress),
            device.used_bytes,
            lambda: _comparison(args, model, compiled_contexts, known, progress),
            Settings(contexts, args.repeat, args.launches, compiled_contexts),
            str(choice),
            progress,
        )
    return replace(result, seconds=progress.seconds)


def _comparison(
    args: argparse.Namespace,
    model: BenchModel,
    compiled_contexts: Sequence[int],
    known: KnownBaselines,
    progress: Progress,
) -> Comparison:
    from ..bench.comparison import ReferenceComparison, TorchComparison
    from ..bench.torch_model import torch_problem

    progress("looking for torch", 0, 1)
    if (problem := torch_problem()) is not None:
        return ReferenceComparison(model, problem, progress)
    return TorchComparison(
        model,
        repeats=args.repeat,
        mode=args.compile_mode,
        baselines=() if args.no_baselines else tuple(args.baselines),
        compiled_contexts=compiled_contexts,
        known=known,
        progress=progress,
    )


def _write(args: argparse.Namespace, report: Report) -> None:
    import json

    from ...runtime.files import write_atomically
    from ..bench.environment import environment
    from ..bench.results import to_json

    if (path := getattr(args, "json", None)) is not None:
        arguments: dict[str, Any] = {name: value for name, value in vars(args).items() if name not in ("run", "json")}
        content = json.dumps(to_json(report, environment(), arguments), indent=1, default=str, allow_nan=False)
        write_atomically(path, f"{content}\n".encode())
