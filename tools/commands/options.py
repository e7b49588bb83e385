"""Options that several subcommands have."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...amk_ir.errors import UsageError

if TYPE_CHECKING:
    from ...amk_ir.dtypes import FloatType
    from ...amk_ir.weight_choice import WeightChoice
    from ...frontends.import_model import ImportedModel


def positive(text: str) -> int:
    """argparse type: an integer of at least 1."""
    return _at_least(text, 1)


def natural(text: str) -> int:
    """argparse type: an integer of at least 0."""
    return _at_least(text, 0)


def _at_least(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected an integer of at least {least}, found {text!r}")
    return value


def add_model(parser: argparse.ArgumentParser, *, weights: str | None) -> None:
    """MODEL and how to import it. `weights`: the default dtype, None if it depends on the backend."""
    parser.add_argument("model", metavar="MODEL", help="folder, GGUF file, smollm2-135m-instruct or hub id")
    add_import_options(parser, weights=weights)


def add_import_options(parser: argparse.ArgumentParser, *, weights: str | None) -> None:
    """How to import a model. `weights`: as in `add_model`."""
    default = weights or argparse.SUPPRESS
    floats = weights or "f32 on the reference backend, bf16 on CUDA"
    parser.add_argument(
        "--max-seq",
        metavar="N",
        type=positive,
        default=argparse.SUPPRESS,
        help="positions of the KV cache: prompt and text together (default: the model's context, at most 2048)",
    )
    parser.add_argument(
        "--weights",
        metavar="FORMAT",
        default=argparse.SUPPRESS,
        help="the matrices: f32, bf16, a quantised format of those of the layers (int8, int8:g128, fp8, fp8:b128x128, "
        "int4:g128, int4:g128:zp, ...), or stored, as the checkpoint has them (default: stored if the checkpoint is "
        f"quantised, else {floats})",
    )
    for option, what in (
        ("--head", "the head, and of a table that is also the head"),
        ("--embedding", "the embedding"),
    ):
        parser.add_argument(
            option, metavar="FORMAT", default=argparse.SUPPRESS, help=f"quantised format of {what} (default: none)"
        )
    parser.add_argument(
        "--keep",
        metavar="NAME",
        action="append",
        default=argparse.SUPPRESS,
        help="a weight of the graph that is not quantised, with * and ? (may be repeated)",
    )
    add_importance(parser)
    parser.add_argument(
        "--kv", choices=["f32", "bf16"], help=f"dtype of the KV cache (default: {floats})", default=default
    )


def add_target(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """--target and --sms."""
    from ...amk_ir.targets import TARGETS

    shown = f" (default: {default})" if default else " (default: what the backend runs on)"
    parser.add_argument(
        "--target",
        default=default or argparse.SUPPRESS,
        metavar="TARGET",
        help=f"what to compile for: {', '.join(TARGETS)}{shown}",
    )
    parser.add_argument(
        "--sms",
        metavar="N",
        type=positive,
        default=argparse.SUPPRESS,
        help="size of the grid: SMs that work (default: all of the target)",
    )


def add_pass_options(parser: argparse.ArgumentParser) -> None:
    """--set and --no-tuned: see `pass_options`."""
    parser.add_argument(
        "--set",
        metavar="OPTION=VALUE",
        action="append",
        default=argparse.SUPPRESS,
        help="an option of the pass graph-to-queue, such as rows=16 (docs/passes.md); may be repeated",
    )
    parser.add_argument(
        "--no-tuned",
        action="store_true",
        help="leave out what `amk tune` found, which is used where neither --set nor --sms is given",
    )


def pass_options(args: argparse.Namespace) -> dict[str, Any] | None:
    """What the arguments of `add_pass_options` say: options, {} for the defaults, None for what was tuned."""
    texts: list[str] | None = getattr(args, "set", None)
    if texts is None:
        return {} if args.no_tuned else None
    from ...runtime.pass_options import parse_options  # which imports the passes

    return parse_options(texts, "--set")


def import_named(args: argparse.Namespace, dtype: FloatType = "f32") -> ImportedModel:
    """The model that the arguments of `add_model` name; `dtype` stands in for those not given.

    What could not be kept as it is stored is said on stderr.
    """
    # transformers tells the user of a missing torch, and counts on it; AMK does not need it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from ...amk_ir.weight_choice import STORED, WeightChoice
    from ...frontends.import_model import import_model
    from ..quantize import is_stored_quantized, quantize_imported, with_importance

    _check_name(args.model)
    choice = _weight_choice(args)
    weights: str | None = getattr(args, "weights", None)
    model = import_model(
        args.model,
        max_seq=getattr(args, "max_seq", None),
        weight_dtype=weights if weights == "f32" or weights == "bf16" else dtype,
        kv_dtype=getattr(args, "kv", dtype),
    )
    importance: Path | None = getattr(args, "importance", None)
    if importance is not None:
        check_importance_is_used((choice.weights, choice.head, choice.embedding))
        model = with_importance(model, importance, head=uses_importance(choice.head))
    if weights is None and choice.is_nothing and is_stored_quantized(model):
        choice = WeightChoice(STORED)
    return quantize_imported(model, choice, lambda line: print(f"amk: {line}", file=sys.stderr))


def uses_importance(format: str) -> bool:
    """Whether matrices are quantised to `format` by the importance of their inputs."""
    return format.startswith(("int8", "int4"))


def check_importance_is_used(formats: Iterable[str]) -> None:
    """Raises UsageError if --importance would change none of `formats`."""
    if not any(uses_importance(text) for text in formats):
        raise UsageError(
            "--importance goes with an int8 or int4 format: nothing else is quantised by the importance of inputs"
        )


def quantize_shape(args: argparse.Namespace, model: ImportedModel) -> ImportedModel:
    """A model without a checkpoint with its matrices quantised as the arguments of `add_import_options` say."""
    from ..quantize import quantize_imported

    if "importance" in args:
        raise UsageError("--importance goes with a checkpoint, not with a shape of random weights")
    return quantize_imported(model, _weight_choice(args))


def _weight_choice(args: argparse.Namespace) -> WeightChoice:
    """The formats that the arguments ask for; UsageError if there are none such."""
    from ...amk_ir.weight_choice import NONE, WeightChoice

    weights: str = getattr(args, "weights", NONE)
    choice = WeightChoice(
        NONE if weights in ("f32", "bf16") else weights,
        getattr(args, "head", NONE),
        getattr(args, "embedding", NONE),
        tuple(getattr(args, "keep", ())),
    )
    try:
        choice.check()
    except UsageError as e:
        expected = "; --weights is f32, bf16, stored or a format" if str(e).startswith("weights: quantised") else ""
        raise UsageError(f"--{e}{expected}") from e
    if choice.keep and choice.is_nothing:
        raise UsageError("--keep goes with a quantised format of --weights, --head or --embedding")
    return choice


def check_folder(option: str, path: Path) -> None:
    """Raises, before long work, if the file `path` that `option` names cannot be written.

    UsageError: it would be in no folder, or is one. StorageError: in one that may not be written to.
    """
    from ...runtime.files import check_place, is_special

    if path.is_dir():
        raise UsageError(f"{option} {path}: is a folder; expected the name of a file")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}")
    if not is_special(path):
        check_place(path)


def read_text(path: Path) -> str:
    """The UTF-8 text of a file that --text names; UsageError if there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise UsageError(f"--text {path}: not UTF-8 text ({e.reason} at byte {e.start})") from e
    except OSError as e:
        raise UsageError(f"--text {path}: cannot be read: {e.strerror or e}") from e
    if not text.strip():
        raise UsageError(f"--text {path}: the text is empty")
    return text


