"""Kernels of several tokens a step against one token a step: the same bits, whatever is held at once."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_models import CONFIGS, LLAMA_1B, LLAMA_8B, SMOLLM2, RandomWeights, llama_config, lower_anew, verified
from cuda_targets import CUDA_TARGETS
from xdsl.utils.exceptions import PassFailedException

from amk.amk_ir.dtypes import bf16_from_f32
from amk.amk_ir.errors import CompileError, ExecutionError, UsageError
from amk.amk_ir.segments import Segments, plan_segments, rows_bytes
from amk.amk_ir.targets import TARGETS, get_target
from amk.backends.cuda.backend import CudaBackend
from amk.backends.cuda.compile import compile_kernel
from amk.backends.cuda.emit import emit_kernel
from amk.backends.cuda.pack import packed_weights
from amk.backends.cuda.sharing import check_shared
from amk.backends.reference.backend import ReferenceBackend
from amk.frontends.import_model import import_config
from amk.passes import tile_tasks
from amk.passes.graph_to_queue import FuseAttention, GraphToQueuePass
from amk.passes.quantize_weights import QuantizeWeightsPass
from amk.passes.tile_tasks import TileTasksPass
from amk.passes.verify_schedule import VerifiedKernel, verify
from amk.runtime.compile import find_kernel, new_context

emulated_only = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
TOKENS = [5, 17, 99, 3, 250, 1, 42, 8, 7, 11, 13, 200, 5, 5, 60, 61]


def emulate(config: dict[str, Any], tokens: int, folder: Path, **options: Any) -> EmulatedKernel:
    """Attention stays a task of its own unless `options` say otherwise: what a task hands to another one as tagged words loses
    its lowest bit, and several tokens never attend in the product that follows."""
    options = {"fuse_attention": "never", **options}
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


@emulated_only
@pytest.mark.parametrize(("handoff", "tolerance"), [("auto", 1e-5), ("counter", 0.0)])
def test_rows_of_fused_attention_are_those_of_single_tokens(handoff: str, tolerance: float, tmp_path: Path) -> None:
    """The single token attends in the product that follows; several do not, but divide it in the same way."""
    chosen = {"handoff": handoff, "fuse_attention": "auto"}
    single, several = (emulate(CONFIGS["gqa"], n, tmp_path / str(n), **chosen) for n in (1, 4))
    found = several.step(ids(TOKENS[:4]), 0)
    for row, token in enumerate(TOKENS[:4]):
        expected = single.step(ids([token]), row)["logits"][0]
        assert np.abs(found["logits"][row] - expected).max() <= tolerance * np.abs(expected).max()


@emulated_only
@pytest.mark.parametrize(
    "options", [{}, {"parts": 2, "block": 32}, {"parts": 2, "block": 16}], ids=["whole", "parts", "a group each"]
)
@pytest.mark.parametrize("together", [False, True], ids=["a task a head", "one task"])
def test_rows_behind_a_long_history_have_the_bits_of_single_tokens(
    together: bool, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Across the end of a group of positions. In one task, the 24 queries of a KV head are more than fit the registers."""
    if together:
        monkeypatch.setattr(tile_tasks, "_QUERIES", 24)
        monkeypatch.setattr(TileTasksPass, "_attention_tile", lambda *_: ((), ()))
        lower_anew(monkeypatch)
    config = llama_config(32, 32, 1, 12, 2, 16, 300, max_seq=160)
    single, several = (emulate(config, n, tmp_path / str(n), **options) for n in (1, 4))
    text = (tmp_path / "4" / "kernel.cpp").read_text()
    assert ("Attention<16, 12, 2, 4, " in text) == together
    generator = np.random.default_rng(2)
    for cache in ("b_k_cache", "b_v_cache"):
        stored = single.arrays[cache].view(np.uint16)
        stored[:] = bf16_from_f32(generator.standard_normal(stored.shape, np.float32))
        several.arrays[cache][:] = single.arrays[cache]
    first = 142
    found = several.step(ids(TOKENS[:4]), first)
    for row, token in enumerate(TOKENS[:4]):
        expected = single.step(ids([token]), first + row)
        assert np.array_equal(found["logits"][row], expected["logits"][0]), row


# mlp: rows of so many elements, of which eight do not fit into shared memory
WIDE = {"whole segments": 8192, "a short last segment": 4704, "padding": 4700}


