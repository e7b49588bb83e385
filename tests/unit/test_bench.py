"""`amk bench` without a GPU: engines of tests/bench_fakes.py, or the reference backend with made-up times."""

import argparse
import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import FakeDevice, FakeEngine

from amk.amk_ir.dtypes import bf16_from_f32, f32_from_bf16
from amk.amk_ir.errors import CheckpointError, DeviceError, StuckWaitError, UsageError
from amk.amk_ir.quantization import QuantizedFormat, parse_format
from amk.amk_ir.quantized_type import QuantizedRows, QuantizedType
from amk.amk_ir.targets import get_target
from amk.backends.reference.backend import ReferenceBackend
from amk.frontends.import_model import import_config, import_model
from amk.frontends.importance import ImportanceCheckpoint, importance_file
from amk.frontends.registry import find_recipe
from amk.runtime.compile import plan
from amk.runtime.tuned import tuned_shape
from amk.tools.amk import parser
from amk.tools.bench import baselines, comparison, device, engine, torch_model, weight_only
from amk.tools.bench.baselines import matmul_shapes
from amk.tools.bench.comparison import Expected, ReferenceComparison
from amk.tools.bench.correctness import REFERENCE_LIMIT, Check, Divergence, divergence
from amk.tools.bench.measure import Settings, check_logits, measure, step_bytes, token_ids, wanted_positions
from amk.tools.bench.models import BenchModel, open_model, open_models
from amk.tools.bench.random_weights import DEVIATION, RandomWeights, weight_shapes
from amk.tools.bench.report import report_lines
from amk.tools.bench.results import (
    Baseline,
    ContextResult,
    Failure,
    Launches,
    Memory,
    ModelResult,
    NotRun,
    Report,
    Times,
    to_json,
)
from amk.tools.bench.shapes import SHAPES
from amk.tools.bench.weight_only import Product, has_weight_only, int4_layout, products
from amk.tools.calibration import measure_importance
from amk.tools.commands import bench

# Random weights.


def test_random_weights_are_the_same_each_time():
    shapes = {"a.weight": (300, 200), "a.norm.weight": (500,), "b.weight": (300, 200), "b.bias": (7,)}
    first, again = RandomWeights(shapes), RandomWeights(shapes)
    for name, shape in shapes.items():
        assert first.load(name).shape == shape
        assert np.array_equal(first.load(name), again.load(name))
        assert np.array_equal(first.load(name), f32_from_bf16(first.load(name, "bf16"))), "both dtypes are one number"
    assert not np.array_equal(first.load("a.weight"), first.load("b.weight"))
    assert first.load("a.weight").std() == pytest.approx(DEVIATION, rel=0.02)
    assert abs(first.load("a.weight").mean()) < 1e-3
    assert first.load("a.norm.weight").mean() == pytest.approx(1, abs=0.01)
    assert abs(first.load("b.bias")).max() < 0.2


def test_random_weights_larger_than_what_is_drawn():
    """They begin again, but not at the start of a row."""
    large = RandomWeights({"w": (9000, 8192)}).load("w", "bf16")
    assert not (large[:808] == large[8192 : 8192 + 808]).all(axis=1).any()


FORMATS = [
    "int8",
    "int8:g32",
    "int8:g16:zp:f16",
    "int4",
    "int4:g128",
    "int4:g32:zp",
    "int4:g32:min:f16",
    "fp8",
    "fp8:b128x128:bf16",
]


@pytest.mark.parametrize("text", FORMATS)
def test_random_codes(text: str):
    """They are valid, use their range, and mean weights like the others; what is loaded by name is what they mean."""
    format = parse_format(text)
    weights = RandomWeights(
        {"w": (520, 8, 50), "other": (520, 400)}, dict.fromkeys(("w", "other"), quantized(format, 400))
    )
    found = weights.quantized("w")
    assert found is not None
    found.validate("w")
    assert (found.format, found.shape) == (format, (520, 400))
    if format.storage != "fp8_e4m3":
        assert (found.codes.min(), found.codes.max()) == format.code_range
    values = weights.load("w")
    assert np.array_equal(values, found.dequantize().reshape(520, 8, 50))
    assert np.array_equal(weights.load("w", "bf16"), bf16_from_f32(values))
    assert values.std() == pytest.approx(DEVIATION, rel=0.3)
    assert abs(values.mean()) < DEVIATION / 5
    again, other = weights.quantized("w"), weights.quantized("other")
    assert again is not None and other is not None
    for part in ("codes", "scales"):
        assert np.array_equal(getattr(found, part), getattr(again, part))
        assert not np.array_equal(getattr(found, part), getattr(other, part))
    assert ((found.scales < 0).any(), (found.scales > 0).any()) == (text in ("int4", "int4:g128"), True)


