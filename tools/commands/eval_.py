"""Measure accuracy: perplexity on a text, and the KL divergence of the predictions from those of the float32 model.

The reference is MODEL itself in float32 (a quantised checkpoint dequantised exactly), or another one (--reference). Each
--format is evaluated beside it on the same windows of text."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...amk_ir.errors import UsageError
from ..progress import ProgressBar
from .options import (
    add_importance,
    add_target,
    add_windows,
    check_folder,
    check_importance_is_used,
    hide_torch,
    import_named,
    read_text,
    text_windows,
)

if TYPE_CHECKING:
    from ...amk_ir.dtypes import FloatType
    from ...frontends.import_model import ImportedModel
    from ...runtime.weight_formats import WeightFormat
    from ..evaluate import Result

NAME = "eval"
HELP = "perplexity and KL divergence of weight formats"
DEFAULT_TEXT = Path(__file__).parents[1] / "texts" / "alice.txt"
"""The first chapter of Lewis Carroll's Alice's Adventures in Wonderland (1865), which is in the public domain."""
_DEFAULT_CONTEXT = 256
_FORMATS = "f32, bf16, stored (as the checkpoint has them), int8, int4 or fp8 with :gN, :bRxC, :zp, :min, :f16, :bf16"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="folder, GGUF file, smollm2-135m-instruct or hub id")
    parser.add_argument(
        "--format",
        metavar="FORMAT[,FORMAT]",
        action="append",
        default=argparse.SUPPRESS,
        help=f"what the matrices are: {_FORMATS}; may be given more than once (default: bf16, and stored if the "
        "checkpoint is quantised)",
    )
    parser.add_argument(
        "--outer", action="store_true", help="quantise the head and the embedding too (default: they are bf16)"
    )
    parser.add_argument(
        "--reference", metavar="MODEL", default=argparse.SUPPRESS, help="compare with this model in float32 instead"
    )
    parser.add_argument(
        "--text", metavar="FILE", type=Path, default=DEFAULT_TEXT, help="UTF-8 text (default: a chapter of Alice)"
    )
    add_windows(parser, _DEFAULT_CONTEXT, limit=1024)
    add_importance(parser)
    parser.add_argument(
        "--backend",
        choices=["reference", "cuda"],
        default="reference",
        help="what runs the formats; the reference is always NumPy in float32 (default: reference)",
    )
    parser.add_argument(
        "--kv", choices=["f32", "bf16"], default=argparse.SUPPRESS, help="dtype of the KV cache (as in generate)"
    )
    add_target(parser)
    parser.add_argument("--json", metavar="FILE", type=Path, default=argparse.SUPPRESS, help="write all results there")


def run(args: argparse.Namespace) -> None:
    hide_torch()
    from ...runtime.artifacts import file_digest
    from ...runtime.files import write_atomically
    from ..api import choose_target, default_dtype
    from ..evaluate import evaluate
    from ..quantize import with_importance

    formats = _formats(getattr(args, "format", None))
    if "importance" in args:
        check_importance_is_used(formats)
    if "json" in args:
        check_folder("--json", args.json)
    text = read_text(args.text)
    for name in ("target", "sms"):
        if name in args and args.backend != "cuda":
            raise UsageError(f"--{name} goes with --backend cuda: the reference backend evaluates whole graphs")
    target = choose_target(args.backend, getattr(args, "target", None)) if args.backend == "cuda" else None
    dtype = default_dtype(args.backend)
    model = _import(args.model, dtype, getattr(args, "kv", dtype), getattr(args, "context", None))
    reference = None
    if "reference" in args or (model.weight_dtype, model.kv_dtype) != ("f32", "f32"):
        reference = _import(getattr(args, "reference", args.model), "f32", "f32", model.max_seq)
    context = getattr(args, "context", min(_DEFAULT_CONTEXT, model.max_seq))
    windows = text_windows(args, model, text, context)
    if not formats:
        assert model.checkpoint is not None
        is_quantized = any(info.quantized for info in model.checkpoint.tensors.values())
        formats = _formats(["bf16", "stored"] if is_quantized else ["bf16"])

    importance: Path | None = getattr(args, "importance", None)
    if importance is not None:
        model, reference = with_importance(model, importance, head=args.outer), reference or model

    tokens = sum(map(len, windows))
    print(f"{args.model}\n{tokens} tokens of {args.text.name} in {len(windows)} windows, backend {args.backend}\n")
    print(_HEADER)
    with ProgressBar() as progress:

        def report(result: Result) -> None:
            progress.close()
            print(_line(result, not results), flush=True)
            results.append(result)

        results: list[Result] = []
        evaluate(
            model,
            formats,
            windows,
            backend=args.backend,
            reference=reference,
            target=target,
            sms=getattr(args, "sms", None),
            outer=args.outer,
            progress=progress,
            report=report,
        )
    if "json" in args:
        record: dict[str, Any] = {
            "model": args.model,
            "reference": getattr(args, "reference", args.model),
            "stored_as": sorted({info.dtype for info in model.checkpoint.tensors.values()}) if model.checkpoint else [],
            "backend": args.backend,
            "importance": None if importance is None else {"name": importance.name, "sha256": file_digest(importance)},
            "outer": args.outer,
            "text": {"name": args.text.name, "sha256": hashlib.sha256(text.encode()).hexdigest()},
            "tokens": tokens,
            "windows": [len(window) for window in windows],
            "results": [
                {"format": r.name, "matrix_bytes": r.nbytes, **r.metrics, "seconds": round(r.seconds, 2)}
                for r in results
            ],
        }
        write_atomically(args.json, (json.dumps(record, indent=1) + "\n").encode())


def _import(name: str, weights: FloatType, kv: FloatType, max_seq: int | None) -> ImportedModel:
    args = argparse.Namespace(model=name, weights=weights, kv=kv)
    if max_seq is not None:
        args.max_seq = max_seq
    return import_named(args)


def _formats(given: list[str] | None) -> dict[str, WeightFormat]:
    from ...runtime.weight_formats import parse_weight_format

    names = [name for part in given or () for name in part.split(",")]
    try:
        return {name: parse_weight_format(name) for name in names}
    except UsageError as e:
        raise UsageError(f"--format: {e}") from e


_HEADER = f"{'format':<17} {'MB':>8} {'perplexity':>10} {'change':>9} {'+-':>7} {'KL mean':>9} {'top-1':>7}"


def _line(result: Result, is_reference: bool) -> str:
    """A row of the table; the reference differs from itself in nothing."""
    m = result.metrics
    size = f"{result.name:<17} {result.nbytes / 1e6:>8,.1f}"
    if m["perplexity"] is None:
        return f"{size}  some logits are not finite"
    if is_reference:
        return f"{size} {m['perplexity']:>10.6g}"
    return (
        f"{size} {m['perplexity']:>10.6g} {m['change']:>+9.3%} {m['change_error']:>7.3%} {m['kl_mean']:>9.2e} "
        f"{m['top1_agreement']:>7.1%}"
    )
