"""The cost of a step of several tokens, beside that of one: with logits of all rows, and without outputs.

    python benchmarks/chunk_cost.py llama-3.2-1b llama-3.1-8b --tokens 8 --context 128 --set in-flight=4

Each MODEL is a shape of `amk bench` with random weights. The rows of a step are compared with single tokens, bit by bit.
--set chooses pass options of all kernels: a session uses those of the ring for single tokens only.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import environment
import kernel_options
import numpy as np
from random_weights import packed_pieces

from amk.backends.cuda.backend import detect_target
from amk.backends.cuda.compile import compile_kernel, compile_together
from amk.backends.cuda.driver import LoadedKernel
from amk.backends.cuda.emit import ENTRY
from amk.frontends.import_model import import_config
from amk.passes.verify_schedule import VerifiedKernel
from amk.runtime.compile import plan
from amk.tools.bench.shapes import SHAPES


def lowered(name: str, tokens: int, outputs: bool, max_seq: int, options: Mapping[str, Any]) -> VerifiedKernel:
    model = import_config(SHAPES[name], name=name, weight_dtype="bf16", kv_dtype="bf16", max_seq=max_seq, tokens=tokens)
    return plan(model.module, detect_target(), options=options, outputs=outputs)


def measure(
    name: str, tokens: int, contexts: list[int], repeats: int, checked: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Microseconds of a step of each kind, by context."""
    result: dict[str, Any] = {"model": name, "tokens": tokens, "steps_us": {}}
    rows: dict[int, Any] = {}
    kinds = ((1, True), (tokens, True), (tokens, False))
    start = time.perf_counter()
    plans = [lowered(name, count, outputs, max(*contexts, 128) + 64, options) for count, outputs in kinds]
    kernels = compile_together([partial(compile_kernel, kernel) for kernel in plans])
    print(f"{name:16} {len(kernels)} kernels compiled in {time.perf_counter() - start:.1f} s", flush=True)
    for (count, outputs), compiled in zip(kinds, kernels, strict=True):
        loaded = LoadedKernel(compiled.plan, compiled.image, packed_pieces(compiled.plan), ENTRY)
        if outputs:
            prompt = np.random.default_rng(0).integers(0, 1000, checked).astype(np.int32)
            rows[count] = np.concatenate(
                [loaded.step({"token": prompt[p : p + count]}, p)["logits"].copy() for p in range(0, checked, count)]
            )
        times = {}
        for context in contexts:
            loaded.time_steps(context, 5)
            times[context] = statistics.median(t * 1e3 for t in loaded.time_steps(context, repeats))
        loaded.close()
        kind = f"{count} tokens{'' if outputs else ', no outputs'}"
        result["steps_us"][kind] = times
        print(
            f"{name:16} {kind:24} "
            + ", ".join(f"at {c}: {t:8.1f} us" for c, t in times.items())
            + f" ({compiled.resources.registers} registers, {compiled.plan.ring.stages} stages)",
            flush=True,
        )
    difference = np.abs(rows[tokens] - rows[1])
    result["equal_bits"] = bool(np.array_equal(rows[tokens], rows[1]))
    result["greatest_difference"] = float(difference.max() / np.abs(rows[1]).max())
    print(f"{name:16} equal bits {result['equal_bits']}, greatest difference {result['greatest_difference']:.1e}")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=sorted(SHAPES), metavar="MODEL")
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--context", type=int, nargs="+", default=[128])
    parser.add_argument("--repeat", type=int, default=30)
    parser.add_argument("--checked", type=int, default=64, help="positions whose logits are compared")
    kernel_options.add_set(parser)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    options = kernel_options.chosen(parser, args)
    results = [measure(name, args.tokens, args.context, args.repeat, args.checked, options) for name in args.models]
    environment.write(args.json, "chunk_cost", {"options": options, "models": results})


if __name__ == "__main__":
    main()
