"""Emission and compilation: what kernels are accepted, what they become, and that each target's compiler takes it."""

from dataclasses import replace

import pytest
from cuda_kernels import SMOLLM2, Shape, kernel_text
from cuda_models import CONFIGS, LLAMA_8B, llama_config, lower, verified
from cuda_models import SMOLLM2 as SMOLLM2_CONFIG
from cuda_targets import spread
from xdsl.parser import Parser

from amk.amk_ir.errors import CompileError, ScheduleError
from amk.amk_ir.targets import TARGETS, Target
from amk.backends.cuda.backend import CudaBackend
from amk.backends.cuda.compile import compile_kernel
from amk.backends.cuda.context import Loads
from amk.backends.cuda.emit import DroppedSignal, attempts, emit_kernel
from amk.backends.cuda.nvrtc import Cubin, Resources
from amk.dialects.queue import KernelOp
from amk.passes.expand_queues import ExpandQueuesPass
from amk.passes.verify_schedule import verify
from amk.runtime.compile import find_kernel, new_context


def parse(text: str) -> KernelOp:
    module = Parser(new_context(), text).parse_module()
    module.verify()
    return find_kernel(module)


@pytest.mark.parametrize(("cache", "target"), spread(["bf16"]))
def test_smollm2_compiles(cache: str, target: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    compiled = compile_kernel(
        verify(
            parse(kernel_text(replace(SMOLLM2, target=target, sms=TARGETS[target].num_sms, cache=cache, tagged=True)))
        )
    )
    assert compiled.image[:4] == b"\x7fELF"
    assert compiled.resources.spill_stores == compiled.resources.spill_loads == 0
    shared = compiled.plan.dynamic_shared + compiled.resources.static_shared
    assert shared <= TARGETS[target].shared_memory_per_block


SHAPES = {"biases, by counters": Shape(bias=True, tied=False, cache="bf16"), "two tokens": Shape(tokens=2, tagged=True)}


@pytest.mark.parametrize(("shape", "target"), spread(list(SHAPES)))
def test_small_kernels_compile(shape: str, target: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    compile_kernel(verify(parse(kernel_text(replace(SHAPES[shape], target=target)))))


@pytest.mark.parametrize(("name", "target"), spread(["odd", "head_dim_256"], first=2))
def test_lowered_models_compile(name: str, target: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    CudaBackend().compile(verified(CONFIGS[name], target, sms=8))


@pytest.mark.parametrize(("kv_dtype", "target"), spread(["f32", "bf16"], first=1))
def test_lowered_smollm2_compiles(kv_dtype: str, target: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    config = llama_config(576, 1536, 30, 9, 3, 64, 49152, 2048)
    CudaBackend().compile(verified(config, target, sms=TARGETS[target].num_sms, kv_dtype=kv_dtype))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["sm_86", "sm_90a"])
def test_llama_8b_compiles(target: str) -> None:
    pytest.importorskip("cuda.bindings.nvrtc")
    compile_kernel(verify(lower(LLAMA_8B, target)))


def test_text_does_not_grow_with_layers() -> None:
    few, many = (emit_kernel(parse(kernel_text(Shape(layers=n)))).source for n in (2, 20))
    assert abs(len(many) - len(few)) < 200


def test_runs_with_equal_activations_share_them() -> None:
    source = emit_kernel(parse(kernel_text(Shape(tagged=True)))).source
    # one each for q, k and v together, the output projection, gate and up, down, and the head
    assert source.count("const Activations x =") == 5


@pytest.mark.parametrize(
    ("heads", "head_dim", "kv", "tokens", "is_early"),
    [
        (4, 64, "bf16", 1, True),
        (4, 128, "bf16", 1, True),
        (4, 256, "bf16", 1, False),
        (4, 64, "f32", 1, False),
        (9, 64, "bf16", 1, False),
        (4, 64, "bf16", 8, False),
    ],
)
def test_early_rows(heads: int, head_dim: int, kv: str, tokens: int, is_early: bool) -> None:
    """The first keys and values are in registers before the queries where a lane's share of both leaves enough of them."""
    kernel = lower(llama_config(64, 64, 2, heads, 1, head_dim, 64), kv_dtype=kv, tokens=tokens)
    main = emit_kernel(kernel).source.partition("amk_step(")[2]
    assert ("load_rows<" in main, "attend_after<" in main, " attend<" in main) == (is_early, is_early, not is_early)
    without = emit_kernel(kernel, loads=Loads(6, rows=False)).source.partition("amk_step(")[2]
    assert "load_rows<" not in without and " attend<" in without


@pytest.mark.parametrize("target", ["sm_90a", "sm_100a"])
def test_more_registers(target: str) -> None:
    """Where the consumers' share is too small, they get that of a whole warpgroup: the compiler goes along, and spills nothing."""
    pytest.importorskip("cuda.bindings.nvrtc")
    config = llama_config(1024, 3072, 2, 16, 8, 128, 4096, max_seq=256)
    compiled = compile_kernel(verified(config, target, sms=132))
    assert compiled.plan.threads == 384 and "HeldRows rows = {};" in compiled.source
    assert "setmaxnreg" in compiled.source and "setmaxnreg" not in compiled.log, "the compiler says that it ignores it"


def test_no_source_is_compiled_twice() -> None:
    """Attempts that make no difference to a kernel: without keys and values that could be in registers, `rows`."""
    sources: list[str] = []

    def compiler(source: str, target: Target, name: str) -> Cubin:
        sources.append(source)
        return Cubin(b"", Resources(168, 4, 4, 0, 0), "")

    with pytest.raises(CompileError, match="spills 8 bytes"):
        compile_kernel(verified(llama_config(), sms=4, kv_dtype="f32"), None, compiler)
    assert 1 < len(sources) == len(set(sources)) < len(attempts(TARGETS["sm_90a"], tokens=1))


def test_registers_are_moved_where_they_can_be() -> None:
    kernel = lower(llama_config(), "sm_90a", sms=4)
    plain, more = (emit_kernel(kernel, loads=Loads(6, more=more)) for more in (False, True))
    assert (plain.plan.threads, more.plan.threads) == (288, 384)
    calls = ("AMK_MORE_REGISTERS", "give_registers();", "take_registers();")
    assert all(call not in plain.source and call in more.source for call in calls)
    assert replace(more.plan, threads=288) == plain.plan
    for target in TARGETS.values():
        for tokens in (1, 8):
            has_more = any(loads.more for loads in attempts(target, tokens))
            assert has_more == (target.name in ("sm_90a", "sm_100a")), target.name


@pytest.mark.parametrize(("bytes", "names"), [(16384, ["<1, 48,"]), (24576, ["<1, 48,", "<3, 18,"])])
def test_early_weights_of_larger_stages(bytes: int, names: list[str]) -> None:
    """A thread holds an even share of a stage: of SmolLM2's gate and up, which are not evenly divided, only of 24 KiB."""
    source = emit_kernel(lower(SMOLLM2_CONFIG, "sm_90a", sms=132, bytes=bytes)).source
    found = [name for name in ("<1, 48,", "<3, 18,") if f"FirstStages{name}" in source]
    assert found == names


def test_only_verified_kernels_are_compiled() -> None:
    kernel = lower(CONFIGS["gqa"], sms=4)
    with pytest.raises(ScheduleError, match="only verified kernels"):
        CudaBackend().compile(kernel)  # pyright: ignore[reportArgumentType]


def test_the_explicit_form_is_refused_when_it_is_long() -> None:
    kernel = lower(llama_config(layers=8), sms=132)
    module = kernel.parent_op()
    assert module is not None
    ExpandQueuesPass().apply(new_context(), module)  # pyright: ignore[reportArgumentType]
    with pytest.raises(CompileError, match="compact form"):
        emit_kernel(find_kernel(module))  # pyright: ignore[reportArgumentType]


def test_a_kernel_without_ring_is_refused() -> None:
    text = kernel_text(Shape()).replace(" ring #amk.ring<stages = 4, bytes = 8192, in_flight = 2>", "")
    with pytest.raises(CompileError, match="plan-stream"):
        emit_kernel(parse(text))


def test_f32_weights_are_refused() -> None:
    text = kernel_text(Shape()).replace(
        'o_proj.weight"> : tensor<2x64x4x2x8xbf16>', 'o_proj.weight"> : tensor<2x64x4x2x8xf32>'
    )
    text = text.replace("tensor<8x4x2x8xbf16>", "tensor<8x4x2x8xf32>")
    with pytest.raises(CompileError, match=r"@o_proj of family @out is f32.*bf16"):
        emit_kernel(parse(text))


def test_a_body_that_cannot_be_expressed_is_named() -> None:
    # a norm of the products of a task: its elements are spread over threads
    text = kernel_text(Shape()).replace(
        "task.store %s, @h[layer, 0 : 1, tile*8 : 8] : tensor<1x8xf32>",
        "%g = task.load @mlp_norm[layer, tile*8 : 8] : tensor<8xbf16>\n"
        "%z = task.rms_norm %s, %g {eps = 1.0e-05 : f64} : (tensor<1x8xf32>, tensor<8xbf16>)\n"
        "task.store %z, @h[layer, 0 : 1, tile*8 : 8] : tensor<1x8xf32>",
    )
    with pytest.raises(CompileError, match=r"family @out.*task.rms_norm"):
        emit_kernel(parse(text))


def test_a_dropped_signal_is_only_for_one_sm() -> None:
    kernel = parse(kernel_text(Shape()))
    assert "blockIdx.x != 1) signal_counter" in emit_kernel(kernel, DroppedSignal("q_done", 1)).source
    with pytest.raises(CompileError, match="no counter @nothing"):
        emit_kernel(kernel, DroppedSignal("nothing", 1))


def test_a_kernel_for_the_reference_is_refused() -> None:
    with pytest.raises(CompileError, match="sm_"):
        emit_kernel(lower(CONFIGS["gqa"], "reference"))
