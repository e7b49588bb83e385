"""The cost of a step of several tokens, beside that of one: with logits of all rows, and without outputs.

    python benchmarks/chunk_cost.py llama-3.2-1b llama-3.1-8b --tokens 8 --context 128

Each MODEL is a shape of `amk bench` with random weights. The rows of a step are compared with single tokens, bit by bit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import environment
import numpy as np
from random_weights import packed_pieces

from amk.backends.cuda.backend import detect_target
from amk.backends.cuda.compile import compile_kernel
from amk.backends.cuda.driver import LoadedKernel
from amk.backends.cuda.emit import ENTRY
from amk.frontends.import_model import import_config
from amk.passes.graph_to_queue import GraphToQueuePass
from amk.passes.verify_schedule import VerifiedKernel, verify
from amk.runtime.compile import find_kernel, new_context
from amk.tools.bench.shapes import SHAPES


def lowered(name: str, tokens: int, outputs: bool, max_seq: int) -> VerifiedKernel:
    target = detect_target()
    model = import_config(SHAPES[name], name=name, weight_dtype="bf16", kv_dtype="bf16", max_seq=max_seq, tokens=tokens)
    module = model.module.clone()
    GraphToQueuePass(target=target.name, sms=target.num_sms, outputs=outputs).apply(new_context(), module)
    return verify(find_kernel(module))


def measure(name: str, tokens: int, contexts: list[int], repeats: int, checked: int) -> dict[str, Any]:
    """Microseconds of a step of each kind, by context."""
    result: dict[str, Any] = {"model": name, "tokens": tokens, "steps_us": {}}
    rows: dict[int, Any] = {}
    for count, outputs in ((1, True), (tokens, True), (tokens, False)):
        start = time.perf_counter()
        compiled = compile_kernel(lowered(name, count, outputs, max(*contexts, 128) + 64))
        loaded = LoadedKernel(compiled.plan, compiled.image, packed_pieces(compiled.plan), ENTRY)
        ready_s = time.perf_counter() - start
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
            + f" ({compiled.resources.registers} registers, {compiled.plan.ring.stages} stages, ready in {ready_s:.1f} s)",
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
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    results: list[dict[str, Any]] = []
    for name in options.models:
        results.append(measure(name, options.tokens, options.context, options.repeat, options.checked))
    environment.write(options.json, "chunk_cost", {"models": results})


if __name__ == "__main__":
    main()