@emulated_only
@pytest.mark.parametrize("mlp", WIDE.values(), ids=WIDE)
def test_segments_change_no_bit(mlp: int, tmp_path: Path) -> None:
    config = llama_config(32, mlp, 1, 2, 1, 16, 300)
    single, several = (emulate(config, n, tmp_path / str(n), product_values=0) for n in (1, 8))
    assert "multiply_segment<" in (tmp_path / "8" / "kernel.cpp").read_text().partition("amk_step(")[2]
    found = several.step(ids(TOKENS[:8]), 0)
    for row, token in enumerate(TOKENS[:8]):
        assert np.array_equal(found["logits"][row], single.step(ids([token]), row)["logits"][0])


@emulated_only
@pytest.mark.parametrize(("hidden", "tokens"), [(2048, 8), (1056, 8), (2080, 2), (3136, 3)])
def test_products_that_gather_meanwhile_change_no_bit(hidden: int, tokens: int, tmp_path: Path) -> None:
    """Rows of more elements than consumers gather together: norms' and, of the head, with fewer tasks than SMs as well."""
    config, options = llama_config(hidden, 64, 1, 2, 1, 16, 300), {"product_values": 0, "bytes": 16384}
    single, several = (emulate(config, n, tmp_path / str(n), **options) for n in (1, tokens))
    main = (tmp_path / str(tokens) / "kernel.cpp").read_text().partition("amk_step(")[2]
    assert main.count("multiply_gathered<") >= 2 and f"gather<{hidden}, " in main
    for first in (0, tokens):
        found = several.step(ids(TOKENS[first : first + tokens]), first, seed=first)
        for row in range(tokens):
            expected = single.step(ids([TOKENS[first + row]]), first + row)
            assert np.array_equal(found["logits"][row], expected["logits"][0])


@pytest.mark.parametrize(
    ("config", "tokens", "options"), [(LLAMA_8B, 4, {}), (LLAMA_1B, 8, {"widest": 64})], ids=["8b", "1b"]
)
def test_what_has_no_registers_for_that_gathers_before(
    config: dict[str, Any], tokens: int, options: dict[str, Any]
) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    compiled = compile_kernel(verified(config, "sm_90a", sms=132, tokens=tokens, **options))
    assert compiled.resources.spill_stores == 0
    assert "gather<" in compiled.source.partition("amk_step(")[2]


def emulate_quantised(config: dict[str, Any], target: str, tokens: int, folder: Path, format: str) -> EmulatedKernel:
    """Only the product that is made in segments has quantised weights."""
    model = import_config(config, weight_dtype="bf16", kv_dtype="bf16", tokens=tokens)
    module, context = model.module.clone(), new_context()
    QuantizeWeightsPass(format, keep=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj")).apply(
        context, module
    )
    GraphToQueuePass(target=target, sms=3, handoff="counter", fuse_attention="never").apply(context, module)
    kernel = verify(find_kernel(module)).kernel
    folder.mkdir()
    emitted = emit_kernel(kernel)
    return EmulatedKernel(emitted, packed_weights(emitted.plan, RandomWeights(kernel)), folder)


@emulated_only
@pytest.mark.parametrize(
    ("mlp", "format", "target"),
    [
        (8192, "int8", "sm_90a"),
        (4864, "fp8", "sm_90a"),  # a short last segment
        (4720, "int8", "sm_90a"),  # and padding
        (8192, "int8:zp", "sm_90a"),
        (8192, "int4:g128", "sm_90a"),
        (4864, "int8:g32", "sm_90a"),
        (4736, "int4:g32:min:f16", "sm_90a"),
        (8192, "int4:g8192:min", "sm_90a"),  # minimums of whole rows
        (4864, "int8", "sm_80"),
    ],
)
def test_segments_of_quantised_weights_change_no_bit(mlp: int, format: str, target: str, tmp_path: Path) -> None:
    config = llama_config(32, mlp, 1, 2, 1, 16, 300)
    single, several = (emulate_quantised(config, target, n, tmp_path / str(n), format) for n in (1, 8))
    assert "multiply_quantized_segment<" in (tmp_path / "8" / "kernel.cpp").read_text().partition("amk_step(")[2]
    found = several.step(ids(TOKENS[:8]), 0)
    for row, token in enumerate(TOKENS[:8]):
        assert np.array_equal(found["logits"][row], single.step(ids([token]), row)["logits"][0])


