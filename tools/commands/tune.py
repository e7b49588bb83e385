"""Search the pass options for those that make a model's steps fastest on the GPU at hand. docs/tune.md says how.

Every candidate is verified before it runs, and its logits are compared before it may win. The result is kept by GPU,
target and shape, and used by compile, generate and bench, unless they are told not to."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..progress import ProgressBar
from .options import add_import_options, check_folder, positive

if TYPE_CHECKING:
    from ...frontends.import_model import ImportedModel
    from ...runtime.tuned import TunedStore
    from ..bench.device import Device
    from ..tune.search import Found, Search
    from ..tune.space import Candidate

NAME = "tune"
HELP = "search the pass options for those that are fastest on this GPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ..bench.shapes import SHAPES

    parser.add_argument(
        "model",
        metavar="MODEL",
        help=f"folder, GGUF file, smollm2-135m-instruct, hub id, or a shape: {', '.join(SHAPES)}",
    )
    parser.add_argument(
        "--context",
        metavar="N",
        type=positive,
        nargs="+",
        default=[128],
        help="positions before the timed steps, all of which count alike (default: 128)",
    )
    parser.add_argument(
        "--budget", metavar="SECONDS", type=positive, default=300, help="time for the search (default: 300)"
    )
    parser.add_argument(
        "--options",
        metavar="NAME",
        nargs="+",
        default=argparse.SUPPRESS,
        help="vary only these, such as in-flight, rows or sms (default: all)",
    )
    parser.add_argument(
        "--from-defaults", action="store_true", help="do not begin with what an earlier search for this shape found"
    )
    add_import_options(parser, weights="bf16")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, default=argparse.SUPPRESS, help="write all trials and times to FILE"
    )


def run(args: argparse.Namespace) -> None:
    from ...runtime.tuned import TunedStore
    from ..bench.device import CudaDevice
    from ..bench.models import open_model
    from ..tune.report import report_lines
    from ..tune.search import Search
    from ..tune.space import axes
    from ..tune.workshop import CudaWorkshop

    # Everything that can be refused is refused before the long work begins.
    store = TunedStore()
    store.check()
    if "json" in args:
        check_folder("--json", args.json)
    contexts = tuple(sorted(set(args.context)))
    only: list[str] | None = getattr(args, "options", None)
    model = open_model(args, args.model, contexts)
    device = CudaDevice()
    varied = axes(device.target, only)
    print(f"{device.name}, {device.target.name}: {model.name}, at most {args.budget} s", file=sys.stderr)
    with ProgressBar() as progress:
        search = Search(
            CudaWorkshop(model, device.target, contexts[-1], progress),
            varied,
            contexts,
            model.model.config.vocab,
            args.budget,
            first=None if args.from_defaults else _found_before(store, device, model.model),
        )
        found, path = tune(search, store, device, model.model)
    print("\n".join(report_lines(model.name, found, varied, contexts, path)))
    _write(args, search, found, device, path)


def tune(search: Search, store: TunedStore, device: Device, model: ImportedModel) -> tuple[Found, Path]:
    """Runs `search`, says on stderr what it tries, and keeps what it finds, also if it ends by an error or Ctrl-C.

    Returns what was found, and where it is kept.
    """
    from ...runtime.tuned import TunedRecord, tuned_shape
    from ..tune.report import trial_line

    def keep(best: Candidate, default_us: tuple[float, ...], best_us: tuple[float, ...]) -> Path:
        return store.put(
            TunedRecord(
                device.name,
                device.target.name,
                device.target.num_sms,
                tuned_shape(model),
                best.options,
                best.sms,
                search.contexts,
                default_us,
                best_us,
            )
        )

    search.keep = keep
    search.report = lambda trial: print(trial_line(trial), file=sys.stderr)
    found = search.run()
    return found, keep(found.best, found.default_us, found.best_us)


def _found_before(store: TunedStore, device: Device, model: ImportedModel) -> Candidate | None:
    from ...runtime.tuned import tuned_shape
    from ..tune.space import Candidate

    record = store.find(device.name, device.target.name, tuned_shape(model))
    return None if record is None else Candidate(record.options, record.sms)


def _write(args: argparse.Namespace, search: Search, found: Found, device: Device, path: Path) -> None:
    import json

    from ...runtime.files import write_atomically
    from ..bench.environment import environment
    from ..tune.report import to_json

    if (file := getattr(args, "json", None)) is not None:
        arguments = {name: value for name, value in vars(args).items() if name not in ("run", "json")}
        facts = {
            "gpu": device.name,
            "target": device.target.name,
            "num_sms": device.target.num_sms,
            "environment": environment(),
            "arguments": arguments,
        }
        content = to_json(args.model, found, search.contexts, search.rules, facts, path)
        write_atomically(file, (json.dumps(content, indent=1, default=str, allow_nan=False) + "\n").encode())
