"""Emitted kernels, executed on the CPU by an emulation of CUDA, against the reference backend."""

import re
import shutil
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_kernels import Shape, kernel_text
from cuda_models import CONFIGS, RandomWeights, llama_config, verified
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from amk.amk_ir.dtypes import FloatType, bf16_from_f32, f32_from_bf16
from amk.amk_ir.errors import StuckWaitError
from amk.backends.cuda.context import Loads
from amk.backends.cuda.emit import DroppedSignal, emit_kernel
from amk.backends.cuda.pack import packed_weights
from amk.backends.reference.backend import ReferenceBackend
from amk.backends.reference.queue_interpreter import QueueInterpreter
from amk.dialects.task import AttentionMergeOp, FamilyOp, MatmulOp
from amk.frontends.import_model import import_config
from amk.passes.convert_graph_to_task import ConvertGraphToTaskPass
from amk.passes.expand_queues import ExpandQueuesPass
from amk.passes.insert_sync import Handoff, InsertSyncPass
from amk.passes.place_tasks import PlaceTasksPass
from amk.passes.plan_stream import PlanStreamPass
from amk.passes.tile_tasks import TileTasksPass
from amk.runtime.compile import find_kernel, new_context

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.mark.parametrize(
    ("name", "handoff", "target"),
    [
        *((name, handoff, "sm_90a") for name in ("gqa", "odd", "head_dim_80") for handoff in ("auto", "counter")),
        # rings that all lanes of the producer warp fill
        ("gqa", "auto", "sm_80"),
        ("odd", "counter", "sm_89"),
    ],
)
def test_steps_agree(name: str, handoff: str, target: str, tmp_path: Path) -> None:
    kernel = verified(CONFIGS[name], target, sms=3, handoff=handoff, kv_dtype="f32")
    emitted, weights = emit_kernel(kernel.kernel), RandomWeights(kernel.kernel)
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path)
    reference = ReferenceBackend().load(kernel, weights)
    for pos, token in enumerate((5, 17, 99)):
        outputs = emulated.step({"token": np.array([token], np.int32)}, pos, seed=pos)
        _, expected = reference.step(token, pos)
        logits = outputs["logits"][0]
        assert np.abs(logits - expected).max() <= 2e-5 * np.abs(expected).max()
        assert outputs["next_token"][0] == logits.argmax()


@pytest.mark.parametrize(("sms", "weights"), [(9, "none"), (16, "none"), (16, "int8")])
def test_products_of_several_runs_made_together(sms: int, weights: str, tmp_path: Path) -> None:
    """Of q, k and v: one product an SM, or one after the other."""
    kernel = verified(CONFIGS["gqa"], sms=sms, weights=weights, kv_dtype="f32")
    emitted, tensors = emit_kernel(kernel.kernel), RandomWeights(kernel.kernel)
    assert "task.stream in @linear_q, @linear_k, @linear_v, consumed" in {o.text for o in emitted.plan.operations}
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, tensors), tmp_path)
    reference = ReferenceBackend().load(kernel, tensors)
    for pos, token in enumerate((5, 17)):
        logits = emulated.step({"token": np.array([token], np.int32)}, pos, seed=pos)["logits"][0]
        _, expected = reference.step(token, pos)
        assert np.abs(logits - expected).max() <= 2e-5 * np.abs(expected).max()


