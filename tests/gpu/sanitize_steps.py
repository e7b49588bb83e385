"""Runs a few steps of a small model on the GPU: what run_sanitizer.sh gives to compute-sanitizer."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cuda_models import RandomWeights, llama_config, verified

from amk.backends.cuda.backend import CudaBackend, detect_target


def main() -> None:
    """Four tokens at once, whose long sums are split, and three steps, with either hand-off; the sanitizer makes a kernel up to a
    thousand times slower."""
    target = detect_target().name
    for handoff in ("auto", "counter"):
        config = llama_config(mlp=128, bias=True, vocab=131)
        kernel = verified(config, target, sms=4, handoff=handoff)
        chunk = verified(config, target, sms=4, handoff=handoff, tokens=4, outputs=False, product_values=128)
        gpu = CudaBackend(time_limit_s=120.0).load(kernel, RandomWeights(kernel.kernel), chunk=chunk)
        gpu.feed([3, 1, 4, 1], 0)
        for pos, token in enumerate((5, 17, 99), start=4):
            print(handoff, pos, gpu.step(token, pos)[0])
        gpu.close()


if __name__ == "__main__":
    main()
