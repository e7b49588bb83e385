"""Kernels on a GPU, compared with the reference backend on the same verified schedule."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from cuda_models import CONFIGS, RandomWeights, llama_config, verified

from amk.amk_ir.errors import DeviceError, ExecutionError, StuckWaitError
from amk.amk_ir.targets import Target
from amk.backends.cuda import emit
from amk.backends.cuda.backend import CudaBackend
from amk.backends.cuda.compile import CompiledKernel
from amk.backends.cuda.emit import ENTRY, DroppedSignal, emit_kernel
from amk.backends.cuda.nvrtc import compile_cubin
from amk.backends.cuda.pack import packed_weights
from amk.backends.reference.backend import ReferenceBackend
from amk.passes.graph_to_queue import FuseAttention

TOKENS = [5, 17, 3, 99, 120, 5, 42, 1]


def _pair(config: dict[str, Any], target: Target, **options: Any):
    kernel = verified(config, target.name, **{"sms": 8, **options})
    weights = RandomWeights(kernel.kernel)
    return CudaBackend().load(kernel, weights), ReferenceBackend().load(kernel, weights)


@pytest.mark.parametrize(
    "options", [{}, {"handoff": "counter"}, {"fuse_attention": "always"}, {"parts": 3, "block": 16}], ids=str
)
@pytest.mark.parametrize("name", CONFIGS)
def test_logits_agree_with_the_reference(name: str, options: dict[str, Any], target: Target) -> None:
    gpu, reference = _pair(CONFIGS[name], target, kv_dtype="f32", **options)
    for pos, token in enumerate(TOKENS):
        chosen, logits = gpu.step(token, pos)
        _, expected = reference.step(token, pos)
        assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
        assert chosen == int(logits.argmax())
    gpu.close()


def test_the_ring_of_older_targets(target: Target) -> None:
    """The cp.async ring of sm_80 to sm_89, compiled for this GPU."""
    kernel = verified(llama_config(), target.name, sms=8, kv_dtype="f32")
    weights = RandomWeights(kernel.kernel)
    emitted = emit_kernel(kernel.kernel)
    source = emitted.source.replace("ring_bulk.cuh", "ring_async.cuh")
    cubin = compile_cubin(source, target, ENTRY)
    compiled = CompiledKernel(kernel.digest, source, cubin.image, emitted.plan, cubin.resources, cubin.log)
    gpu = CudaBackend().load_packed(kernel, compiled, packed_weights(emitted.plan, weights))
    reference = ReferenceBackend().load(kernel, weights)
    for pos, token in enumerate(TOKENS):
        _, logits = gpu.step(token, pos)
        _, expected = reference.step(token, pos)
        assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
    gpu.close()


def test_bf16_cache(target: Target) -> None:
    gpu, reference = _pair(llama_config(), target)
    for pos, token in enumerate(TOKENS):
        _, logits = gpu.step(token, pos)
        _, expected = reference.step(token, pos)
        # a key that lies between two bf16 numbers may be rounded to the other one
        assert np.abs(logits - expected).max() <= 1e-2 * np.abs(expected).max()
    gpu.close()


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_registers_that_are_moved(head_dim: int, parts: int, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumers with the registers of a warpgroup, and attention whose first rows are in registers, in the products behind it or
    divided; across a group of positions, and a turn of all warps."""
    if not target.moves_registers:
        pytest.skip(f"{target.name} cannot move registers")
    monkeypatch.setattr(emit, "LOADS", [loads for loads in emit.LOADS if loads.more])
    config = llama_config(64, 96, 2, 4, 2, head_dim, max_seq=320)
    gpu, reference = _pair(config, target, bytes=16384, parts=parts, block=32 if parts > 1 else 0)
    assert gpu.loaded.plan.threads == emit.MORE_THREADS
    for pos in range(140):
        token = TOKENS[pos % len(TOKENS)]
        _, logits = gpu.step(token, pos)
        _, expected = reference.step(token, pos)
        assert np.abs(logits - expected).max() <= 1e-2 * np.abs(expected).max(), pos
    gpu.close()


@pytest.mark.parametrize("fuse_attention", ["always", "never"])
def test_whole_grid(target: Target, fuse_attention: FuseAttention) -> None:
    config, options = (
        llama_config(256, 512, 2, 8, 2, 32, 2000),
        {"sms": target.num_sms, "fuse_attention": fuse_attention},
    )
    gpu, reference = _pair(config, target, kv_dtype="f32", **options)
    for pos, token in enumerate(TOKENS):
        _, logits = gpu.step(token, pos)
        _, expected = reference.step(token, pos)
        assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
    gpu.close()


def test_a_thousand_tokens(target: Target) -> None:
    gpu, reference = _pair(llama_config(max_seq=1024), target, kv_dtype="f32")
    token, close = 1, 0
    for pos in range(1000):
        token_gpu, logits = gpu.step(token, pos)
        token, expected = reference.step(token, pos)
        assert np.abs(logits - expected).max() <= 2e-4 * np.abs(expected).max()
        if token_gpu != token:
            best = np.sort(expected)[-2:]
            assert best[1] - best[0] < 1e-3, f"position {pos}: {token_gpu} instead of {token}"
            close += 1
    assert close < 5
    gpu.close()


def test_equal_bits_from_run_to_run(target: Target) -> None:
    gpu, _ = _pair(llama_config(256, 512, 2, 8, 2, 32, 2000), target, sms=target.num_sms)
    first = [gpu.step(token, pos)[1] for pos, token in enumerate(TOKENS)]
    for _ in range(20):
        gpu.reset()
        for pos, token in enumerate(TOKENS):
            assert np.array_equal(gpu.step(token, pos)[1], first[pos])
    gpu.close()


@pytest.mark.parametrize("handoff", ["auto", "counter"])
def test_a_missing_signal_is_reported(handoff: str, target: Target) -> None:
    kernel = verified(llama_config(), target.name, sms=8, handoff=handoff)
    # one that all SMs signal, so that SM 1 does
    counter = next(c.name for c in emit_kernel(kernel.kernel).plan.counters if set(c.totals) == {8})
    backend = CudaBackend(time_limit_s=0.5, drop_signal=DroppedSignal(counter, 1))
    gpu = backend.load(kernel, RandomWeights(kernel.kernel))
    start = time.monotonic()
    with pytest.raises(StuckWaitError, match=rf"queue.wait @{counter}\[.*expected \d+ signals in this step, seen \d+"):
        gpu.step(1, 0)
    assert time.monotonic() - start < 10
    with pytest.raises(DeviceError, match="reset"):
        gpu.step(1, 0)
    gpu.reset()
    with pytest.raises(StuckWaitError):
        gpu.step(1, 0)
    gpu.close()


def test_a_kernel_for_another_architecture_is_refused(target: Target) -> None:
    other = "sm_80" if target.name != "sm_80" else "sm_90a"
    kernel = verified(llama_config(), other, sms=4)
    with pytest.raises(DeviceError, match=f"is for {other}"):
        CudaBackend().load(kernel, RandomWeights(kernel.kernel))


def test_bad_steps_are_refused(target: Target) -> None:
    gpu, _ = _pair(llama_config(), target)
    for token, pos in ((-1, 0), (300, 0), (1, 64), (1, -1), (1, 1)):
        with pytest.raises(ExecutionError):
            gpu.step(token, pos)
    gpu.close()
    gpu.close()
    with pytest.raises(ExecutionError):
        gpu.step(1, 0)
