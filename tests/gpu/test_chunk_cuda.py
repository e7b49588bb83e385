"""Prompts in chunks on a GPU: the logits of token by token, in the memory of one kernel.

The bits are the same where both kernels add the same things in the same order and hand them over whole, with counters. By
default, single tokens attend in the product that follows, eight do not, and long sums of eight are split.
"""

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


SAME_BITS = {"handoff": "counter", "product_values": 0}
"""Options with which rows have the bits that they would have alone."""
TOLERANCE = 2e-3
"""Of logits, relative to the greatest: a cache of bf16 keeps 8 bits, and rounds what differs by a bit of f32 up or down."""


def assert_alike(found: np.ndarray, expected: np.ndarray, options: dict[str, Any]) -> None:
    if options == SAME_BITS:
        assert np.array_equal(found, expected)
    else:
        assert np.abs(found - expected).max() <= TOLERANCE * np.abs(expected).max()


@pytest.mark.parametrize("options", [{}, SAME_BITS, {"product_values": 128}], ids=["defaults", "same bits", "split"])
@pytest.mark.parametrize("name", ["gqa", "mha", "odd"])
def test_small_models(name: str, options: dict[str, Any], target: Target) -> None:
    gpu = load(CONFIGS[name], target, 8, **options)
    prompt = np.random.default_rng(0).integers(0, 300, 50).tolist()
    for length in (1, 2, 8, 9, 10, 17, 50):
        expected = logits_after(gpu, prompt[:length], 1)
        assert_alike(logits_after(gpu, prompt[:length], 8), expected, options)
    gpu.close()


@pytest.mark.parametrize("options", [{}, SAME_BITS], ids=["defaults", "same bits"])
@pytest.mark.parametrize("chunk", [2, 5, 8])
def test_a_prompt_of_512_tokens(chunk: int, options: dict[str, Any], target: Target) -> None:
    gpu = load(WIDE, target, target.num_sms, chunk, **options)
    prompt = np.random.default_rng(0).integers(0, 4096, 512).tolist()
    expected = logits_after(gpu, prompt, 1)
    found = [logits_after(gpu, prompt, chunk) for _ in range(3)]
    for logits in found:
        assert np.array_equal(logits, found[0])
        assert_alike(logits, expected, options)
    if options != SAME_BITS:
        gpu.close()
        return
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


@pytest.mark.parametrize("format", ["int8", "fp8", "int4:g64", "int8:zp"])
def test_long_rows_of_quantised_weights(format: str, target: Target) -> None:
    """Eight rows that are multiplied segment by segment, as they are of bf16 weights that are not split."""
    options = {**SAME_BITS, "fuse_attention": "never", "weights": format}
    gpu = load(WIDE, target, target.num_sms, 8, **options)
    prompt = np.random.default_rng(0).integers(0, 4096, 100).tolist()
    expected = logits_after(gpu, prompt, 1)
    for _ in range(3):
        assert np.array_equal(logits_after(gpu, prompt, 8), expected)
    gpu.close()
