"""Time of `amk compile --no-weights` of a shape, with an empty cache and from the cache, and where the cold time goes.

    python benchmarks/compile_time.py llama-3.2-1b --chunk 1 8 --repeat 3 --json benchmarks/results/FILE.json

Each repetition is a process of its own, Python's start included. Wall time is what a person waits, CPU time (user and system)
what does not depend on who else uses the machine; the load average beside each says how much it was used. The parts
are of a run in one process, one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import environment

from amk.tools.bench.shapes import SHAPES

_COMMAND = "from amk.tools.amk import main; main()"


def compile_once(arguments: list[str], cache: Path) -> dict[str, float]:
    """Seconds of one `amk compile` as a process."""
    load = os.getloadavg()[0]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", _COMMAND, "compile", *arguments, "--no-weights", "-o", f"{folder}/out"]
        environ = {**os.environ, "AMK_CACHE_DIR": str(cache)}
        run = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(run.stderr)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_s": wall,
        "cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        "peak_mb": after.ru_maxrss / 1024,
        "load_before": load,
        "from_cache": float("from the cache" in run.stdout),
    }


_PARTS = """
import json, resource, sys, time
marks = []
def mark(name):
    usage = resource.getrusage(resource.RUSAGE_SELF)
    marks.append((name, time.perf_counter(), usage.ru_utime + usage.ru_stime))
mark("")
from amk.amk_ir.targets import get_target
from amk.backends.cuda.compile import compile_kernel
from amk.backends.cuda.nvrtc import compile_cubin
from amk.frontends.import_model import import_config
from amk.passes.graph_to_queue import GraphToQueuePass
from amk.passes.verify_schedule import verify
from amk.runtime.compile import find_kernel, new_context
from amk.tools.bench.shapes import SHAPES
name, target, chunk = sys.argv[1], get_target(sys.argv[2]), int(sys.argv[3])
mark("imports")
model = import_config(SHAPES[name], name=name, weight_dtype="bf16", kv_dtype="bf16")
mark("model")
resident = None
for role in ("step", "far", *(["chunk"] if chunk > 1 else [])):
    module = (model.with_tokens(chunk) if role == "chunk" else model).module.clone()
    options = {"parts": 0} if role == "far" else {}
    GraphToQueuePass(target=target.name, sms=target.num_sms, outputs=role != "chunk", **options).apply(new_context(), module)
    mark(f"{role}: passes")
    kernel = verify(find_kernel(module))
    mark(f"{role}: verify")
    def compiler(*source):
        mark(f"{role}: emit")
        cubin = compile_cubin(*source)
        mark(f"{role}: NVRTC")
        return cubin
    plan = compile_kernel(kernel, None, compiler, resident=resident).plan
    resident = resident or plan
parts = {}
for (_, wall, cpu), (part, later, more) in zip(marks, marks[1:]):
    old = parts.get(part, {"wall_s": 0, "cpu_s": 0, "times": 0})
    parts[part] = {
        "wall_s": old["wall_s"] + later - wall, "cpu_s": old["cpu_s"] + more - cpu, "times": old["times"] + 1
    }
print(json.dumps(parts))
"""


def parts(shape: str, target: str, chunk: int) -> dict[str, Any]:
    """Seconds of each part of a cold compile, one after the other; `times`: how often it was done."""
    command = [sys.executable, "-c", _PARTS, shape, target, str(chunk)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def measure(shape: str, target: str, chunk: int, repeat: int) -> dict[str, Any]:
    """Every repetition with an empty cache and from the cache, and the parts."""
    arguments = [shape, "--target", target, "--chunk", str(chunk), "--no-tuned"]
    runs: dict[str, list[dict[str, float]]] = {"cold": [], "cached": []}
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as cache:
            runs["cold"].append(compile_once(arguments, Path(cache)))
            runs["cached"] += [compile_once(arguments, Path(cache)) for _ in range(3)]
    print(f"{shape}, {'without a chunk kernel' if chunk == 1 else f'chunks of {chunk}'}:")
    for kind, found in runs.items():
        if any(run["from_cache"] != (kind == "cached") for run in found):
            sys.exit(f"{kind}: the cache was not as expected")
        for unit in ("wall_s", "cpu_s"):
            values = [run[unit] for run in found]
            print(
                f"  {kind:7} {unit:7} median {statistics.median(values):6.2f}, least {min(values):6.2f} ({len(values)} runs)"
            )
    found_parts = parts(shape, target, chunk)
    for name, part in found_parts.items():
        print(
            f"  {name:16} {part['wall_s']:6.2f} s wall, {part['cpu_s']:6.2f} s CPU, {part['times']} times", flush=True
        )
    return {"chunk": chunk, "runs": runs, "parts": found_parts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--target", default="sm_90a")
    parser.add_argument("--chunk", type=int, nargs="+", default=[1], help="one compile each")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    results = {
        "shape": options.shape,
        "target": options.target,
        "configurations": [measure(options.shape, options.target, chunk, options.repeat) for chunk in options.chunk],
    }
    environment.write(options.json, "compile_time", results)


if __name__ == "__main__":
    main()