def quantized(format: QuantizedFormat, columns: int) -> QuantizedType:
    return QuantizedType(QuantizedRows(format, columns))


def test_random_weights_of_an_unknown_name():
    with pytest.raises(CheckpointError, match="no tensor 'x' among the 1 of the shape"):
        RandomWeights({"w": (1,)}).load("x")


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_can_be_imported(name: str):
    model = import_config(SHAPES[name], name=name, weight_dtype="bf16", kv_dtype="bf16", max_seq=64)
    shapes = weight_shapes(find_recipe("LlamaForCausalLM", name), model.config)
    assert ("lm_head.weight" in shapes) != model.config.tied
    assert len(shapes) == 9 * model.config.layers + (2 if model.config.tied else 3)


# Models.


def namespace(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"weights": "bf16", "kv": "bf16", **values})


def test_a_shape():
    model = open_model(namespace(), "smollm2-135m", [16, 2000])
    assert model.is_random
    assert (model.model.max_seq, model.model.weight_dtype) == (2064, "bf16")
    assert open_model(namespace(max_seq=100), "smollm2-135m", [16]).model.max_seq == 100
    assert open_model(namespace(), "smollm2-135m", [8191]).model.max_seq == 8192


def test_a_shape_in_several_formats():
    models = open_models(namespace(weights="bf16,int8,int4:g64"), ["smollm2-135m", "qwen3-0.6b"], [16])
    found = [(m.name, m.weights_text) for m in models]
    assert found == [(n, w) for n in ("smollm2-135m", "qwen3-0.6b") for w in ("bf16", "int8", "int4:g64")]


@pytest.mark.parametrize("weights", ["bf16,", ",int8", "int8,int8", "bf16,,int8", "fp8,fp8:f32", ""])
def test_lists_of_formats_that_are_none(weights: str):
    with pytest.raises(UsageError, match=f"--weights {weights}: expected different formats with commas in between"):
        open_models(namespace(weights=weights), ["smollm2-135m"], [16])


@pytest.mark.parametrize("head", ["int8,", "int8,int8", ""])
def test_lists_of_head_formats_that_are_none(head: str):
    with pytest.raises(UsageError, match=f"--head {head}: expected different formats with commas in between"):
        open_models(namespace(head=head), ["smollm2-135m"], [16])


def test_every_format_with_every_head():
    models = open_models(namespace(weights="bf16,int4:g64", head="none,int8"), ["smollm2-135m"], [16])
    texts = ["bf16", "head int8", "int4:g64", "int4:g64, head int8"]
    assert [model.weights_text for model in models] == texts
    heads = [model.quantized_types().get("model.embed_tokens.weight") for model in models]
    assert [None if head is None else str(head.format) for head in heads] == [None, "int8", None, "int8"]


def test_an_embedding_is_kept_whatever_else_is_listed():
    args = namespace(weights="bf16", head="none,int8", embedding="int8", keep=["embed"])
    for model in open_models(args, ["llama-3.1-8b"], [16]):
        assert "model.embed_tokens.weight" not in model.quantized_types()


def test_options_of_some_formats(tiny_model: Path, tmp_path: Path):
    """--keep and --importance are for those formats of a list that they mean something to."""
    importance = tmp_path / "tiny.importance"
    importance.write_bytes(importance_file(measure_importance(import_model(tiny_model), [[1, 2, 3]]), {}))
    args = namespace(weights="bf16,fp8,int8", keep=["down_proj"], importance=importance)
    plain, fp8, int8 = open_models(args, [str(tiny_model)], [16])
    assert not plain.quantized_types()
    for model in (fp8, int8):
        names = model.quantized_types()
        assert names and not any("down_proj" in name for name in names)
    found = [isinstance(model.model.checkpoint, ImportanceCheckpoint) for model in (plain, fp8, int8)]
    assert found == [False, False, True]
    with pytest.raises(UsageError, match="--importance goes with an int8 or int4 format"):
        open_models(namespace(weights="bf16,fp8", importance=importance), [str(tiny_model)], [16])
    with pytest.raises(UsageError, match="--keep goes with a quantised format"):
        open_models(namespace(weights="bf16,f32", keep=["down_proj"]), [str(tiny_model)], [16])


def test_a_quantised_shape():
    model = open_model(namespace(weights="int8", head="int8"), "smollm2-135m", [16])
    assert (model.weights_text, model.model.weight_dtype) == ("int8, head int8", "bf16")
    types = model.quantized_types()
    assert "model.layers.29.mlp.down_proj.weight" in types and "model.embed_tokens.weight" in types
    assert not any("norm" in name for name in types)
    assert isinstance(model.weights, RandomWeights)
    found = model.weights.quantized("model.layers.3.self_attn.o_proj.weight")
    assert found is not None and found.shape == (576, 576), "nothing has to be quantised"
    assert model.weights.quantized("model.norm.weight") is None
    plain = open_model(namespace(), "smollm2-135m", [16])
    assert (plain.weights_text, plain.quantized_types()) == ("bf16", {})
    assert tuned_shape(model.model) != tuned_shape(plain.model)


