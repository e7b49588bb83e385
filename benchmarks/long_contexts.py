"""Time per token against the length of the context, of the two kernels that a session has: one SM a KV head, and all SMs.

    python benchmarks/long_contexts.py llama-3.2-1b llama-3.1-8b --context 16 1024 8192 32000 --set in-flight=4 --json FILE

Each MODEL is a shape of `amk bench` with random weights. Beside the times: the KV bytes that a step reads, and what they take
at the measured read peak. Correctness is that of `amk bench` and of tests/gpu: nothing is checked here. --set chooses pass
options of both kernels, besides `parts`, in which they differ.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from functools import partial
from typing import Any

import environment
import kernel_options
from random_weights import packed_pieces

from amk.amk_ir.targets import Target
from amk.backends.cuda.compile import compile_kernel, compile_together
from amk.backends.cuda.driver import LoadedKernel
from amk.backends.cuda.emit import ENTRY
from amk.frontends.import_model import import_config
from amk.runtime.compile import plan
from amk.tools.bench.device import CudaDevice
from amk.tools.bench.shapes import SHAPES

KERNELS = {"one SM a KV head": 1, "all SMs": 0}
"""The kernels of a session, and into how many parts each divides attention."""
FARTHEST = 4096
"""Contexts beyond it are not measured with one SM a KV head."""


def measure(
    name: str, target: Target, contexts: list[int], repeats: int, peak: float, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Microseconds of a step by kernel and context: every repetition, after some that are not counted."""
    model = import_config(SHAPES[name], name=name, weight_dtype="bf16", kv_dtype="bf16", max_seq=max(contexts) + 64)
    c = model.config
    bytes_a_position = c.layers * 2 * c.kv_heads * c.head_dim * 2
    result: dict[str, Any] = {"model": name, "kv_bytes_a_position": bytes_a_position, "kernels": {}}
    plans = [plan(model.module, target, options={**options, "parts": parts}) for parts in KERNELS.values()]
    kernels = compile_together([partial(compile_kernel, kernel) for kernel in plans])
    for (kernel_name, parts), compiled in zip(KERNELS.items(), kernels, strict=True):
        loaded = LoadedKernel(compiled.plan, compiled.image, packed_pieces(compiled.plan), ENTRY)
        times: dict[str, list[float]] = {}
        for context in contexts:
            if parts == 1 and context > FARTHEST:
                continue
            loaded.time_steps(context, 5)
            times[str(context)] = [t * 1e3 for t in loaded.time_steps(context, repeats)]
            kv = context * bytes_a_position
            print(
                f"{name:16}{kernel_name:18}{context:6}: {statistics.median(times[str(context)]):8.1f} us "
                f"(KV {kv / 1e6:7.1f} MB, {kv / peak * 1e6:6.1f} us at the peak)",
                flush=True,
            )
        loaded.close()
        result["kernels"][kernel_name] = times
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=sorted(SHAPES), metavar="MODEL")
    parser.add_argument("--context", type=int, nargs="+", default=[16, 1024, 8192, 32000])
    parser.add_argument("--repeat", type=int, default=20)
    kernel_options.add_set(parser)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    options = kernel_options.chosen(parser, args, decided=("parts",))
    device = CudaDevice()
    peak = device.read_peak()
    print(f"read peak {peak / 1e9:.0f} GB/s", flush=True)
    results = [measure(name, device.target, args.context, args.repeat, peak, options) for name in args.models]
    facts = {"read_peak_bytes_per_s": peak, "options": options, "models": results}
    environment.write(args.json, "long_contexts", facts)


if __name__ == "__main__":
    main()
