"""The weight ring: of any size and with any number of loads under way, on the CPU; what the producer's text is."""

from __future__ import annotations

import shutil
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_models import RandomWeights, llama_config, lower, verified

from amk.amk_ir.errors import StuckWaitError
from amk.backends.cuda.emit import emit_kernel
from amk.backends.cuda.pack import packed_weights
from amk.backends.reference.backend import ReferenceBackend

needs_emulator = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
RINGS = [(1, 1), (2, 1), (2, 2), (3, 1), (3, 3), (5, 5)]
"""(stages, loads in flight): one alone under way, or all."""
CASES = [
    *zip(
        [(ring, weights) for ring in RINGS for weights in ("none", "int8")],
        cycle(("sm_90a", "sm_80", "sm_80", "sm_90a")),
    ),
    (((40, 39), "none"), "sm_90a"),  # more stages than a task has
]


@needs_emulator
@pytest.mark.parametrize(("case", "target"), CASES)
def test_rings(case: tuple[tuple[int, int], str], target: str, tmp_path: Path) -> None:
    """Tasks of several stages, the last one smaller than the others, or, with the scales of quantised rows, larger."""
    ring, weights = case
    options: dict[str, Any] = {} if weights == "none" else {"weights": weights, "head": weights}
    config = llama_config(320, 1024, 1, 4, 2, 64, 80)
    kernel = verified(config, target, sms=3, kv_dtype="f32", stages=ring[0], in_flight=ring[1], bytes=4096, **options)
    emitted, random = emit_kernel(kernel.kernel), RandomWeights(kernel.kernel)
    sizes = {
        (s.layout.chunks > 1, np.sign(s.layout.task_bytes - s.layout.chunks * s.layout.chunk_bytes))
        for s in emitted.plan.streams
    }
    assert (True, -1 if weights == "none" else 1) in sizes
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, random), tmp_path)
    reference = ReferenceBackend().load(kernel, random)
    for pos, token in enumerate((5, 17)):
        logits = emulated.step({"token": np.array([token], np.int32)}, pos, seed=pos)["logits"][0]
        expected = reference.step(token, pos)[1]
        assert np.abs(logits - expected).max() <= 2e-5 * np.abs(expected).max()


@needs_emulator
@pytest.mark.parametrize("target", ["sm_90a", "sm_80"])
@pytest.mark.parametrize("ring", [(1, 1), (2, 2), (4, 4), (5, 3), (5, 4)])
def test_rings_of_slow_loads(ring: tuple[int, int], target: str, tmp_path: Path) -> None:
    """A grid that gives up ends, whatever is under way: a stage that consumers have released before its load has landed is not
    announced again."""
    config = llama_config(320, 1024, 1, 4, 2, 64, 80)
    kernel = verified(config, target, sms=3, kv_dtype="f32", stages=ring[0], in_flight=ring[1], bytes=4096)
    emitted = emit_kernel(kernel.kernel)
    weights = packed_weights(emitted.plan, RandomWeights(kernel.kernel))
    emulated = EmulatedKernel(emitted, weights, tmp_path, fastest_copy=3000)
    for seed in range(4):
        emulated.arrays["abort"].view(np.uint32)[0] = 1
        with pytest.raises(StuckWaitError):
            emulated.step({"token": np.array([5], np.int32)}, 0, seed=seed)


def test_loads_are_out_of_line() -> None:
    """One copy of the code that loads a stage; but in line where a trace's place is kept in registers."""
    kernel = lower(llama_config())
    for trace, how in ((None, "noinline"), ("phases", "forceinline")):
        source = emit_kernel(kernel, trace=trace).source
        assert f"__device__ __{how}__ u32 load_stages(" in source
        assert source.count("writer.push_all(task") == source.count("// queue.fetch @") > 5
        assert source.count("push_history<") == 1  # of the product that attends as well


def test_words_are_not_looked_for_at_once() -> None:
    """Products of one token wait for a while before they gather tagged words; words behind counters are there."""
    gathers = emit_kernel(lower(llama_config())).source
    assert gathers.count("hold_off();") >= 3
    assert "hold_off();" not in emit_kernel(lower(llama_config(), handoff="counter")).source