def test_a_model(tiny_model: Path):
    model = open_model(namespace(), str(tiny_model), [16])
    assert not model.is_random
    assert model.model.max_seq == 64
    assert model.weights.load("model.norm.weight").shape == (32,)


@pytest.mark.parametrize(
    ("args", "context", "message"),
    [({}, 64, "serves 64 positions, so a context of at most 63$"), ({"max_seq": 8}, 8, "at most 7; raise --max-seq")],
)
def test_no_room_for_a_context(tiny_model: Path, args: dict[str, int], context: int, message: str):
    with pytest.raises(UsageError, match=f"--context {context}: .*{message}"):
        open_model(namespace(**args), str(tiny_model), [context])


# Correctness.


def test_divergence():
    """A case that can be computed by hand: two tokens, p = (3/4, 1/4), q = (1/2, 1/2)."""
    right, ours = np.array([[np.log(3), 0.0]], np.float32), np.array([[0.0, 0.0]], np.float32)
    found = divergence(ours, right)
    assert found.kl_mean == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert found.relative_error == pytest.approx(1)
    assert found.worst_logit == pytest.approx(math.log(3))
    assert (found.same_token, found.positions) == (1, 1)


def test_worst_and_mean():
    right = np.array([[1.0, 2.0], [1.0, 2.0]], np.float32)
    found = divergence(np.array([[1.0, 2.0], [2.0, 1.0]], np.float32), right)
    assert (found.same_token, found.positions) == (1, 2)
    assert found.kl_worst == pytest.approx(2 * found.kl_mean)
    assert found.relative_error == pytest.approx(math.sqrt(2 / 5))
    assert divergence(right, right) == Divergence(0, 0, 0, 0, 2, 2)
    assert divergence(0 * right, 0 * right).relative_error == 0


def test_a_shift_of_all_logits_changes_no_probability():
    right = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32) * 30
    assert divergence(right + np.float32(1), right).kl_worst < 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers(bad: float):
    right = np.ones((2, 3), np.float32)
    ours = right.copy()
    ours[1, 2] = bad
    found = divergence(ours, right)
    assert not found.is_finite
    assert not Check("x", found, found).ok


@pytest.mark.parametrize("shape", [(2, 4), (3, 3), (0, 3), (3,)])
def test_logits_of_other_shapes(shape: tuple[int, ...]):
    with pytest.raises(UsageError, match="logits: expected the shape"):
        divergence(np.ones(shape), np.ones((0, 3) if shape[0] == 0 else (2, 3)))


def test_verdict():
    good, bad = Divergence(1e-3, 1e-6, 1e-6, 1, 8, 8), Divergence(1e-2, 1e-5, 1e-5, 1, 8, 8)
    assert Check("torch float32", good, bad).ok
    assert not Check("torch float32", bad, good).ok
    assert not Check("torch float32", dataclasses.replace(good, kl_mean=1e-4), bad).ok
    assert Check("reference backend", good).ok
    assert not Check("reference backend", dataclasses.replace(good, relative_error=1.1 * REFERENCE_LIMIT)).ok


def test_positions():
    assert wanted_positions([2]) == [0, 1, 2]
    assert wanted_positions([16, 100]) == [0, 1, 2, 3, *range(9, 17), *range(93, 101)]


# Measuring.


class FakeComparison:
    """Expects the logits of a `FakeEngine` without an offset; torch's bf16 is off by 0.01."""

    def __init__(self, engine: FakeEngine | None = None, weight_only: Baseline | NotRun | None = None):
        self.engine, self.closed, self.alone = engine, False, weight_only

    def expected(self, ids: list[int], positions: list[int]) -> Expected | NotRun:
        assert self.engine is None or self.engine.closed, "both do not fit at once"
        right, half = FakeEngine(), FakeEngine(offset=0.01)
        return Expected(
            "torch float32",
            {p: right.step(ids[p], p)[1] for p in positions},
            {p: half.step(ids[p], p)[1] for p in positions},
        )

    def torch_compile(self, ids: list[int], context: int) -> Baseline | NotRun:
        return Baseline("torch.compile", Times((900.0, 910.0)), 0.01) if context == 16 else NotRun("not asked for")

    def matmuls(self) -> Baseline | NotRun:
        return Baseline("cuBLAS", Times((500.0,)))

    def weight_only(self) -> Baseline | NotRun | None:
        return self.alone

    def close(self) -> None:
        self.closed = True


