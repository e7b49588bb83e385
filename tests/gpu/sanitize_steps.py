"""Runs a few steps of a small model on the GPU: what run_sanitizer.sh gives to compute-sanitizer."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from cuda_models import RandomWeights, llama_config, verified

from amk.backends.cuda.backend import CudaBackend, detect_target


def main() -> None:
    """Three steps with either hand-off; the sanitizer makes a kernel up to a thousand times slower."""
    for handoff in ("auto", "counter"):
        config = llama_config(bias=True, vocab=131)
        kernel = verified(config, detect_target().name, sms=4, handoff=handoff)
        gpu = CudaBackend(time_limit_s=120.0).load(kernel, RandomWeights(kernel.kernel))
        for pos, token in enumerate((5, 17, 99)):
            print(handoff, pos, gpu.step(token, pos)[0])
        gpu.close()


if __name__ == "__main__":
    main()