@pytest.mark.parametrize("format", ["int8", "fp8", "int4:g128", "int8:zp", "int4:g32:min:f16"])
@pytest.mark.parametrize("shape", [LLAMA_1B, LLAMA_8B], ids=["1b", "8b"])
def test_long_rows_of_quantised_weights_fit(shape: dict[str, Any], format: str) -> None:
    plan = emit_kernel(verified({**shape, "num_hidden_layers": 2}, tokens=8, outputs=False, weights=format).kernel).plan
    assert plan.ring.stages >= 3
    assert plan.dynamic_shared <= get_target("sm_90a").shared_memory_per_block


@pytest.mark.parametrize("target", ["sm_80", "sm_89", "sm_90a"])
@pytest.mark.parametrize("format", ["int8", "int4:g32", "int4:g32:min", "int4:g64:zp", "fp8"])
@pytest.mark.parametrize("tokens", [3, 4, 5, 8])
def test_what_is_planned_fits(tokens: int, format: str, target: str) -> None:
    """The pass, the verifier and the emitter agree on what segments take: what is planned can be emitted."""
    shape = {**LLAMA_8B, "num_hidden_layers": 1, "vocab_size": 1024}
    refusal = ""
    try:
        plan = emit_kernel(verified(shape, target, tokens=tokens, weights=format, outputs=False).kernel).plan
        assert plan.dynamic_shared <= get_target(target).shared_memory_per_block
    except (PassFailedException, CompileError) as e:
        refusal = str(e)
    assert target != "sm_90a" or not refusal
    assert not refusal or "fewer tokens a step" in refusal


@pytest.mark.parametrize(("target", "mlp", "tokens"), [("sm_90a", 6176, 8), ("sm_80", 8224, 3)])
def test_segments_beside_larger_stages_fit(target: str, mlp: int, tokens: int) -> None:
    """A quantised head makes stages larger, so that segments of bf16 weights hold more activations."""
    config = llama_config(1024, mlp, 1, 16, 8, 64, 300, tied=False)
    plan = emit_kernel(verified(config, target, tokens=tokens, head="int4:g16:min").kernel).plan
    assert plan.ring.stage_bytes > 16384
    assert plan.dynamic_shared <= get_target(target).shared_memory_per_block


@pytest.mark.parametrize(
    ("weights", "head"),
    [
        ("none", "int8:g32"),
        ("none", "int4:g128"),
        ("int8", "int4:g32:min"),
        ("int8", "int8:g32"),
        ("int4:g32:f16", "int8:g16"),
    ],
)
def test_kernels_without_the_head_have_the_same_stages(weights: str, head: str) -> None:
    """Scales of the head make them larger, and a kernel that does not multiply it shares the other weights."""
    config = llama_config(1024, 512, 1, 4, 2, 64, 300, tied=False)
    single = emit_kernel(verified(config, weights=weights, head=head).kernel).plan
    several = verified(config, tokens=8, outputs=False, weights=weights, head=head).kernel
    check_shared(emit_kernel(several, resident=single).plan, single)


# what has 96 columns has three blocks for three SMs; six heads of 16 elements are three pairs
SPLIT: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "down": (CONFIGS["gqa"], {"linear_down": 3}),
    "heads": (llama_config(64, 96, 2, 6, 3, 16, 300), {"linear_down": 3, "linear_o": 3}),
    "no whole blocks": (CONFIGS["odd"], {"linear_down": 1, "linear_o": 1}),
}