SETTINGS = Settings((16, 40), repeats=7, launches=2500)


@pytest.fixture
def shape() -> BenchModel:
    return tiny_shape()


def tiny_shape(vocab: int = 50) -> BenchModel:
    config = {
        **SHAPES["smollm2-135m"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": vocab,
    }
    model = import_config(config, name="shape", max_seq=64, weight_dtype="bf16", kv_dtype="bf16")
    weights = RandomWeights(weight_shapes(find_recipe("LlamaForCausalLM", "shape"), model.config))
    return BenchModel("shape", model, weights, is_random=True)


def run(model: BenchModel, engine: FakeEngine, used: list[int] | None = None, settings: Settings = SETTINGS):
    comparison = FakeComparison(engine)
    found = measure(
        model, lambda: engine, FakeDevice(used=used or [1000]).used_bytes, lambda: comparison, settings, "defaults"
    )
    assert comparison.closed
    return found


def test_measure(shape: BenchModel):
    engine = FakeEngine(offset=0.001)
    result = run(shape, engine, [1000, 21000, 21000, 21000])
    assert result.ok
    assert [c.context for c in result.contexts] == [16, 40]
    assert [len(c.times.microseconds) for c in result.contexts] == [7, 7]
    assert result.contexts[1].times.median == pytest.approx(100.4)
    for context in result.contexts:
        assert isinstance(context.check, Check)
        assert context.check.against == f"torch float32, positions {context.context - 7} to {context.context}"
        assert context.check.bf16 is not None
        assert context.check.ours.relative_error < context.check.bf16.relative_error
    assert result.memory.used == 20000
    assert result.memory.weights == 1200
    assert result.memory.kv == 2 * 2 * 64 * 2 * 8 * 2, "k and v, layers, positions, heads, elements, bytes"
    assert result.launches == Launches(2500, 0)
    assert engine.launches >= 2500 + 2 * 7
    assert isinstance(result.matmuls, Baseline)


def test_bytes(shape: BenchModel):
    """Weights by their shapes, and the cache up to and with the position."""
    hidden, mlp, vocab, layers = 32, 64, 50, 2
    matrices = layers * (hidden * (32 + 16 + 16) + 32 * hidden + 3 * hidden * mlp) + vocab * hidden
    vectors = layers * 2 * hidden + hidden
    kv = 17 * 2 * 2 * 2 * 8 * 2
    assert step_bytes(shape.model, 10**9, 16) == 2 * matrices + 4 * vectors + kv, "nobody has to read padding"
    assert step_bytes(shape.model, 1000, 16) == 1000 + kv


def test_wrong_logits(shape: BenchModel):
    assert not run(shape, FakeEngine(offset=0.5)).ok
    assert not run(shape, FakeEngine(offset=math.nan)).ok


def test_what_is_not_repeatable(shape: BenchModel):
    result = run(shape, FakeEngine(unsteady=True))
    assert [c.is_deterministic for c in result.contexts] == [False, False]
    assert not result.ok


def test_a_leak(shape: BenchModel):
    result = run(shape, FakeEngine(), [1000, 21000, 21000, 21512])
    assert result.launches.grown == 512
    assert not result.ok


def test_an_engine_that_fails_is_closed(shape: BenchModel):
    engine = FakeEngine(error=StuckWaitError("SM 3 waited"), fails_after=20)
    with pytest.raises(StuckWaitError):
        run(shape, engine)
    assert engine.closed


def test_which_positions_are_compared():
    logits = {p: np.ones(3, np.float32) for p in (0, 1, 2, 3, *range(9, 17))}

    def verdict(known: list[int]) -> str:
        found = check_logits(logits, Expected("x", {p: np.ones(3, np.float32) for p in known}), 16)
        return found.against if isinstance(found, Check) else found.reason

    assert verdict(list(range(17))) == "x, positions 9 to 16"
    assert verdict(list(range(12))) == "x, positions 0 to 3", "some before the context would say less of the step there"
    assert verdict([]) == "x: no logits of any position that was run"
    assert check_logits(logits, NotRun("why"), 16) == NotRun("why")


def reference_engine(model: BenchModel) -> FakeEngine:
    source = ReferenceBackend().load(plan(model.model.module, get_target("reference"), 3), model.weights)
    return FakeEngine(source=source)


def test_against_the_reference_backend(shape: BenchModel):
    """Another number of virtual SMs sums in another order, and is right."""
    settings = Settings((16,), 3, 0)
    result = measure(
        shape,
        lambda: reference_engine(shape),
        lambda: 0,
        lambda: ReferenceComparison(shape, "torch is not installed"),
        settings,
        "defaults",
    )
    assert result.ok
    check = result.contexts[0].check
    assert isinstance(check, Check)
    assert (check.against, check.bf16) == ("reference backend, positions 9 to 16", None)
    assert check.ours.relative_error < 1e-4
    assert result.matmuls == result.contexts[0].torch_compile == NotRun("torch is not installed")


def test_models_that_are_too_large_for_the_reference_backend(shape: BenchModel, monkeypatch: pytest.MonkeyPatch):
    ids = token_ids(50, 41)
    monkeypatch.setattr(comparison, "REFERENCE_WORK", 5 * 20e3)
    few = ReferenceComparison(shape, "no torch").expected(ids, [0, 40])
    assert isinstance(few, Expected)
    assert 2 <= len(few.logits) < 40
    monkeypatch.setattr(comparison, "REFERENCE_WORK", 10.0)
    none = ReferenceComparison(shape, "no torch").expected(ids, [0, 40])
    assert none == NotRun("no torch, and the model is too large for the reference backend")


def test_matmul_shapes():
    config = import_config(SHAPES["llama-3.2-1b"], weight_dtype="bf16").config
    shapes = matmul_shapes(config)
    assert shapes[:4] == [(3072, 2048), (2048, 2048), (16384, 2048), (2048, 8192)]
    assert (len(shapes), shapes[-1]) == (4 * 16 + 1, (128256, 2048))


@pytest.mark.parametrize("name", SHAPES)
def test_products_are_those_of_the_other_baseline(name: str):
    model = open_model(namespace(), name, [16]).model
    assert [(p.rows, p.columns) for p in products(model.module)] == matmul_shapes(model.config)
    assert {p.storage for p in products(model.module)} == {"bf16"}
    assert not has_weight_only(model.module)


def test_products_of_quantised_weights():
    model = open_model(namespace(weights="int4:g64", head="int8", keep=["down_proj"]), "llama-3.2-1b", [16]).model
    found = products(model.module)
    assert [p.storage for p in found] == ["int4", "int4", "int4", "bf16"] * 16 + ["int8"]
    assert [(p.rows, p.columns) for p in found] == matmul_shapes(model.config)
    assert has_weight_only(model.module)
    mixed = open_model(namespace(weights="int8", keep=["k_proj"]), "llama-3.2-1b", [16]).model
    assert [(p.rows, p.storage) for p in products(mixed.module)][:3] == [(2048, "int8"), (512, "bf16"), (512, "int8")]
    assert not has_weight_only(open_model(namespace(weights="fp8"), "llama-3.2-1b", [16]).model.module)


@pytest.mark.parametrize(
    ("columns", "text", "expected"),
    [
        (2048, "int4", (128, 8)),
        (2048, "int4:g32:zp", (32, 8)),
        (576, "int4", (64, 4)),
        (1536, "int4:g256", (256, 8)),
        (576, "int4:g128", "whole groups of 32, 64, 128, 256 inputs, not rows of 576 in groups of 128"),
        (2048, "int4:g16", "not rows of 2048 in groups of 16"),
        (100, "int4", "not rows of 100 in groups of 32"),
    ],
)
def test_the_layout_of_int4(columns: int, text: str, expected: tuple[int, int] | str):
    product = Product(64, columns, parse_format(text))
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=expected):
            int4_layout(product)
    else:
        assert int4_layout(product) == expected


