"""Attention in the tasks that multiply its result (`fuse-attention`): every level, and the kernels that share its weights."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_models import CONFIGS, RandomWeights, llama_config, lower, verified

from amk.amk_ir.errors import CompileError
from amk.backends.cuda.emit import emit_kernel
from amk.backends.cuda.pack import packed_weights
from amk.backends.cuda.sharing import check_shared
from amk.backends.reference.backend import ReferenceBackend
from amk.backends.reference.queue_interpreter import QueueInterpreter
from amk.dialects.task import AttentionOp, MatmulOp, SumPartsOp
from amk.passes.verify_schedule import VerifiedKernel

TOKENS = (5, 17, 49, 3)


def fused_families(kernel: VerifiedKernel) -> list[str]:
    """The families that attend and multiply."""
    return [
        name
        for name, family in kernel.kernel.families.items()
        if {AttentionOp, MatmulOp} <= {type(op) for op in family.body.block.ops}
    ]


@pytest.mark.parametrize("target", ["reference", "sm_90a"])
@pytest.mark.parametrize("name", ["gqa", "odd", "biases"])
def test_the_same_logits(name: str, target: str) -> None:
    plain = verified(CONFIGS[name], target, sms=5)
    fused = verified(CONFIGS[name], target, sms=5, fuse_attention=True)
    assert fused_families(fused) and not fused_families(plain)
    weights = RandomWeights(plain.kernel)
    ours, theirs = (ReferenceBackend().load(kernel, weights) for kernel in (fused, plain))
    for pos, token in enumerate(TOKENS):
        (chosen, logits), (expected_token, expected) = ours.step(token, pos), theirs.step(token, pos)
        assert chosen == expected_token
        assert np.abs(logits - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("options", [{"parts": 2, "block": 32}, {"tokens": 4}])
def test_divided_attention_and_several_tokens(options: dict[str, Any]) -> None:
    """Their attention stays apart; the products are those of the fused kernel, so that its packed weights serve them."""
    config = llama_config(32, 32, 1, 6, 2, 16, 64, max_seq=64)
    fused = verified(config, sms=4, fuse_attention=True)
    other = verified(config, sms=4, fuse_attention=True, **options)
    assert fused_families(fused) == ["linear_o"] and not fused_families(other)
    check_shared(emit_kernel(other.kernel).plan, emit_kernel(fused.kernel).plan)
    with pytest.raises(CompileError, match="linear_o"):
        check_shared(emit_kernel(verified(config, sms=4, **options).kernel).plan, emit_kernel(fused.kernel).plan)

    weights = RandomWeights(fused.kernel)
    reference = QueueInterpreter(fused.kernel, weights)
    expected = np.concatenate([reference.step([token], pos).logits for pos, token in enumerate(TOKENS)])
    several = QueueInterpreter(other.kernel, weights)
    step = options.get("tokens", 1)
    logits = np.concatenate(
        [several.step(list(TOKENS[pos : pos + step]), pos).logits for pos in range(0, len(TOKENS), step)]
    )
    assert np.abs(logits - expected).max() <= 2e-6 * np.abs(expected).max()


def test_quantised_weights_stay_whole() -> None:
    kernel = verified(CONFIGS["gqa"], sms=4, fuse_attention=True, weights="int8")
    assert not fused_families(kernel)
    assert kernel.kernel.families["linear_o"].domain.names == ("layer", "tile")


def test_sums_stay_apart_for_several_tokens() -> None:
    kernel = lower(CONFIGS["gqa"], sms=4, fuse_attention=True, tokens=4)
    summing = [n for n, f in kernel.families.items() if any(isinstance(op, SumPartsOp) for op in f.body.block.ops)]
    assert summing == ["linear_o_sum"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gqa", {"handoff": "counter"}),
        ("odd", {}),
        ("head_dim_80", {"kv_dtype": "bf16"}),
    ],
)
def test_emulated(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    kernel = verified(CONFIGS[name], sms=7, fuse_attention=True, **{"kv_dtype": "f32", **options})
    assert fused_families(kernel) == ["linear_o"]
    emitted, weights = emit_kernel(kernel.kernel), RandomWeights(kernel.kernel)
    emulated = EmulatedKernel(emitted, packed_weights(emitted.plan, weights), tmp_path)
    reference = ReferenceBackend().load(kernel, weights)
    for pos, token in enumerate(TOKENS[:3]):
        outputs = emulated.step({"token": np.array([token], np.int32)}, pos, seed=pos)
        _, expected = reference.step(token, pos)
        logits = outputs["logits"][0]
        assert np.abs(logits - expected).max() <= 2e-5 * np.abs(expected).max()
        assert outputs["next_token"][0] == logits.argmax()