@emulated_only
@pytest.mark.parametrize(("config", "parts"), SPLIT.values(), ids=SPLIT)
@pytest.mark.parametrize("handoff", ["auto", "counter"])
def test_rows_of_split_products_are_those_of_single_tokens(
    config: dict[str, Any], parts: dict[str, int], handoff: str, tmp_path: Path
) -> None:
    """An SM multiplies one part of the rows with all its tiles, from where the other kernel keeps whole tiles."""
    single, several = (
        verified(config, sms=3, tokens=n, handoff=handoff, product_values=v, fuse_attention="never").kernel
        for n, v in ((1, 0), (4, 128))
    )
    weights = RandomWeights(single)
    for folder in ("one", "several"):
        (tmp_path / folder).mkdir()
    emitted = emit_kernel(single)
    one = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path / "one")
    chunk = EmulatedKernel(
        emit_kernel(several, resident=emitted.plan),
        packed_weights(emit_kernel(several).plan, weights),
        tmp_path / "several",
    )
    for name, count in parts.items():
        (stream,) = (s for s in chunk.plan.streams if s.family == name)
        assert dict(stream.domain).get("k_part", 1) == count
    for first in (0, 4):
        found = chunk.step(ids(TOKENS[first : first + 4]), first, seed=first)
        for row in range(4):
            expected = one.step(ids([TOKENS[first + row]]), first + row)["logits"][0]
            assert np.abs(found["logits"][row] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_parts_of_columns_are_packed_as_whole_tiles_are() -> None:
    """The same bytes, so that both kernels read one copy; but not where the tiles differ."""
    whole, split, other = (
        emit_kernel(verified(LLAMA_1B, sms=132, tokens=8, outputs=False, product_values=v, rows=r).kernel).plan
        for v, r in ((0, 8), (8192, 8), (8192, 32))
    )
    cut, uncut = (next(s for s in plan.streams if s.family == "linear_down") for plan in (split, whole))
    assert cut.domain == (*uncut.domain, ("k_part", 4)) and cut.bytes == uncut.bytes
    assert cut.uncut == uncut == uncut.uncut
    check_shared(split, whole)
    with pytest.raises(CompileError, match="stored otherwise there, with another domain, parts, layout"):
        check_shared(other, whole)


def test_small_tasks_share_the_room_of_the_sums_of_large_ones() -> None:
    """Tiles of 32 rows need 8 KiB of partial sums, twice; tiles of 8 rows then have one barrier for four."""
    shape = {**LLAMA_8B, "num_hidden_layers": 2}
    emitted = emit_kernel(verified(shape, sms=132, tokens=8, outputs=False).kernel)
    assert "constexpr int PARTIAL_FLOATS = 2048;" in emitted.source
    body = emitted.source.partition("amk_step(")[2]
    down = body[body.index("// queue.run @linear_down[") :]
    assert "left < 4 ? left : 4" in down[: down.index("consumer_barrier();")]
    assert emitted.plan.dynamic_shared <= get_target("sm_90a").shared_memory_per_block


def test_packed_parts_are_bytes_of_packed_tiles() -> None:
    config = llama_config(64, 192, 2, 4, 2, 16, 300)
    packed: list[bytes] = []
    for values in (0, 128):
        kernel = verified(config, sms=3, tokens=4, product_values=values).kernel
        plan = emit_kernel(kernel).plan
        assert any("k_part" in dict(s.domain) for s in plan.streams) == (values > 0)
        packed.append(b"".join(piece.tobytes() for piece in packed_weights(plan, RandomWeights(kernel))))
    assert packed[0] == packed[1]


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
    assert plan_segments(8, 256, 16, 2, 1, 232448) == Segments(8, 256, 16, 64, 2, 1)
    found = plan_segments(8, 448, 32, 1, 4, 232448)
    assert found is not None
    assert (found.count, found.blocks, found.batch) == (7, 64, 4)
    assert plan_segments(1, 448, 32, 1, 4, 232448) is None


def pair(
    config: dict[str, Any], sms: int = 3, fuse_attention: FuseAttention = "auto", **options: Any
) -> tuple[VerifiedKernel, VerifiedKernel]:
    """A kernel of one token a step, and one of eight without outputs, for which there are `options`."""
    both = {"sms": sms, "fuse_attention": fuse_attention}
    return verified(config, **both), verified(config, **{**both, "tokens": 8, "outputs": False, **options})


@emulated_only
@pytest.mark.parametrize("name", ["gqa", "mha"])
def test_a_prompt_fills_the_cache_of_the_other_kernel(name: str, tmp_path: Path) -> None:
    """Whole chunks, a padded one, and the last token alone: the bits of token by token. Tied, the embedding is read where
    the other kernel streams its head from."""
    single, several = (k.kernel for k in pair(CONFIGS[name], fuse_attention="never"))
    weights = RandomWeights(single)
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
    emitted = emit_kernel(single)
    expected = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path / "one")
    for pos, token in enumerate(TOKENS):
        logits = expected.step(ids([token]), pos)["logits"]
    kernel = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path / "two")
    chunk = EmulatedKernel(emit_kernel(several, resident=emitted.plan), (), tmp_path / "three", beside=kernel)
    chunk.step(ids(TOKENS[:8]), 0)
    chunk.step(ids([*TOKENS[8:15], 0]), 8)
    assert np.array_equal(kernel.step(ids(TOKENS[15:]), 15)["logits"], logits)
    borrowed = [s for s in chunk.plan.streams if s.family == "linear_logits"]
    assert bool(borrowed) == (name == "gqa")


