"""What `amk bench` builds of torch and transformers is the model that it measures; all of it on the CPU."""

import argparse
import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hf_oracle import transformers_model
from tiny_models import LLAMA3_ROPE, Variant, make_llama

from amk.amk_ir.quantization import parse_format, quantize
from amk.tools.bench import baselines, weight_only
from amk.tools.bench.comparison import Expected, ReferenceComparison, TorchComparison
from amk.tools.bench.correctness import divergence
from amk.tools.bench.measure import check_logits, token_ids, wanted_positions
from amk.tools.bench.models import BenchModel, open_model
from amk.tools.bench.results import Baseline, NotRun, Times
from amk.tools.bench.torch_model import build_model, dequantize_into, prefill_logits, to_bf16, torch_problem

CONTEXT = 16
IDS = token_ids(97, CONTEXT + 1)
POSITIONS = wanted_positions([CONTEXT])


@pytest.fixture(params=["tied", "biases"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> BenchModel:
    variants = {
        "tied": Variant(tied=True, rope=LLAMA3_ROPE),
        "biases": Variant(attention_bias=True, mlp_bias=True, head_dim=16),
    }
    folder = make_llama(tmp_path / "model", variants[request.param])
    return open_model(argparse.Namespace(weights="bf16", kv="bf16"), str(folder), [CONTEXT])


def test_the_model_is_that_of_the_oracle_tests(model: BenchModel):
    """Weights rounded to bf16, norms and biases not."""
    built = build_model(model, "cpu")
    expected = transformers_model(model.model, round_to_bf16=True)
    with torch.no_grad():
        right = expected(torch.tensor([IDS])).logits[0, POSITIONS].numpy()
    assert np.array_equal(prefill_logits(built, IDS, POSITIONS), right)


def test_bf16_keeps_the_frequencies(model: BenchModel):
    """As transformers loads a model in bf16: a cast of the whole module would round them."""
    built = build_model(model, "cpu")
    before = built.model.rotary_emb.inv_freq.clone()
    half = to_bf16(built)
    assert torch.equal(half.model.rotary_emb.inv_freq, before)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_comparisons_agree(model: BenchModel):
    """The reference backend's logits are within the error of torch's bf16, checked as a GPU's would be."""
    torchs = TorchComparison(model, repeats=1, mode="default", baselines=(), compiled_contexts=(), device="cpu")
    expected = torchs.expected(IDS, POSITIONS)
    ours = ReferenceComparison(model, "x").expected(IDS, POSITIONS)
    assert isinstance(expected, Expected) and isinstance(ours, Expected)
    check = check_logits({p: ours.logits[p] for p in POSITIONS}, expected, CONTEXT)
    assert not isinstance(check, NotRun)
    assert check.against == "torch float32, positions 9 to 16"
    assert check.ok, check
    assert check.bf16 is not None and check.bf16.relative_error > 1e-3, "bf16 is not float32"
    assert torchs.torch_compile(IDS, CONTEXT) == torchs.matmuls() == NotRun("not asked for")
    torchs.close()


@pytest.mark.parametrize("weights", ["int8", "int4:g16", "fp8"])
def test_quantised_weights_are_those_of_the_kernel(tmp_path: Path, weights: str):
    """torch computes with what the reference backend dequantises: the difference is no quantisation error."""
    folder = make_llama(tmp_path / "model", Variant(hidden=64, intermediate=96, tied=True))
    model = open_model(argparse.Namespace(weights=weights, kv="bf16"), str(folder), [CONTEXT])
    assert model.quantized_types()
    right = prefill_logits(build_model(model, "cpu"), IDS, POSITIONS)
    ours = ReferenceComparison(model, "x").expected(IDS, POSITIONS)
    assert isinstance(ours, Expected)
    found = divergence(np.stack([ours.logits[p] for p in POSITIONS]), right).relative_error
    plain = open_model(argparse.Namespace(weights="bf16", kv="bf16"), str(folder), [CONTEXT])
    unquantised = prefill_logits(build_model(plain, "cpu"), IDS, POSITIONS)
    assert found < 1e-2
    assert found < divergence(right, unquantised).relative_error


@pytest.mark.parametrize(
    "text", ["int8", "int8:g16:zp:f16", "int4:g16", "int4:g16:zp", "int4:g32:min", "fp8", "fp8:b3x32:bf16"]
)
@pytest.mark.parametrize("reordered", [False, True])
def test_torch_dequantises_to_the_same_bits(text: str, reordered: bool):
    """Groups that do not divide a row, blocks that do not divide the rows, and columns in another order."""
    rng = np.random.default_rng(0)
    tensor = quantize(rng.standard_normal((10, 40)).astype(np.float32), parse_format(text))
    if reordered:
        tensor = dataclasses.replace(tensor, permutation=rng.permutation(40).astype(np.int32))
    parameter = torch.empty(10, 8, 5)
    dequantize_into(parameter, tensor)
    assert np.array_equal(parameter.numpy().reshape(10, 40), tensor.dequantize())


@pytest.fixture
def without_a_graph(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dynamo traces the step as on a GPU, but nothing is generated or captured."""

    def capture(run: Callable[[], Any], before: Callable[[], None]) -> tuple[Callable[[], None], Any]:
        before()
        outputs = run()

        def replay() -> None:
            for kept, new in zip(outputs, run(), strict=True):
                kept.copy_(new)

        return replay, outputs

    def time(replay: Callable[[], None], repeats: int, before: Callable[[], None]) -> Times:
        for _ in range(repeats):
            before()
            replay()
        return Times((1.0,) * repeats)

    def compile(step: Callable[..., Any], *, mode: str, **options: Any) -> Any:
        assert mode in baselines.COMPILE_MODES
        return real_compile(step, backend="eager", **options)

    real_compile = partial(torch.compile)
    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(baselines, "capture", capture)
    monkeypatch.setattr(baselines, "time_replays", time)
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("without_a_graph")
def test_the_compiled_step(model: BenchModel):
    """One graph without a break, and after any number of replays the logits of the step at the context."""
    comparison = TorchComparison(
        model, repeats=3, mode="default", baselines=("torch-compile",), compiled_contexts=(CONTEXT,), device="cpu"
    )
    expected = comparison.expected(IDS, POSITIONS)
    assert isinstance(expected, Expected)
    found = comparison.torch_compile(IDS, CONTEXT)
    assert isinstance(found, Baseline), found
    assert len(found.times.microseconds) == 3
    half = divergence(expected.bf16[CONTEXT][None], expected.logits[CONTEXT][None]).relative_error
    assert found.relative_error is not None
    assert found.relative_error < 3 * half
    assert found.prepared_s is not None and found.prepared_s > 0
    assert "mode default, CUDA graph" in found.what


def test_a_baseline_that_fails_says_why(model: BenchModel, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(torch, "compile", fail)
    built = to_bf16(build_model(model, "cpu"))
    found = baselines.torch_compile_step(built, IDS, CONTEXT, None, 1, "default")
    assert found == NotRun("RuntimeError: no compiler")


def test_the_name_of_the_cache():
    class Old:
        def forward(self, input_ids: Any, past_key_values: Any = None, **_: Any) -> None: ...

    class New:
        def forward(self, input_ids: Any, cache: Any = None, **_: Any) -> None: ...

    assert [baselines.cache_argument(model()) for model in (Old, New)] == ["past_key_values", "cache"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines where torch sees no GPU")
def test_without_a_gpu(model: BenchModel):
    assert torch_problem() == "torch sees no GPU"
    assert isinstance(baselines.matmuls_alone(model.model.config, 1), NotRun)


class Counted:
    """In the place of CUDA graphs and events: how many times were asked for; a way of int8 that is slower by its number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = 0
        monkeypatch.setattr(baselines, "capture", self.capture)
        monkeypatch.setattr(baselines, "time_replays", self.time)

    def capture(self, run: Callable[[], Any], _: Callable[[], None]) -> tuple[Callable[[], Any], Any]:
        run()
        self.runs += 1
        return run, None

    def time(self, replay: Callable[[], Any], repeats: int, _: Callable[[], None]) -> Times:
        replay()
        return Times((float(self.runs),) * repeats)


def quantized(tmp_path: Path, **options: str) -> BenchModel:
    folder = make_llama(tmp_path / "quantized", Variant(hidden=64, intermediate=96))
    return open_model(argparse.Namespace(**{"kv": "bf16", **options}), str(folder), [CONTEXT])


def products_with_torch(model: BenchModel, device: str = "cuda", *names: str) -> Baseline | NotRun | None:
    comparison = TorchComparison(model, repeats=3, mode="default", baselines=names, compiled_contexts=(), device=device)
    try:
        return comparison.weight_only()
    finally:
        comparison.close()


@pytest.mark.parametrize(
    ("weights", "head", "parts"),
    [
        ("int4", "int4", ["int4: _weight_int4pack_mm, CUDA graph"]),
        ("int4:g32", "none", ["int4: _weight_int4pack_mm, CUDA graph"]),
        ("int4", "int8", ["int4: _weight_int4pack_mm, int8: _weight_int8pack_mm (torch.compile", "took 2.0 us)"]),
        (
            "int8",
            "none",
            ["int8: _weight_int8pack_mm (torch.compile mode default of linear(x, codes.to(bf16)) * scales"],
        ),
    ],
)
@pytest.mark.usefixtures("without_a_graph")
def test_products_with_quantised_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str, head: str, parts: list[str]
):
    """Shapes and types are those that torch's own ops take: on a GPU without memory, whose tensors have no values."""
    from torch._subclasses import FakeTensorMode

    Counted(monkeypatch)
    monkeypatch.setattr(torch, "compile", lambda step, **_: step)
    model = quantized(tmp_path, weights=weights, head=head)
    with FakeTensorMode():
        found = products_with_torch(model, "cuda", "weight-only")
    assert isinstance(found, Baseline), found
    assert found.times == Times((1.0,) * 3), "the faster way"
    for part in parts:
        assert part in found.what
    assert found.prepared_s is not None and found.relative_error is None


@pytest.mark.usefixtures("without_a_graph")
def test_one_way_of_int8_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Counted(monkeypatch)
    model = quantized(tmp_path, weights="int8")

    def fail(*_: object) -> None:
        raise NotImplementedError("Could not run 'aten::_weight_int8pack_mm'\nand more")

    monkeypatch.setattr(torch.ops.aten, "_weight_int8pack_mm", fail, raising=False)
    found = products_with_torch(model, "cpu", "weight-only")
    assert isinstance(found, Baseline), found
    assert "int8: torch.compile mode default of linear(x, codes.to(bf16)) * scales (_weight_int8pack_mm failed: " in (
        found.what
    )
    monkeypatch.setattr(torch.nn.functional, "linear", fail)
    found = products_with_torch(model, "cpu", "weight-only")
    assert isinstance(found, NotRun) and "Could not run" in found.reason


@pytest.mark.usefixtures("without_a_graph")
def test_a_way_of_int8_that_takes_too_long_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Between two products: torch.compile cannot be stopped."""
    Counted(monkeypatch)
    model = quantized(tmp_path, weights="int8")
    monkeypatch.setattr(weight_only, "PREPARE_LIMIT_S", -1.0)
    found = products_with_torch(model, "cpu", "weight-only")
    assert found == NotRun("TimeoutError: 0 of 5 products were ready after -1 s")


def test_both_ways_of_int8_are_one_product():
    x = torch.randn(1, 64, dtype=torch.bfloat16)
    codes, scales = torch.randint(-128, 128, (32, 64), dtype=torch.int8), torch.rand(32, dtype=torch.bfloat16)
    ways = weight_only.int8_ways("default")
    first, second = (way(x, codes, scales).float() for way in (ways.pop("_weight_int8pack_mm"), eager(ways)))
    assert (first - second).abs().max() <= 2e-2 * first.abs().max()


def eager(ways: dict[str, Any]) -> Any:
    (compiled,) = ways.values()
    return compiled._torchdynamo_orig_callable


def test_products_that_are_not_run(tmp_path: Path, model: BenchModel):
    assert products_with_torch(model, "cpu", "weight-only") is None, "of bf16 weights"
    found = quantized(tmp_path, weights="int4", head="int8")
    assert products_with_torch(found, "cpu", "matmuls") == NotRun("not asked for")
    for options, reason in (
        ({"weights": "int4:g16"}, "ValueError: _weight_int4pack_mm multiplies whole groups of 32"),
        ({"weights": "fp8", "head": "int8"}, "ValueError: torch has no product of fp8_e4m3 weights"),
    ):
        result = products_with_torch(quantized(tmp_path / str(options), **options), "cpu", "weight-only")
        assert isinstance(result, NotRun) and result.reason.startswith(reason), result