def test_first_stages_in_registers(tmp_path: Path) -> None:
    """A task's weights come into registers a stage or several at a time, with the same bits; some tasks end with half a stage."""
    kernel = verified(llama_config(512, 96, 1, 4, 2, 16, 64), sms=3, kv_dtype="f32", bytes=3072)
    tensors = RandomWeights(kernel.kernel)
    reference, results = ReferenceBackend().load(kernel, tensors), []
    for vectors, most in ((0, 1), (3, 2), (28, 8)):
        emitted = emit_kernel(kernel.kernel, loads=Loads(6, weights=vectors))
        stages = {int(n) for n in re.findall(r"FirstStages<.*, (\d+)> held", emitted.source)}
        assert max(stages) == most, stages
        emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, tensors), tmp_path)
        results.append(
            [emulated.step({"token": np.array([t], np.int32)}, n)["logits"][0].copy() for n, t in enumerate((5, 17))]
        )
    assert np.array_equal(results[0], results[1]) and np.array_equal(results[0], results[2])
    for pos, token in enumerate((5, 17)):
        _, expected = reference.step(token, pos)
        assert np.abs(results[0][pos] - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "kv_dtype", "parts", "block"),  # 0 parts: fused into the products
    [
        (3, 1, 64, "bf16", 1, 32),
        (4, 2, 64, "f32", 1, 32),
        (9, 1, 18, "bf16", 1, 32),
        (36, 1, 16, "bf16", 1, 32),
        (2, 1, 128, "bf16", 1, 32),
        (2, 1, 80, "f32", 1, 32),
        (4, 2, 64, "bf16", 3, 32),
        (4, 2, 64, "bf16", 2, 0),  # as many positions as are attended to at a time
        (2, 1, 128, "f32", 3, 0),
        (2, 1, 40, "f32", 2, 32),
        (1, 1, 256, "bf16", 1, 32),
        (6, 2, 64, "bf16", 0, 32),
        (10, 1, 18, "bf16", 0, 32),
    ],
)
def test_positions_around_groups(
    heads: int, kv_heads: int, head_dim: int, kv_dtype: FloatType, parts: int, block: int, tmp_path: Path
) -> None:
    """Around the groups of positions (16) and the stages (up to 128), over a cache of random rows."""
    config = llama_config(32, 32, 1, heads, kv_heads, head_dim, 64, max_seq=304)
    kernel = verified(
        config, sms=2, kv_dtype=kv_dtype, parts=parts or 1, block=block, fuse_attention="never" if parts else "always"
    )
    emitted, weights = emit_kernel(kernel.kernel), RandomWeights(kernel.kernel)
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path)
    reference = QueueInterpreter(kernel.kernel, weights)
    generator = np.random.default_rng(1)
    for pos in (0, 1, 7, 8, 15, 16, 33, 64, 127, 128, 255, 256, 300):
        reference.reset()
        for name in ("k_cache", "v_cache"):
            rows = 2 * generator.standard_normal(reference.memory.arrays[name].shape, np.float32)
            if kv_dtype == "bf16":
                rows = f32_from_bf16(bf16_from_f32(rows))
            reference.memory.arrays[name][:, :pos] = rows[:, :pos]
            rows[:, pos:] = np.nan  # only what was written may be read
            storage = next(b for b in emitted.plan.buffers if b.name == name)
            stored = np.zeros(storage.elements, np.uint16 if kv_dtype == "bf16" else np.float32)
            stored[storage.cache.rows(np.arange(storage.elements))] = (
                bf16_from_f32(rows) if kv_dtype == "bf16" else rows
            )
            emulated.arrays[f"b_{name}"][:] = stored.view(np.uint8)
        outputs = emulated.step({"token": np.array([5], np.int32)}, pos, seed=pos)
        expected = reference.step([5], pos).logits
        assert np.abs(outputs["logits"] - expected).max() <= 4e-5 * np.abs(expected).max(), pos


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "handoff", "more"),
    [
        (6, 2, 64, "auto", False),
        (6, 2, 64, "counter", True),
        (4, 2, 128, "auto", True),
        (4, 2, 128, "counter", False),
        (4, 2, 18, "auto", False),
    ],
)
def test_parts_merged_by_their_reader(
    heads: int, kv_heads: int, head_dim: int, handoff: Handoff, more: bool, tmp_path: Path
) -> None:
    """The products behind a divided attention merge its parts themselves: some have no position at first, then several blocks."""
    config = llama_config(32, 32, 2, heads, kv_heads, head_dim, 64, max_seq=304)
    kernel = verified(config, sms=4, kv_dtype="f32", parts=3, block=16, handoff=handoff)
    merging = [family for family in kernel.kernel.families.values() if _kinds(family) >= {AttentionMergeOp, MatmulOp}]
    assert len(merging) == 1 and not any(
        _kinds(family) >= {AttentionMergeOp} for family in kernel.kernel.families.values() if family not in merging
    )
    emitted, weights = emit_kernel(kernel.kernel, loads=Loads(6, more=more)), RandomWeights(kernel.kernel)
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path)
    reference = QueueInterpreter(kernel.kernel, weights)
    for pos in range(70):
        outputs = emulated.step({"token": np.array([(5 + pos) % 64], np.int32)}, pos, seed=pos)
        expected = reference.step([(5 + pos) % 64], pos).logits
        assert np.abs(outputs["logits"] - expected).max() <= 4e-5 * np.abs(expected).max(), pos