def test_weight_only_is_measured_and_reported(shape: BenchModel):
    """Of quantised weights; of others there is nothing to say."""
    alone = Baseline("torch 2.13.0, int4: _weight_int4pack_mm, CUDA graph", Times((60.0, 50.0, 55.0)), None, 1.5)

    def measured(weight_only: Baseline | NotRun | None) -> tuple[str, Any]:
        compared = FakeComparison(weight_only=weight_only)
        found = measure(shape, FakeEngine, FakeDevice().used_bytes, lambda: compared, SETTINGS, "defaults")
        report = Report("H100", "sm_90a", 132, 3e12, [found])
        content = json.loads(json.dumps(to_json(report, {}, {}), allow_nan=False))
        return " ".join(" ".join(report_lines(report)).split()), content["models"][0]["weight_only"]

    text, content = measured(alone)
    assert (
        "the products with torch's int8 or int4 weights: 55.0 us, 0.55 times at context 16, 0.55 times at context 40 what "
        "we take; torch 2.13.0, int4: _weight_int4pack_mm, CUDA graph"
    ) in text
    assert (content["median_us"], content["what"], content["prepared_s"]) == (55.0, alone.what, 1.5)
    text, content = measured(NotRun("no room"))
    assert "not run: the products with torch's int8 or int4 weights: no room" in text
    assert content == {"not_run": "no room"}
    text, content = measured(None)
    assert "int8" not in text and content is None


