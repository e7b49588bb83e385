"""Packed weights: every stream and constant is found again where the plan says."""

import numpy as np
import pytest
from cuda_models import CONFIGS, RandomWeights, lower

from amk.amk_ir.access import Access, Dim
from amk.amk_ir.errors import CheckpointError
from amk.amk_ir.linear import Linear
from amk.backends.cuda import pack
from amk.backends.cuda.emit import emit_kernel
from amk.backends.cuda.pack import gather_tiles, load_entry, packed_weights, unpack_stream


@pytest.mark.parametrize("name", ["gqa", "biases", "odd", "odder"])
def test_round_trip(name: str) -> None:
    kernel = lower(CONFIGS[name])
    plan, weights = emit_kernel(kernel).plan, RandomWeights(kernel)
    data = np.concatenate(list(packed_weights(plan, weights)))
    assert data.size == plan.weight_bytes
    regions = {r.parameter: data[r.offset : r.offset + r.size] for r in plan.weight_regions}
    buffers = {b.name: b for b in plan.weights}

    def original(name: str):
        buffer = buffers[name]
        if not buffer.layered:
            return load_entry(buffer, None, weights)
        return np.stack([load_entry(buffer, layer, weights) for layer in range(buffer.shape[0])])

    seen: set[str] = set()
    for stream in plan.streams:
        for name, found in unpack_stream(
            stream, regions[stream.parameter], {b.name: b.shape for b in plan.weights}
        ).items():
            assert np.array_equal(found, original(name)), name
            seen.add(name)
    for constant in plan.constants:
        expected = original(constant.name)
        assert np.array_equal(regions[constant.parameter].view(expected.dtype).reshape(constant.shape), expected)
        seen.add(constant.name)
    assert seen == buffers.keys()


def test_a_tied_embedding_is_stored_once() -> None:
    tied, separate = emit_kernel(lower(CONFIGS["gqa"])).plan, emit_kernel(lower(CONFIGS["mha"])).plan
    assert "embed" not in [b.name for b in tied.constants]
    assert "embed" in [b.name for b in separate.constants]


def test_tiles_that_split_k() -> None:
    array = np.arange(6 * 10).reshape(6, 10)
    access = Access("w", (Dim(Linear.make({"i": 4}), Linear.of(4), 6), Dim(Linear.make({"j": 4}), Linear.of(4), 10)))
    indices = {"i": np.array([0, 0, 0, 1, 1, 1]), "j": np.array([0, 1, 2, 0, 1, 2])}
    tiles = gather_tiles(array, access, indices, 6, 4)
    padded = np.zeros((8, 12), int)
    padded[:6, :10] = array
    for task in range(6):
        i, j = indices["i"][task] * 4, indices["j"][task] * 4
        assert np.array_equal(tiles[task], padded[i : i + 4, j : j + 4])


def test_a_tensor_of_another_size_is_refused() -> None:
    kernel = lower(CONFIGS["gqa"])
    weights = RandomWeights(kernel)
    name = "model.layers.1.mlp.up_proj.weight"
    weights.entries[name] = weights.entries[name][:-1]
    with pytest.raises(CheckpointError, match=r"up_proj.*95x64.*96x64"):
        list(packed_weights(emit_kernel(kernel).plan, weights))


def test_progress_reaches_the_end() -> None:
    kernel = lower(CONFIGS["gqa"])
    plan = emit_kernel(kernel).plan
    told: list[tuple[int, int]] = []
    list(packed_weights(plan, RandomWeights(kernel), lambda _, done, total: told.append((done, total))))
    assert told == sorted(told)
    assert plan.weight_bytes - told[-1][0] < 256


@pytest.mark.parametrize("name", ["gqa", "odd"])
def test_pieces_of_any_size_are_the_same_bytes_in_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several are packed at a time."""
    kernel = lower(CONFIGS[name])
    plan, weights = emit_kernel(kernel).plan, RandomWeights(kernel)
    whole = list(packed_weights(plan, weights))
    monkeypatch.setattr(pack, "PIECE_BYTES", 1)
    single = list(packed_weights(plan, weights))
    assert len(single) > len(whole)
    assert np.array_equal(np.concatenate(single), np.concatenate(whole))
    assert next(packed_weights(plan, weights)).size, "the rest need not be packed"
