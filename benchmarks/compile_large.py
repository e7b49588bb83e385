"""Time and peak memory from a model's configuration to a verified queue kernel and a cubin, no weight materialised.

python benchmarks/compile_large.py llama-3.1-8b --target sm_90a --json benchmarks/results/FILE.json
"""

from __future__ import annotations

import argparse
import resource
import time

import environment

from amk.amk_ir.targets import get_target
from amk.backends.cuda.backend import CudaBackend
from amk.frontends.import_model import import_config
from amk.runtime.compile import plan
from amk.tools.bench.shapes import SHAPES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("--target", default="sm_90a")
    parser.add_argument("--max-seq", type=int, default=8192)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()

    times: dict[str, float] = {}
    start = time.perf_counter()

    def lap(stage: str) -> None:
        times[stage] = time.perf_counter() - start - sum(times.values())

    target = get_target(options.target)
    model = import_config(
        SHAPES[options.shape], name=options.shape, max_seq=options.max_seq, weight_dtype="bf16", kv_dtype="bf16"
    )
    lap("import")
    kernel = plan(model.module, target)
    lap("passes and verification")
    compiled = CudaBackend().compile(kernel)
    lap("emit and NVRTC")
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for stage, seconds in times.items():
        print(f"{stage:26} {seconds:7.2f} s")
    print(f"{'total':26} {sum(times.values()):7.2f} s, peak memory {peak_mb:.0f} MB, {compiled.resources}")
    result = {
        "shape": options.shape,
        "target": options.target,
        "max_seq": options.max_seq,
        "seconds": times,
        "total_seconds": sum(times.values()),
        "peak_mb": peak_mb,
    }
    environment.write(options.json, "compile_large", result)


if __name__ == "__main__":
    main()
