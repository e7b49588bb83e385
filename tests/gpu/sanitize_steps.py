"""Runs a few steps of a small model on the GPU: what run_sanitizer.sh gives to compute-sanitizer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cuda_models import RandomWeights, llama_config, verified

from amk.backends.cuda.backend import CudaBackend, detect_target


def main() -> None:
    """Four tokens at once and three steps, with either hand-off, with quantised weights, and with rows so long that they are gathered
    while products are made; the sanitizer makes a kernel up to a thousand times slower."""
    split = {"config": llama_config(mlp=128, bias=True, vocab=131), "chunk": {"product_values": 128}}
    run("split sums", **split)
    run("counters", **split, handoff="counter")
    run("int8", **split, weights="int8")
    run("long rows", config=llama_config(1056, 64, 1, vocab=131), chunk={})


def run(name: str, config: dict[str, Any], chunk: dict[str, Any], **options: Any) -> None:
    target = detect_target().name
    kernel = verified(config, target, sms=4, **options)
    several = verified(config, target, sms=4, tokens=4, outputs=False, **options, **chunk)
    gpu = CudaBackend(time_limit_s=120.0).load(kernel, RandomWeights(kernel.kernel), chunk=several)
    gpu.feed([3, 1, 4, 1], 0)
    for pos, token in enumerate((5, 17, 99), start=4):
        print(name, pos, gpu.step(token, pos)[0], flush=True)
    gpu.close()


if __name__ == "__main__":
    main()