def test_weight_only_without_torch(shape: BenchModel):
    assert ReferenceComparison(shape, "no torch").weight_only() is None
    quantized = open_model(namespace(weights="int8"), "smollm2-135m", [16])
    assert ReferenceComparison(quantized, "no torch").weight_only() == NotRun("no torch")


def test_times():
    times = Times((4.0, 1.0, 3.0, 2.0, 5.0))
    assert (times.median, times.least, times.quartiles) == (3.0, 1.0, (2.0, 4.0))
    assert Times((2.0,)).quartiles == (2.0, 2.0)
    assert times.to_json()["microseconds"] == [4.0, 1.0, 3.0, 2.0, 5.0]


# The report.

LONG = "/models/" + "a-folder-with-a-long-name/" * 5
HUGE = Divergence(9.9e10, 1e10, 1e10, 1e10, 8, 8)
NONE = Divergence(math.inf, math.inf, math.inf, math.inf, 0, 8)


def results(name: str = "shape", check: Check | NotRun | None = None, **changes: Any) -> ModelResult:
    result = run(tiny_shape(), FakeEngine())
    contexts = tuple(dataclasses.replace(c, check=check or c.check) for c in result.contexts)
    return dataclasses.replace(result, **{"name": name, "contexts": contexts, **changes})


def reports() -> dict[str, Report]:
    big = ContextResult(
        32768, Times((123456.7, 123457.8)), 10**11, Check("torch float32", HUGE, HUGE), False, NotRun("x " * 200)
    )
    models: dict[str, ModelResult | Failure] = {
        "plain": results(),
        "long": results(LONG, options="in-flight=4 " * 12),
        "big": results(contexts=(big,), memory=Memory(10**12, 10**11, 10**11), launches=Launches(10**6, 10**9)),
        "not finite": results(check=Check("torch float32", NONE, HUGE)),
        "not checked": results(check=NotRun("torch is not installed, " * 9), matmuls=NotRun("no torch " * 20)),
        "failed": Failure(LONG, "int8", "out of device memory " * 9),
    }
    return {key: Report("NVIDIA H100 80GB HBM3", "sm_90a", 132, 3.02e12, [model]) for key, model in models.items()}


@pytest.mark.parametrize("key", ["plain", "long", "big", "not finite", "not checked", "failed"])
def test_the_report_fits(key: str):
    report = reports()[key]
    lines = list(report_lines(report))
    words = [word for line in lines for word in line.split() if len(word) > 76]
    assert max(len(line) for line in lines if not any(word in line for word in words)) <= 80
    text = " ".join(" ".join(lines).split())
    for part in {
        "plain": ["905.0", "context 16: right: error 0.0e+00 (1.2e-02)", "2,500 more launches: no memory lost"],
        "long": ["in-flight=4"],
        "big": ["NOT REPEATABLE", "LEAK: 1,000,000,000 bytes", "123457.2"],
        "not finite": ["WRONG: error inf"],
        "not checked": ["NOT CHECKED: torch is not installed", "not run: the matrix products alone: no torch"],
        "failed": ["not measured: out of device memory"],
    }[key]:
        assert part in text


@pytest.mark.parametrize("key", ["plain", "big", "not finite", "not checked", "failed"])
def test_the_json(key: str):
    """Whatever was found, it is JSON: no NaN, no infinity; and what docs/bench.md promises is there."""
    report = reports()[key]
    content = json.loads(json.dumps(to_json(report, {"commit": "x"}, {}), allow_nan=False, default=str))
    assert (content["amk_bench"], content["gpu"], content["ok"]) == (
        1,
        "NVIDIA H100 80GB HBM3",
        key in ("plain", "not checked"),
    )
    (model,) = content["models"]
    if key == "failed":
        assert set(model) == {"model", "weight_dtype", "error"}
        return
    for context in model["contexts"]:
        assert context["min_us"] <= context["q1_us"] <= context["median_us"] <= context["q3_us"]
        assert len(context["microseconds"]) >= 2
        assert context["peak_share"] == pytest.approx(
            context["bytes"] / (context["median_us"] * 1e-6) / content["read_peak_bytes_per_s"]
        )
    correctness = model["contexts"][0]["correctness"]
    if key == "not checked":
        assert correctness == {"not_run": "torch is not installed, " * 9}
    elif key == "not finite":
        assert correctness["amk"]["relative_error"] is None
    else:
        assert set(correctness) == {"against", "ok", "amk", "torch_bf16"}
    assert set(model["memory"]) == {"used", "weights", "kv", "ratio"}


# The command.


