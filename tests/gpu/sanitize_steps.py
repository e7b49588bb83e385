"""Runs a few steps of a small model on the GPU: what run_sanitizer.sh gives to compute-sanitizer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from cuda_models import RandomWeights, llama_config, verified

from amk.backends.cuda import emit
from amk.backends.cuda.backend import CudaBackend, detect_target


def main() -> None:
    """Four tokens at once and three steps, with either hand-off, with quantised weights, with rows so long that they are gathered
    while products are made, and with the registers of a warpgroup and attention in parts; the sanitizer makes a kernel up to a
    thousand times slower."""
    split = {"config": llama_config(mlp=128, bias=True, vocab=131), "chunk": {"product_values": 128}}
    run("split sums", **split)
    run("counters", **split, handoff="counter")
    run("int8", **split, weights="int8")
    run("long rows", config=llama_config(1056, 64, 1, vocab=131), chunk={})
    emit.LOADS = tuple(loads for loads in emit.LOADS if loads.more or not detect_target().moves_registers)
    run(
        "parts",
        config=llama_config(64, 64, 2, 4, 2, 128, vocab=131),
        chunk={"parts": 1},
        parts=2,
        block=16,
        bytes=16384,
    )


def run(name: str, config: dict[str, Any], chunk: dict[str, Any], **options: Any) -> None:
    target = detect_target().name
    kernel = verified(config, target, sms=4, **options)
    several = verified(config, target, sms=4, tokens=4, outputs=False, **{**options, **chunk})
    gpu = CudaBackend(time_limit_s=120.0).load(kernel, RandomWeights(kernel.kernel), chunk=several)
    gpu.feed([3, 1, 4, 1], 0)
    for pos, token in enumerate((5, 17, 99), start=4):
        print(name, pos, gpu.step(token, pos)[0], flush=True)
    gpu.close()


if __name__ == "__main__":
    main()
