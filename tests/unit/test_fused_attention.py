"""Attention in the tasks that multiply its result (`fuse-attention`): every level, and the kernels that share its weights."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_models import CONFIGS, RandomWeights, llama_config, lower, verified
from xdsl.parser import Parser
from xdsl.utils.exceptions import PassFailedException

from amk.amk_ir.errors import CompileError
from amk.backends.cuda.emit import emit_kernel
from amk.backends.cuda.pack import packed_weights
from amk.backends.cuda.sharing import check_shared
from amk.backends.reference.backend import ReferenceBackend
from amk.backends.reference.queue_interpreter import QueueInterpreter
from amk.dialects.task import AttentionOp, MatmulOp, SumPartsOp
from amk.passes.verify_schedule import VerifiedKernel, verify
from amk.runtime.compile import find_kernel, new_context

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
    plain = verified(CONFIGS[name], target, sms=5, fuse_attention="never")
    fused = verified(CONFIGS[name], target, sms=5, fuse_attention="always")
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
    fused = verified(config, sms=4, fuse_attention="always")
    other = verified(config, sms=4, fuse_attention="always", **options)
    assert fused_families(fused) == ["linear_o"] and not fused_families(other)
    check_shared(emit_kernel(other.kernel).plan, emit_kernel(fused.kernel).plan)
    with pytest.raises(CompileError, match="linear_o"):
        whole = verified(config, sms=4, fuse_attention="never", **options)
        check_shared(emit_kernel(whole.kernel).plan, emit_kernel(fused.kernel).plan)

    weights = RandomWeights(fused.kernel)
    reference = QueueInterpreter(fused.kernel, weights)
    expected = np.concatenate([reference.step([token], pos).logits for pos, token in enumerate(TOKENS)])
    several = QueueInterpreter(other.kernel, weights)
    step = options.get("tokens", 1)
    logits = np.concatenate(
        [several.step(list(TOKENS[pos : pos + step]), pos).logits for pos in range(0, len(TOKENS), step)]
    )
    assert np.abs(logits - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize(("format", "is_fused"), [("int8", True), ("int4:g32", True), ("int4:g64", False)])
def test_groups_of_quantised_weights_stay_whole(format: str, is_fused: bool) -> None:
    """A KV head has 32 columns."""
    kernel = verified(CONFIGS["gqa"], sms=4, weights=format)
    assert fused_families(kernel) == ["linear_o"] * is_fused
    names = kernel.kernel.families["linear_o"].domain.names
    assert names == (("layer", "kv_head", "tile") if is_fused else ("layer", "tile"))


def test_always_is_refused_where_it_cannot_be() -> None:
    """Not silently: whoever measures `fuse-attention=always` is to know what they measure."""
    message = "fuse-attention=always: no product can take the attention before it"
    with pytest.raises(PassFailedException, match=message):
        lower(CONFIGS["gqa"], sms=4, weights="int4:g64", fuse_attention="always")
    config = llama_config(256, 64, 1, 4, 2, 16, 64, max_seq=64)  # tasks would have more than 64 rows
    with pytest.raises(PassFailedException, match=message):
        lower(config, sms=4, fuse_attention="always")
    fused, plain = (verified(config, sms=4, fuse_attention=chosen) for chosen in ("auto", "never"))
    assert fused.digest == plain.digest


def test_sums_stay_apart_for_several_tokens() -> None:
    kernel = lower(CONFIGS["gqa"], sms=4, fuse_attention="always", tokens=4)
    summing = [n for n, f in kernel.families.items() if any(isinstance(op, SumPartsOp) for op in f.body.block.ops)]
    assert summing == ["linear_o_sum"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gqa", {"handoff": "counter"}),
        ("odd", {}),
        ("head_dim_80", {"kv_dtype": "bf16"}),
        ("gqa", {"weights": "int8:zp"}),
        ("gqa", {"weights": "int4:g16:min:f16"}),
        ("gqa", {"weights": "fp8:b32x32"}),
        ("head_dim_80", {"weights": "int4:g16:zp"}),
    ],
)
def test_emulated(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    kernel = verified(CONFIGS[name], sms=7, fuse_attention="always", **{"kv_dtype": "f32", **options})
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


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("parts", [1, 3, 32, 33])
@pytest.mark.parametrize("tagged", ["", " tagged"])
def test_sums_of_parts(parts: int, tagged: str, tmp_path: Path) -> None:
    """Of words and of plain floats, in vectors and one by one (12 and 5 columns a task)."""
    wait, signal, counter = "queue.wait @c[0] all", "queue.signal @c[0]", "queue.counter @c[1]"
    text = f"""queue.kernel @k target "sm_90a" sms 2 max_seq 4 tokens 1 ring #amk.ring<stages = 2, bytes = 512, in_flight = 1> {{
      task.buffer @x input : tensor<1x{parts}x29xf32>
      task.buffer @p scratch{tagged} : tensor<1x{parts}x29xf32>
      task.buffer @y output : tensor<1x24xf32>
      task.buffer @z output : tensor<1x5xf32>
      task.family @copy () {{
        %x = task.load @x[0 : 1, 0 : {parts}, 0 : 29] : tensor<1x{parts}x29xf32>
        task.store %x, @p[0 : 1, 0 : {parts}, 0 : 29] : tensor<1x{parts}x29xf32>
      }}
      task.family @even (tile = 2) {{
        %p = task.load @p[0 : 1, 0 : {parts}, tile*12 : 12] : tensor<1x{parts}x12xf32>
        %y = task.sum_parts %p : tensor<1x{parts}x12xf32> -> tensor<1x12xf32>
        task.store %y, @y[0 : 1, tile*12 : 12] : tensor<1x12xf32>
      }}
      task.family @odd () {{
        %p = task.load @p[0 : 1, 0 : {parts}, 24 : 5] : tensor<1x{parts}x5xf32>
        %y = task.sum_parts %p : tensor<1x{parts}x5xf32> -> tensor<1x5xf32>
        task.store %y, @z[0 : 1, 0 : 5] : tensor<1x5xf32>
      }}
      {"" if tagged else counter}
      queue.program sms 0 to 2 stream {{
      }} body {{
        queue.phase {{
          queue.run @copy[] on cyclic 0
          {"" if tagged else signal}
        }}
        queue.phase {{
          {"" if tagged else wait}
          queue.run @even[] on cyclic 0
          queue.run @odd[] on cyclic 1
        }}
      }}
    }}"""
    module = Parser(new_context(), text).parse_module()
    kernel = verify(find_kernel(module)).kernel
    if parts > 32:
        with pytest.raises(CompileError, match="at most 32 parts"):
            emit_kernel(kernel)
        return
    emitted = emit_kernel(kernel)
    emulated = EmulatedKernel(emitted, (), tmp_path)
    x = np.random.default_rng(0).standard_normal((1, parts, 29), np.float32)
    outputs = emulated.step({"x": x}, 0)
    found = np.concatenate([outputs["y"], outputs["z"]], axis=1)
    # words lose their lowest bit
    assert np.abs(found - x.astype(np.float64).sum(axis=1)).max() <= 2e-7 * parts * np.abs(x).max()