@pytest.fixture
def no_gpu_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference backend in the place of the GPU, and no torch."""
    monkeypatch.setattr(device, "CudaDevice", FakeDevice)
    monkeypatch.setattr(engine, "load_engine", lambda model, *_: reference_engine(model))
    monkeypatch.setattr(torch_model, "torch_problem", lambda: "torch is not installed")


def bench_run(*args: str | Path) -> int:
    return bench.run(parser().parse_args(["bench", *map(str, args)]))


@pytest.mark.usefixtures("no_gpu_needed")
def test_the_command(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "bench.json"
    args = ["--context", "12", "8", "--repeat", "5", "--launches", "3", "--set", "rows=16", "--json", out]
    assert bench_run(tiny_model, *args) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("NVIDIA H100 80GB HBM3, sm_90a, 132 SMs; read peak 3,000 GB/s")
    assert "pass options: rows=16" in " ".join(printed.out.split())
    stages = [line.rpartition(" s: ")[2] for line in printed.err.splitlines()]
    expected = ["running the text", "timing the steps", "launching"]
    assert stages == [*expected, "looking for torch", "loading weights", "reference backend"]
    content = json.loads(out.read_text())
    assert content["ok"] is True
    assert list(content["models"][0]["seconds"]) == stages
    assert content["arguments"]["repeat"] == 5
    assert [c["context"] for c in content["models"][0]["contexts"]] == [8, 12]
    assert content["environment"]["packages"]["numpy"] == np.__version__


@pytest.mark.usefixtures("no_gpu_needed")
def test_a_model_that_fails_does_not_take_the_others_along(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def load(model: BenchModel, *_: object) -> FakeEngine:
        if model.is_random:
            raise DeviceError("out of device memory")
        return reference_engine(model)

    monkeypatch.setattr(engine, "load_engine", load)
    out = tmp_path / "bench.json"
    args = ["--context", "8", "--repeat", "2", "--launches", "0", "--json", out]
    assert bench_run("smollm2-135m", tiny_model, *args) == 2
    assert "smollm2-135m, bf16 weights: not measured: out of device memory" in capsys.readouterr().out
    failed, measured = json.loads(out.read_text())["models"]
    assert failed == {"model": "smollm2-135m", "weight_dtype": "bf16", "error": "out of device memory"}
    assert measured["ok"] is True


@pytest.mark.usefixtures("no_gpu_needed")
def test_the_json_is_written_after_each_model(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever becomes of a later one, a defect included."""
    out = tmp_path / "bench.json"
    seen: list[list[str]] = []

    def load(model: BenchModel, *_: object) -> FakeEngine:
        seen.append(sorted(m["model"] for m in json.loads(out.read_text())["models"]) if out.exists() else [])
        if len(seen) == 1:
            raise DeviceError("out of device memory")
        if len(seen) == 3:
            raise RuntimeError("a defect")
        return reference_engine(model)

    monkeypatch.setattr(engine, "load_engine", load)
    args = ["--context", "8", "--repeat", "2", "--launches", "0", "--json", out]
    with pytest.raises(RuntimeError, match="a defect"):
        bench_run("smollm2-135m", tiny_model, "llama-3.2-1b", *args)
    assert seen == [[], ["smollm2-135m"], sorted(["smollm2-135m", str(tiny_model)])]
    failed, measured = json.loads(out.read_text())["models"]
    assert failed == {"model": "smollm2-135m", "weight_dtype": "bf16", "error": "out of device memory"}
    assert measured["ok"] is True


@pytest.mark.usefixtures("no_gpu_needed")
@pytest.mark.parametrize(
    ("args", "order"),
    [
        ((), [24, 8, 16]),
        (("--compile-context", "16", "24", "16"), [16, 24]),
        (("--baselines", "matmuls"), []),
        (("--no-baselines",), []),
    ],
)
def test_torch_compile_is_run_in_the_order_given(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], order: list[int]
):
    """The context that matters most first: it takes minutes each."""
    compiled: list[int] = []

    def step(_: object, ids: list[int], context: int, *__: object) -> NotRun:
        compiled.append(context)
        return NotRun("no compiler")

    def expected(self: comparison.TorchComparison, *_: object) -> NotRun:
        self._torch_model = "model"
        return NotRun("no memory")

    monkeypatch.setattr(torch_model, "torch_problem", lambda: None)
    monkeypatch.setattr(comparison.TorchComparison, "expected", expected)
    monkeypatch.setattr(baselines, "torch_compile_step", step)
    monkeypatch.setattr(baselines, "matmuls_alone", lambda *_: NotRun("no GPU"))
    monkeypatch.setattr(baselines, "release", lambda: None)
    out = tmp_path / "bench.json"
    contexts = ["--context", "24", "8", "16", "--repeat", "2", "--launches", "0", "--json", out]
    assert bench_run(tiny_model, *contexts, *args) == 0
    assert compiled == order
    (model,) = json.loads(out.read_text())["models"]
    found = {c["context"]: c["torch_compile"]["not_run"] for c in model["contexts"]}
    assert found == {c: "no compiler" if c in order else "not asked for" for c in (8, 16, 24)}