def _kinds(family: FamilyOp) -> set[type]:
    return {type(op) for op in family.body.block.ops}


def test_argmax_of_a_wide_row(tmp_path: Path) -> None:
    kernel = verified(llama_config(32, 32, 1, 1, 1, 8, 20003), sms=2).kernel
    emitted, weights = emit_kernel(kernel), RandomWeights(kernel)
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path)
    for token in (3, 20002):
        outputs = emulated.step({"token": np.array([token], np.int32)}, 0)
        assert outputs["next_token"][0] == outputs["logits"][0].argmax()


def test_a_short_explicit_form(tmp_path: Path) -> None:
    kernel = verified(llama_config(32, 32, 1, 2, 1, 16, 64), sms=2, kv_dtype="f32").kernel
    module = kernel.parent_op()
    assert isinstance(module, ModuleOp)
    weights = RandomWeights(kernel)
    reference = QueueInterpreter(kernel, weights).step([5], 0)
    ExpandQueuesPass().apply(new_context(), module)
    emitted = emit_kernel(find_kernel(module))
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path)
    outputs = emulated.step({"token": np.array([5], np.int32)}, 0)
    assert np.abs(outputs["logits"] - reference.logits).max() <= 2e-5 * np.abs(reference.logits).max()


@pytest.mark.parametrize(("name", "handoff"), [("biases", "auto"), ("odd", "counter")])
def test_a_model_without_fusion(name: str, handoff: Literal["auto", "counter"], tmp_path: Path) -> None:
    module = import_config(CONFIGS[name], weight_dtype="bf16").module.clone()
    for step in (
        ConvertGraphToTaskPass(),
        TileTasksPass(rows=8),
        PlaceTasksPass(target="sm_90a", sms=3),
        InsertSyncPass(handoff=handoff),
        PlanStreamPass(),
    ):
        step.apply(new_context(), module)
    kernel = find_kernel(module)
    weights = RandomWeights(kernel)
    reference = QueueInterpreter(kernel, weights).step([5], 0)
    emitted = emit_kernel(kernel)
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path)
    outputs = emulated.step({"token": np.array([5], np.int32)}, 0)
    assert np.abs(outputs["logits"] - reference.logits).max() <= 2e-5 * np.abs(reference.logits).max()


@pytest.mark.parametrize("tagged", [False, True])
def test_several_tokens_a_step(tagged: bool, tmp_path: Path) -> None:
    kernel = find_kernel(Parser(new_context(), kernel_text(Shape(tokens=4, tagged=tagged, bias=True))).parse_module())
    emitted, weights = emit_kernel(kernel), RandomWeights(kernel)
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path)
    reference = QueueInterpreter(kernel, weights)
    for step, tokens in enumerate(([5, 17, 99, 3], [1, 2, 3, 4])):
        outputs = emulated.step({"token": np.array(tokens, np.int32)}, 4 * step)
        expected = reference.step(tokens, 4 * step)
        assert np.abs(outputs["logits"] - expected.logits).max() <= 2e-5 * np.abs(expected.logits).max()
        assert np.array_equal(outputs["next_token"], expected.next_tokens)


@pytest.mark.parametrize("handoff", ["auto", "counter"])
def test_a_missing_signal_is_reported(handoff: str, tmp_path: Path) -> None:
    kernel = verified(llama_config(), sms=3, handoff=handoff).kernel
    counter = next(iter(kernel.counters))
    emitted = emit_kernel(kernel, DroppedSignal(counter, 1))
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, RandomWeights(kernel)), tmp_path, time_limit_s=0.5)
    with pytest.raises(StuckWaitError, match=rf"queue.wait @{counter}\[.*expected 3 signals in this step, seen 2"):
        emulated.step({"token": np.array([1], np.int32)}, 0)