@pytest.mark.parametrize("config", [SMOLLM2, LLAMA_1B, LLAMA_8B], ids=["smollm2", "1b", "8b"])
def test_real_shapes_share_their_weights(config: dict[str, Any]) -> None:
    single, several = pair(config, 132)
    plan = emit_kernel(single.kernel).plan
    chunk = emit_kernel(several.kernel, resident=plan).plan
    assert chunk.dynamic_shared <= TARGETS["sm_90a"].shared_memory_per_block
    assert not {s.family for s in chunk.streams} - {s.family for s in plan.streams}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 16}, "packed weights of family @linear_.* stored otherwise"),
        ({"kv_dtype": "f32"}, "state @k_cache: stored otherwise there, with another element;"),
        ({"target": "sm_80"}, "differ in target: sm_80 and sm_90a"),
    ],
)
def test_kernels_that_cannot_share_are_refused(options: dict[str, Any], message: str) -> None:
    single, several = pair(CONFIGS["mha"], **options)
    with pytest.raises(CompileError, match=message):
        emit_kernel(several.kernel, resident=emit_kernel(single.kernel).plan)


def test_another_length_cannot_share() -> None:
    several = verified({**CONFIGS["mha"], "max_position_embeddings": 32}, sms=3, tokens=8, outputs=False)
    with pytest.raises(CompileError, match="differ in max_seq: 32 and 64"):
        emit_kernel(several.kernel, resident=emit_kernel(verified(CONFIGS["mha"], sms=3).kernel).plan)


@pytest.mark.parametrize("tokens", [3, 8])
def test_the_reference_feeds_a_prompt(tokens: int) -> None:
    single = verified(CONFIGS["mha"], sms=3)
    several = verified(CONFIGS["mha"], sms=3, tokens=tokens, outputs=False)
    weights = RandomWeights(single.kernel)
    backend = ReferenceBackend(checked=True)
    expected, found = backend.load(single, weights), backend.load(single, weights, chunk=several)
    assert (expected.chunk, found.chunk) == (1, tokens)
    pos = 0
    while pos < len(TOKENS):
        count = min(tokens, len(TOKENS) - pos)
        found.feed(TOKENS[pos : pos + count], pos)
        for token in TOKENS[pos : pos + count]:
            expected.feed([token], pos)
            pos += 1
    a, b = expected.step(9, pos), found.step(9, pos)
    assert a[0] == b[0]
    assert np.abs(a[1] - b[1]).max() <= 1e-5 * np.abs(a[1]).max()
    with pytest.raises(ExecutionError, match=f"1 to {tokens} tokens are fed at a time, found {tokens + 1}"):
        found.feed([1] * (tokens + 1), pos)
    # near the end of the cache a padded step has no room: the tokens are run one by one
    for first in range(pos + 1, 62):
        found.step(1, first)
    found.feed([1, 2], 62)
    assert found.step(1, 63)[1].shape == (300,)


def test_a_chunk_with_outputs_is_refused() -> None:
    single, several = verified(CONFIGS["mha"], sms=3), verified(CONFIGS["mha"], sms=3, tokens=2)
    with pytest.raises(UsageError, match="without outputs, @model has 2 tokens and 2 outputs"):
        ReferenceBackend().load(single, RandomWeights(single.kernel), chunk=several)


@pytest.mark.parametrize("target", CUDA_TARGETS)
def test_chunks_compile_for_all_targets(target: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    single, several = (verified(CONFIGS["gqa"], target, sms=8, tokens=n, outputs=n == 1) for n in (1, 8))
    plan = emit_kernel(single.kernel).plan  # the plan is that of the compiled kernel
    assert CudaBackend().compile_beside(several, plan).resources.spill_stores == 0
