"""Time per token of several steps a launch, beside one step a launch with and without the loop in the kernel.

    python benchmarks/steps_per_launch.py smollm2-135m llama-3.2-1b --steps 1 8 64 --context 128

Each MODEL is a shape of `amk bench` with random weights. `host` is the wall clock a token of a session that takes them as
they come; `device` the time between two events around a launch, divided by its steps.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import environment
import numpy as np
from random_weights import packed_pieces

from amk.backends.cuda.backend import CudaExecutable, detect_target
from amk.backends.cuda.compile import compile_kernel
from amk.backends.cuda.driver import LoadedKernel
from amk.backends.cuda.emit import ENTRY
from amk.frontends.import_model import import_config
from amk.runtime.compile import plan
from amk.tools.bench.shapes import SHAPES


def measure(name: str, steps: list[int], context: int, launches: int) -> dict[str, Any]:
    """Microseconds a token."""
    most = max(steps)
    model = import_config(
        SHAPES[name], name=name, weight_dtype="bf16", kv_dtype="bf16", max_seq=context + 2 * most + 64
    )
    kernel = plan(model.module, detect_target())
    result: dict[str, Any] = {"model": name, "context": context, "rows": []}
    for token_loop in (False, True):
        compiled = compile_kernel(kernel, token_loop=token_loop)
        executable = CudaExecutable(LoadedKernel(compiled.plan, compiled.image, packed_pieces(compiled.plan), ENTRY))
        loaded = executable.loaded
        for pos in range(context):
            executable.step(pos % 1000, pos)
        for count in steps if token_loop else [1]:
            loaded.time_steps(context, 5, count)
            device = [t * 1e3 / count for t in loaded.time_steps(context, launches, count)]
            host: list[float] = []
            for _ in range(max(3, launches // count)):
                start = time.perf_counter()
                made = sum(1 for _ in executable.steps(5, context, count))
                host.append((time.perf_counter() - start) * 1e6 / made)
            row = {"token_loop": token_loop, "steps": count, "registers": compiled.resources.registers}
            row |= {"device_us": statistics.median(device), "host_us": statistics.median(host)}
            result["rows"].append(row)
            print(
                f"{name:16} loop {token_loop!s:5} steps {count:3}: device {row['device_us']:8.1f} us, "
                f"host {row['host_us']:8.1f} us a token ({row['registers']} registers)",
                flush=True,
            )
        if token_loop:
            result["same_tokens"] = same_tokens(executable, context, most)
            print(f"{name:16} same tokens as one step a launch: {result['same_tokens']}", flush=True)
        executable.close()
    return result


def same_tokens(executable: CudaExecutable, context: int, count: int) -> bool:
    tokens = [7]
    for n in range(count):
        tokens.append(executable.step(tokens[-1], context + n)[0])
    return list(executable.steps(7, context, count)) == tokens[1:] and len(np.unique(tokens)) > 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=sorted(SHAPES), metavar="MODEL")
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--context", type=int, default=128)
    parser.add_argument("--launches", type=int, default=40)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    results = [measure(name, options.steps, options.context, options.launches) for name in options.models]
    environment.write(options.json, "steps_per_launch", {"models": results})


if __name__ == "__main__":
    main()