@pytest.mark.usefixtures("no_gpu_needed")
def test_bf16_baselines_are_measured_once_for_all_formats(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    measured: list[str] = []

    def baseline(what: str, us: float, error: float | None) -> Baseline:
        measured.append(what)
        return Baseline(what, Times((us, us)), error)

    def expected(self: comparison.TorchComparison, *_: object) -> NotRun:
        self._torch_model = "model"
        return NotRun("no memory")

    monkeypatch.setattr(torch_model, "torch_problem", lambda: None)
    monkeypatch.setattr(comparison.TorchComparison, "expected", expected)
    monkeypatch.setattr(baselines, "torch_compile_step", lambda *_: baseline("compiled", 9.0, 1e-3))
    monkeypatch.setattr(baselines, "matmuls_alone", lambda *_: baseline("products", 7.0, None))
    monkeypatch.setattr(weight_only, "weight_only_alone", lambda *_: baseline("weight only", 5.0, None))
    monkeypatch.setattr(baselines, "release", lambda: None)
    out = tmp_path / "bench.json"
    args = ["--weights", "bf16,int8,fp8", "--context", "8", "--repeat", "2", "--launches", "0", "--json", out]
    assert bench_run(tiny_model, *args) == 0
    assert measured == ["compiled", "products", "weight only"]
    models = json.loads(out.read_text())["models"]
    assert [m["weight_dtype"] for m in models] == ["bf16", "int8", "fp8"]
    compiled = [m["contexts"][0]["torch_compile"] for m in models]
    others = "compiled; measured with the bf16 weights"
    assert [(c["what"], c["median_us"], c["relative_error"]) for c in compiled] == [
        ("compiled", 9.0, 1e-3),
        (others, 9.0, None),
        (others, 9.0, None),
    ]
    assert [m["matmuls_alone"]["median_us"] for m in models] == [7.0] * 3
    assert [m["weight_only"] and m["weight_only"]["median_us"] for m in models] == [None, 5.0, None]


@pytest.mark.usefixtures("no_gpu_needed")
def test_wrong_logits_are_status_1(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(engine, "load_engine", lambda model, *_: FakeEngine(vocab=model.model.config.vocab))
    assert bench_run(tiny_model, "--context", "8", "--repeat", "2", "--launches", "0") == 1
    assert "WRONG" in capsys.readouterr().out


def test_no_gpu(tool):
    run = tool("amk", "bench", "smollm2-135m", env={"CUDA_VISIBLE_DEVICES": "-1"})
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("amk: error: no GPU to measure on: ")
    assert run.stderr.count("\n") == 1
    assert "reference backend" not in run.stderr, "which measures nothing"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no-such-model"], "no-such-model: no such file"),
        (["smollm2-135m", "no-such-model"], "no-such-model: no such file"),
        (["smollm2-135m", "--context", "9000"], "--context 9000: smollm2-135m serves 8192 positions"),
        (["smollm2-135m", "--compile-context", "16"], "--compile-context 16: expected one of --context, which are 128"),
        (["smollm2-135m", "--target", "reference"], "target 'reference' is not a GPU"),
        (["smollm2-135m", "--target", "sm_1"], "unknown target 'sm_1'"),
        (["smollm2-135m", "--set", "speed=11"], "--set: no pass option 'speed'"),
        (["smollm2-135m", "--json", "no-such-folder/out.json"], "--json no-such-folder/out.json: there is no folder"),
        (["smollm2-135m", "--json", "/"], "--json /: is a folder; expected the name of a file"),
        (["smollm2-135m", "--repeat", "0"], "--repeat: expected an integer of at least 1"),
    ],
)
def test_refused(args: list[str], message: str):
    with pytest.raises(Exception, match=message):
        bench_run(*args)


@pytest.mark.usefixtures("no_gpu_needed")
def test_another_target_than_the_gpu():
    with pytest.raises(Exception, match="--target sm_80: NVIDIA H100 80GB HBM3 is sm_90a; leave --target out"):
        bench_run("smollm2-135m", "--target", "sm_80")


def test_bf16_is_used_below():
    """The quantiles that random weights are made of are rounded once."""
    values = RandomWeights({"w": (1000,)}).load("w")
    assert np.array_equal(f32_from_bf16(bf16_from_f32(values)), values)
