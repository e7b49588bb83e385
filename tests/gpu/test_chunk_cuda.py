"""Prompts in chunks on a GPU: the bits of token by token, in the memory of one kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_models import CONFIGS, RandomWeights, llama_config, verified

from amk.amk_ir.targets import Target
from amk.backends.cuda.backend import CudaBackend, CudaExecutable

WIDE = llama_config(576, 5120, 3, 9, 3, 64, 4096, 1024, tied=True)
"""Down takes 5120 elements: eight rows of them are held in segments."""


def load(config: dict[str, Any], target: Target, sms: int, chunk: int = 8, **options: Any) -> CudaExecutable:
    kernel = verified(config, target.name, sms=sms, **options)
    several = verified(config, target.name, sms=sms, tokens=chunk, outputs=False, **options)
    return CudaBackend(token_loop=True).load(kernel, RandomWeights(kernel.kernel), chunk=several)


def logits_after(gpu: CudaExecutable, prompt: list[int], chunk: int) -> np.ndarray:
    gpu.reset()
    pos = 0
    while pos < len(prompt) - 1:
        count = min(chunk, len(prompt) - 1 - pos)
        gpu.feed(prompt[pos : pos + count], pos)
        pos += count
    return gpu.step(prompt[-1], pos)[1]


@pytest.mark.parametrize("handoff", ["auto", "counter"])
@pytest.mark.parametrize("name", ["gqa", "mha", "odd"])
def test_small_models(name: str, handoff: str, target: Target) -> None:
    gpu = load(CONFIGS[name], target, 8, handoff=handoff)
    prompt = np.random.default_rng(0).integers(0, 300, 50).tolist()
    for length in (1, 2, 8, 9, 10, 17, 50):
        expected = logits_after(gpu, prompt[:length], 1)
        assert np.array_equal(logits_after(gpu, prompt[:length], 8), expected), length
    gpu.close()


@pytest.mark.parametrize("chunk", [2, 5, 8])
def test_a_prompt_of_512_tokens(chunk: int, target: Target) -> None:
    gpu = load(WIDE, target, target.num_sms, chunk)
    prompt = np.random.default_rng(0).integers(0, 4096, 512).tolist()
    expected = logits_after(gpu, prompt, 1)
    for _ in range(3):
        assert np.array_equal(logits_after(gpu, prompt, chunk), expected)
    # and on, several steps a launch, into the same cache
    token = int(expected.argmax())
    tokens = list(gpu.steps(token, 512, 20))
    gpu.reset()
    for pos, one in enumerate(prompt):
        gpu.step(one, pos)
    assert list(gpu.steps(token, 512, 20)) == tokens
    gpu.close()


def test_memory(target: Target) -> None:
    """The second kernel allocates activations only."""
    gpu = load(WIDE, target, target.num_sms)
    assert gpu.chunk_kernel is not None
    weights = gpu.loaded.plan.weight_bytes
    assert gpu.chunk_kernel.memory_bytes < 0.05 * weights
    assert gpu.loaded.memory_bytes + gpu.chunk_kernel.memory_bytes < 1.1 * (weights + 2 * 2 * 3 * 1024 * 3 * 64)
    gpu.close()
    gpu.close()
