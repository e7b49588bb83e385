"""Kernels of several tokens a step against one token a step: the same bits, whatever is held at once."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_models import CONFIGS, RandomWeights, llama_config, verified

from amk.amk_ir.errors import CompileError
from amk.amk_ir.segments import Segments, plan_segments, rows_bytes
from amk.backends.cuda.emit import emit_kernel
from amk.backends.cuda.pack import packed_weights

emulated_only = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
TOKENS = [5, 17, 99, 3, 250, 1, 42, 8, 7, 11, 13, 200, 5, 5, 60, 61]


def emulate(config: dict[str, Any], tokens: int, folder: Path, **options: Any) -> EmulatedKernel:
    kernel = verified(config, sms=3, tokens=tokens, **options).kernel
    folder.mkdir()
    emitted = emit_kernel(kernel)
    return EmulatedKernel(emitted, packed_weights(emitted.plan, RandomWeights(kernel)), folder)


def ids(tokens: list[int]) -> dict[str, np.ndarray]:
    return {"token": np.array(tokens, np.int32)}


@emulated_only
@pytest.mark.parametrize(
    ("name", "tokens", "handoff"),
    [("gqa", 8, "auto"), ("mha", 4, "counter"), ("odd", 3, "auto")],
)
def test_rows_have_the_bits_of_single_tokens(name: str, tokens: int, handoff: str, tmp_path: Path) -> None:
    single = emulate(CONFIGS[name], 1, tmp_path / "single", handoff=handoff)
    several = emulate(CONFIGS[name], tokens, tmp_path / "several", handoff=handoff)
    for first in range(0, 2 * tokens, tokens):
        found = several.step(ids(TOKENS[first : first + tokens]), first, seed=first)
        for row in range(tokens):
            expected = single.step(ids([TOKENS[first + row]]), first + row)
            assert np.array_equal(found["logits"][row], expected["logits"][0])
            assert found["next_token"][row] == expected["next_token"][0]
    for cache in ("b_k_cache", "b_v_cache"):
        assert np.array_equal(several.arrays[cache], single.arrays[cache])


# mlp: rows of so many elements, of which eight do not fit into shared memory
WIDE = {"whole segments": 8192, "a short last segment": 4704, "padding": 4700}


@emulated_only
@pytest.mark.parametrize("mlp", WIDE.values(), ids=WIDE)
def test_segments_change_no_bit(mlp: int, tmp_path: Path) -> None:
    config = llama_config(32, mlp, 1, 2, 1, 16, 300)
    single, several = (emulate(config, n, tmp_path / str(n)) for n in (1, 8))
    assert "multiply_segment<" in (tmp_path / "8" / "kernel.cpp").read_text().partition("amk_step(")[2]
    found = several.step(ids(TOKENS[:8]), 0)
    for row, token in enumerate(TOKENS[:8]):
        assert np.array_equal(found["logits"][row], single.step(ids([token]), row)["logits"][0])


def test_rows_that_cannot_be_cut_are_refused() -> None:
    with pytest.raises(CompileError, match="family @linear_down: its activations do not fit.*fewer tokens"):
        emit_kernel(verified(llama_config(32, 4690, 1, 2, 1, 16, 300), sms=3, tokens=8).kernel)


@emulated_only
def test_without_outputs_the_cache_is_the_same(tmp_path: Path) -> None:
    whole = emulate(CONFIGS["mha"], 8, tmp_path / "whole")
    filler = emulate(CONFIGS["mha"], 8, tmp_path / "filler", outputs=False)
    assert not any(b.kind == "output" for b in filler.plan.buffers)
    assert not any(b.source is not None and "lm_head" in str(b.source) for b in filler.plan.weights)
    for first in (0, 8):
        whole.step(ids(TOKENS[first : first + 8]), first)
        filler.step(ids(TOKENS[first : first + 8]), first)
    for cache in ("b_k_cache", "b_v_cache"):
        assert np.array_equal(whole.arrays[cache], filler.arrays[cache])


@pytest.mark.parametrize("k_blocks", [129, 137, 256, 344, 448, 1000])
@pytest.mark.parametrize("groups", [1, 2, 3, 4])
@pytest.mark.parametrize("tokens", [5, 8])
def test_segments_cover_and_fit(tokens: int, groups: int, k_blocks: int) -> None:
    shared = 232448
    chunk = 32 // groups
    segments = plan_segments(tokens, k_blocks, chunk, groups, 4, shared)
    if rows_bytes(tokens, k_blocks) <= shared * 4 // 7:
        assert segments is None
        return
    assert segments is not None
    assert segments.blocks % chunk == 0
    assert (segments.count - 1) * segments.blocks + segments.last_blocks == k_blocks
    assert 0 < segments.last_blocks <= segments.blocks
    assert rows_bytes(tokens, segments.blocks) <= shared * 2 // 7
    assert segments.bytes <= shared * 4 // 7


def test_known_segments() -> None:
    """Down of Llama-3.2-1B and 3.1-8B on an H100: four segments of 2048 elements; seven."""
    assert plan_segments(8, 256, 16, 2, 1, 232448) == Segments(8, 256, 64, 2, 1)
    found = plan_segments(8, 448, 32, 1, 4, 232448)
    assert found is not None
    assert (found.count, found.blocks, found.batch) == (7, 64, 4)
    assert plan_segments(1, 448, 32, 1, 4, 232448) is None
