"""Trace a step on the GPU at hand: what each SM did and waited for, and when. docs/trace.md explains the pictures.

MODEL is what the other commands take, or the name of a shape, which gets random weights. Prints where the time went;
-o writes a timeline: .html for a browser, .json or .json.gz for ui.perfetto.dev, .npz for `amk trace --from`, which
needs no GPU."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import ProgressBar
from .options import add_import_options, add_pass_options, check_folder, natural, pass_options, positive

if TYPE_CHECKING:
    from ..trace.raw import RawTrace
    from ..trace.summary import TraceSummary
    from ..trace.timeline import Timeline

NAME = "trace"
HELP = "show what the SMs do in a step, and what they wait for"

_SUFFIXES = (".html", ".json", ".json.gz", ".npz")
_COLLECTING = ("max_seq", "sms", "set", "events")
"""Options that only make sense where a trace is taken; those without a default."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..bench.shapes import SHAPES

    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help=f"folder, GGUF file, smollm2-135m-instruct, hub id, or a shape: {', '.join(SHAPES)}",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help=f"write the timeline; what the name ends in decides: {', '.join(_SUFFIXES)}; may be repeated",
    )
    parser.add_argument(
        "--html", metavar="FILE", type=Path, default=argparse.SUPPRESS, help="write one HTML file, whatever its name"
    )
    parser.add_argument(
        "--perfetto", metavar="FILE", type=Path, default=argparse.SUPPRESS, help="write trace events, whatever the name"
    )
    parser.add_argument(
        "--json", metavar="FILE", type=Path, default=argparse.SUPPRESS, help="write the summary, with all timed steps"
    )
    parser.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        type=Path,
        default=argparse.SUPPRESS,
        help="read an .npz file that -o wrote, instead of tracing MODEL",
    )
    parser.add_argument(
        "--context", metavar="N", type=natural, default=128, help="positions before the traced step (default: 128)"
    )
    parser.add_argument(
        "--detail",
        choices=["phases", "stages"],
        default="phases",
        help="what is noted of the consumers: the parts of each phase, or each stage of the ring too, which costs more "
        "(default: phases)",
    )
    parser.add_argument(
        "--events",
        metavar="N",
        type=positive,
        default=argparse.SUPPRESS,
        help="room for events of an SM's consumers, and of its producer (default: what a first step needs)",
    )
    parser.add_argument(
        "--repeat",
        metavar="N",
        type=positive,
        default=50,
        help="steps that are timed, untraced and traced by turns (default: 50)",
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        type=positive,
        default=9,
        help="traced steps, of which the one of median length is shown (default: 9)",
    )
    add_import_options(parser, weights="bf16")
    parser.add_argument(
        "--sms", metavar="N", type=positive, default=argparse.SUPPRESS, help="SMs that work (default: all)"
    )
    add_pass_options(parser)


def run(args: argparse.Namespace) -> None:
    from ..trace.raw import read_raw
    from ..trace.summary import summarise, summary_text
    from ..trace.timeline import align

    _check(args)
    trace = read_raw(args.source) if "source" in args else _collect(args)
    timeline = align(trace)
    summary = summarise(timeline)
    print(summary_text(timeline, summary), flush=True)
    for path in _write(args, trace, timeline, summary):
        print(f"{path}: {path.stat().st_size:,} bytes" if path.is_file() else path)


def _check(args: argparse.Namespace) -> None:
    """Everything that can be refused is refused before the long work begins."""
    from ...amk_ir.errors import UsageError
    from ...backends.cuda.tracing import MAX_EVENTS

    for path in args.output:
        if not path.name.endswith(_SUFFIXES):
            raise UsageError(
                f"-o {path}: expected a name that ends in {', '.join(_SUFFIXES)}; or use --html or --perfetto"
            )
        check_folder("-o", path)
    for name in ("html", "perfetto", "json"):
        if name in args:
            check_folder(f"--{name}", getattr(args, name))
    if "source" in args:
        if args.model is not None:
            raise UsageError(f"--from {args.source}: goes without MODEL, found {args.model}")
        for name in _COLLECTING:
            if name in args:
                raise UsageError(
                    f"--from goes without --{name.replace('_', '-')}, which was chosen when {args.source} was taken"
                )
    elif args.model is None:
        raise UsageError("MODEL is missing: name a model or a shape, or give --from FILE")
    if getattr(args, "events", 0) > MAX_EVENTS:
        raise UsageError(f"--events {args.events}: expected at most {MAX_EVENTS}; use --detail phases for fewer events")
    pass_options(args)


def _collect(args: argparse.Namespace) -> RawTrace:
    from ...amk_ir.errors import DeviceError
    from ...backends.cuda.backend import detect_target
    from ..bench.models import open_model
    from ..trace.collect import TraceOptions, collect, plan_step
    from ..tuned import choose_options

    try:
        target = detect_target()
    except DeviceError as e:
        reason = str(e).removesuffix(": use the reference backend")
        raise DeviceError(f"no GPU to trace on: {reason}; --from FILE draws a trace that was taken elsewhere") from e
    model = open_model(args, args.model, [args.context])
    choice = choose_options(model.model, target, sms=getattr(args, "sms", None), options=pass_options(args))
    options = TraceOptions(args.context, args.detail, getattr(args, "events", None), args.repeat, args.steps)
    with ProgressBar() as progress, choice.blamed():
        kernel = plan_step(model.model, target, choice, args.context)
        return collect(model, kernel, options, progress)


def _write(args: argparse.Namespace, trace: RawTrace, timeline: Timeline, summary: TraceSummary) -> list[Path]:
    """Writes the files that were asked for, each whole or not at all; returns their names."""
    from ...runtime.files import write_atomically
    from ..trace.html import timeline_html
    from ..trace.perfetto import perfetto_json
    from ..trace.raw import write_raw
    from ..trace.summary import summary_json

    paths: list[Path] = []

    def write_html(path: Path) -> None:
        write_atomically(path, timeline_html(timeline, summary).encode())

    def write_perfetto(path: Path) -> None:
        write_atomically(path, perfetto_json(timeline, compress=path.suffix == ".gz"))

    def write_json(path: Path) -> None:
        content = json.dumps(summary_json(timeline, summary), indent=1, allow_nan=False)
        write_atomically(path, f"{content}\n".encode())

    for path in args.output:
        if path.suffix == ".npz":
            write_raw(path, trace)
        elif path.suffix == ".html":
            write_html(path)
        else:
            write_perfetto(path)
        paths.append(path)
    for name, write in (("html", write_html), ("perfetto", write_perfetto), ("json", write_json)):
        if (path := getattr(args, name, None)) is not None:
            write(path)
            paths.append(path)
    return paths