def _check_name(model: str) -> None:
    """Refuses what Python would take for the working directory, shapes, and folders without a model."""
    from ..bench.shapes import SHAPES

    expected = "a folder with config.json, a GGUF file, smollm2-135m-instruct or a hub id"
    if not model.strip():
        raise UsageError(f"MODEL is empty; expected {expected}")
    folder = Path(model)
    if not folder.exists() and model in SHAPES:
        raise UsageError(
            f"{model}: is a shape, which has no weights: `amk bench`, `amk tune`, `amk trace` and `amk compile --no-weights` take "
            f"one; expected {expected}"
        )
    if folder.is_dir() and not (folder / "config.json").exists():
        found = len(list(folder.glob("*.gguf")))
        if found != 1:
            gguf = f" and {found} GGUF files: name one of them" if found else ""
            raise UsageError(f"{model}: MODEL is a folder without config.json{gguf}; expected {expected}")


def add_importance(parser: argparse.ArgumentParser) -> None:
    """--importance, which is left out of the namespace if it is not given."""
    parser.add_argument(
        "--importance",
        metavar="FILE",
        type=Path,
        default=argparse.SUPPRESS,
        help="what `amk calibrate` measured, to quantise by it (goes with int8 and int4 formats)",
    )


def add_windows(parser: argparse.ArgumentParser, context: int, limit: int) -> None:
    """--context (left out of the namespace if it is not given) and --limit: what of a text is fed to a model."""
    parser.add_argument(
        "--context",
        metavar="N",
        type=positive,
        default=argparse.SUPPRESS,
        help=f"tokens in a window, each fed from position 0 (default: {context}, or what the model has)",
    )
    parser.add_argument(
        "--limit",
        metavar="TOKENS",
        type=natural,
        default=limit,
        help=f"first tokens of the text, 0: all (default: {limit})",
    )


def text_windows(args: argparse.Namespace, model: ImportedModel, text: str, context: int) -> list[list[int]]:
    """The first --limit tokens of `text`, that of --text, in windows; UsageError for ids that the model lacks."""
    from ...runtime.evaluation import split_windows

    ids = model.load_tokenizer().encode(text)
    if bad := [i for i in ids if i >= model.config.vocab]:
        raise UsageError(f"{args.text}: the tokenizer gives id {bad[0]}, the model has {model.config.vocab}")
    return split_windows(ids, context, args.limit or None)


def hide_torch() -> None:
    """AMK does not use torch, but transformers imports it where it is installed, which takes seconds."""
    sys.modules.setdefault("torch", None)  # pyright: ignore[reportArgumentType] (None is Python's way to say so)
