"""Say what a model is, how many bytes a token must read, and how fast each known GPU could be at best.

The floor is bytes / memory bandwidth: no kernel that reads each weight once a token can be faster."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .options import add_model, import_named

if TYPE_CHECKING:
    from ...frontends.import_model import ImportedModel

_SIZES = (2, 4)
"""Bytes of a bf16 and of an f32 number."""

NAME = "info"
HELP = "what a model is, bytes a token must read, floor per GPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser, weights="f32")


def run(args: argparse.Namespace) -> None:
    print("\n".join(describe(args.model, import_named(args))))


def describe(name: str, model: ImportedModel) -> Iterator[str]:
    """The lines of the report on an imported model."""
    from ...amk_ir.targets import TARGETS
    from ...runtime.footprint import footprint, model_of

    counts = footprint(model_of(model.module))
    config = model.config
    yield name
    if model.checkpoint is not None:
        stored = Counter[str]()
        for tensor in model.checkpoint.tensors.values():
            stored[tensor.dtype] += tensor.nbytes
        files = model.checkpoint.files
        yield f"  files          {files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
        yield f"  stored as      {', '.join(f'{kind} {_megabytes(size)}' for kind, size in stored.most_common())}"
    yield f"  architecture   {', '.join(model.raw_config.get('architectures') or ['?'])}"
    yield f"  parameters     {counts.parameters / 1e6:,.1f} M ({'tied' if config.tied else 'separate'} head)"
    yield f"  layers         {config.layers} of width {config.hidden}, MLP {config.intermediate}"
    yield f"  attention      {config.heads} heads, {config.kv_heads} of keys and values, head_dim {config.head_dim}"
    yield f"  positions      {config.max_position:,}, {model.max_seq:,} of them served (--max-seq)"
    yield f"  vocabulary     {config.vocab:,}"
    yield ""
    weights = [counts.weight_bytes(size) for size in _SIZES]
    yield "a token reads                             bf16             f32"
    yield f"  weights                        {_megabytes(weights[0]):>13}   {_megabytes(weights[1]):>13}"
    if not model.quantization.is_nothing:
        yield f"  weights as quantised           {_megabytes(counts.typed_bytes):>13}"
    for position in (1, model.max_seq):
        cells = [_megabytes(counts.kv_per_position * position * size) for size in _SIZES]
        yield f"  KV cache of {position:>6,} positions   {cells[0]:>13}   {cells[1]:>13}"
    yield ""
    yield "floor per token (weights / memory bandwidth)"
    for target in TARGETS.values():
        for gpu in target.gpus:
            seconds = [size / (gpu.bandwidth_gb_s * 1e9) for size in weights]
            cells = "   ".join(f"{s * 1e6:>9,.0f} us = {1 / s:>6,.0f}/s" for s in seconds)
            yield f"  {target.name:<8} {gpu.name:<11} {gpu.bandwidth_gb_s:>6,.0f} GB/s {cells}"
    if model.quantization.is_nothing:
        return
    yield ""
    yield "floor per token of the quantised weights"
    for target in TARGETS.values():
        for gpu in target.gpus:
            s = counts.typed_bytes / (gpu.bandwidth_gb_s * 1e9)
            cell = f"{s * 1e6:>9,.0f} us = {1 / s:>6,.0f}/s"
            yield f"  {target.name:<8} {gpu.name:<11} {gpu.bandwidth_gb_s:>6,.0f} GB/s {cell}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.2f} MB"
