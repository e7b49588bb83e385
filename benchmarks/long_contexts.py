"""Time per token against the length of the context, of the two kernels that a session has: one SM a KV head, and all SMs.

    python benchmarks/long_contexts.py llama-3.2-1b llama-3.1-8b --context 16 1024 8192 32000 --json FILE

Each MODEL is a shape of `amk bench` with random weights. Beside the times: the KV bytes that a step reads, and what they take
at the measured read peak. Correctness is that of `amk bench` and of tests/gpu: nothing is checked here.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import environment
from random_weights import packed_pieces

from amk.backends.cuda.backend import detect_target
from amk.backends.cuda.compile import compile_kernel
from amk.backends.cuda.driver import LoadedKernel
from amk.backends.cuda.emit import ENTRY
from amk.frontends.import_model import import_config
from amk.runtime.compile import plan
from amk.tools.bench.read_peak import read_peak
from amk.tools.bench.shapes import SHAPES


def measure(name: str, contexts: list[int], repeats: int, peak: float) -> dict[str, Any]:
    """Microseconds of a step by kernel and context: every repetition, after some that are not counted."""
    model = import_config(SHAPES[name], name=name, weight_dtype="bf16", kv_dtype="bf16", max_seq=max(contexts) + 64)
    c = model.config
    bytes_a_position = c.layers * 2 * c.kv_heads * c.head_dim * 2
    result: dict[str, Any] = {"model": name, "kv_bytes_a_position": bytes_a_position, "kernels": {}}
    for parts, kernel_name in ((1, "one SM a KV head"), (0, "all SMs")):
        compiled = compile_kernel(plan(model.module, detect_target(), options={"parts": parts}))
        loaded = LoadedKernel(compiled.plan, compiled.image, packed_pieces(compiled.plan), ENTRY)
        times: dict[str, list[float]] = {}
        for context in contexts:
            if parts == 1 and context > 4096:
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
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    peak = read_peak(detect_target())
    print(f"read peak {peak / 1e9:.0f} GB/s", flush=True)
    results = [measure(name, options.context, options.repeat, peak) for name in options.models]
    environment.write(options.json, "long_contexts", {"read_peak_bytes_per_s": peak, "models": results})


if __name__ == "__main__":
    main()
