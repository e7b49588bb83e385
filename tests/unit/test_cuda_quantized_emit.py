"""Emission and compilation of kernels with quantised weights."""

import re
from collections.abc import Callable

import pytest
from cuda_models import CONFIGS, LLAMA_8B, SMOLLM2, lower, verified
from cuda_targets import spread
from quantized_models import EVERY_FORMAT
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from amk.amk_ir.errors import CompileError
from amk.amk_ir.targets import TARGETS
from amk.backends.cuda.compile import compile_kernel
from amk.backends.cuda.emit import emit_kernel
from amk.dialects.queue import KernelOp
from amk.passes.verify_schedule import verify
from amk.runtime.compile import find_kernel, module_text, new_context


def edited(kernel: KernelOp, edit: Callable[[str], str]) -> KernelOp:
    """A kernel with its text changed line by line."""
    module = kernel.parent_op()
    assert isinstance(module, ModuleOp)
    text = "\n".join(edit(line) for line in module_text(module).splitlines())
    changed = Parser(new_context(), text).parse_module()
    changed.verify()
    return find_kernel(changed)


@pytest.mark.parametrize(("formats", "target"), spread([("int8", "int8:g16"), ("int4:g32:zp", "fp8")], first=1))
def test_smollm2_compiles(formats: tuple[str, str], target: str) -> None:
    """Without spills, which compile_kernel refuses."""
    pytest.importorskip("cuda.bindings.nvrtc")
    weights, head = formats
    kernel = verified(SMOLLM2, target, sms=TARGETS[target].num_sms, weights=weights, head=head)
    compiled = compile_kernel(kernel)
    shared = compiled.plan.dynamic_shared + compiled.resources.static_shared
    assert shared <= TARGETS[target].shared_memory_per_block


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_every_format_compiles(name: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    config, options = EVERY_FORMAT[name]
    compile_kernel(verified(CONFIGS[config], sms=8, **options))


@pytest.mark.parametrize("format", ["int8", "fp8", "int4:g32:zp"])
def test_several_tokens_compile(format: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    compile_kernel(verified(CONFIGS["gqa"], sms=8, tokens=8, weights=format, head=format))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "target"),  # targets without and with conversions of fp8, the other formats in turn
    [("fp8", "sm_86"), ("fp8", "sm_90a"), ("int8", "sm_90a"), ("int4:g128:f16", "sm_86")],
)
def test_llama_8b_compiles(weights: str, target: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    compile_kernel(verify(lower(LLAMA_8B, target, weights=weights, head="int8")))


def test_streams_have_the_bytes_of_their_formats() -> None:
    """Codes, padded to blocks, with their scales; a table that is also the head is stored once."""
    plan = emit_kernel(lower(SMOLLM2, weights="int4:g64:f16", head="int8")).plan
    streams = {stream.family: stream for stream in plan.streams}
    down = streams["linear_down"]
    assert down.bytes == 30 * 576 * (1536 // 2 + 1536 // 64 * 2)
    logits = streams["linear_logits"]
    assert logits.bytes == 49152 * (576 + 4)
    assert "embed" not in {b.name for b in plan.constants}
    separate = emit_kernel(lower({**SMOLLM2, "tie_word_embeddings": False}, embedding="int8", head="int8")).plan
    (table,) = [b for b in separate.constants if b.name == "embed"]
    assert table.bytes == 49152 * (576 + 4)


def test_a_mixed_kernel_uses_both_products() -> None:
    source = emit_kernel(lower(CONFIGS["gqa"], weights="int8")).source
    assert "FirstCodes<Quantized<Int8, 128, F32Scale, 0, NOTHING," in source
    assert " FirstStages<" in source
    assert "FirstCodes" not in emit_kernel(lower(CONFIGS["gqa"])).source


def test_tiles_of_two_formats_are_refused() -> None:
    def edit(line: str) -> str:
        return line.replace('"int8"', '"int4"') if re.search(r"@up_proj|matmul .*%up_proj", line) else line

    with pytest.raises(CompileError, match=r"@linear_gate_up streams tiles of different types .*int4.* and .*int8.*"):
        emit_kernel(edited(lower(CONFIGS["gqa"], weights="int8"), edit))


def test_a_stage_without_room_for_scales_is_refused() -> None:
    """The ring of a schedule that was edited: 512 bytes hold a block of codes of 16 rows, but not its scales."""
    kernel = edited(
        lower(CONFIGS["gqa"], sms=2, weights="int8:g32"), lambda line: re.sub(r"bytes = \d+", "bytes = 512", line)
    )
    with pytest.raises(CompileError, match=r"format int8:g32: one block of .* does not fit a ring stage of 512 bytes"):
        emit_kernel(kernel)


def test_groups_that_no_product_has_are_refused() -> None:
    with pytest.raises(CompileError, match=r"family @linear_q, format int8:g8: groups of 8 columns"):
        emit_kernel(lower(CONFIGS["gqa"], weights="int8:g8"))
