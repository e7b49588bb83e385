"""What `amk eval` is made of: windows, metrics, and weights that have been through a format."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_models import PLAIN_CONFIG, make_plain_llama, plain_tensors

from amk.amk_ir.dtypes import bf16_from_f32, round_to_bf16
from amk.amk_ir.errors import CheckpointError, ExecutionError, UsageError
from amk.amk_ir.quantization import parse_format, quantize
from amk.amk_ir.targets import get_target
from amk.backends.reference.backend import ReferenceBackend
from amk.backends.reference.graph_interpreter import GraphInterpreter
from amk.frontends.import_model import ImportedModel, import_model
from amk.runtime.backend import no_progress
from amk.runtime.compile import plan
from amk.runtime.evaluation import Comparison, log_softmax, split_windows
from amk.runtime.footprint import model_of
from amk.runtime.weight_formats import FormattedWeights, Matrices, parse_weight_format
from amk.tools.evaluate import GraphRunner, StepRunner, evaluate

RANDOM = np.random.default_rng(0)


@pytest.fixture
def model(tmp_path: Path) -> ImportedModel:
    return import_model(make_plain_llama(tmp_path / "model"))


def test_windows():
    assert split_windows(range(7), 3) == [[0, 1, 2], [3, 4, 5]]  # nothing is predicted in a window of one
    assert split_windows(range(8), 3) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert split_windows(range(8), 3, 4) == [[0, 1, 2]]
    assert split_windows(range(2), 100) == [[0, 1]]


@pytest.mark.parametrize(
    ("count", "context", "limit", "message"),
    [
        (5, 1, None, "context: expected 2 or more, found 1"),
        (1, 4, None, "the text has 1 tokens: expected 2 or more"),
        (5, 4, 1, "the text has 1 tokens"),
    ],
)
def test_refused_windows(count: int, context: int, limit: int | None, message: str):
    with pytest.raises(UsageError, match=message):
        split_windows(range(count), context, limit)


def test_log_softmax():
    logits = RANDOM.normal(0, 50, (3, 11)).astype(np.float32)
    np.testing.assert_allclose(np.exp(log_softmax(logits)).sum(-1), 1)
    np.testing.assert_allclose(np.diff(log_softmax(logits)), np.diff(logits.astype(np.float64)), atol=1e-9)


def test_metrics_are_what_they_say():
    windows = [RANDOM.integers(0, 13, size).tolist() for size in (40, 17, 2)]
    logits = [RANDOM.normal(0, 1, (len(w), 13)).astype(np.float32) for w in windows]
    reference = [(x + RANDOM.normal(0, 0.3, x.shape)).astype(np.float32) for x in logits]
    comparison = Comparison()
    for window, ours, theirs in zip(windows, logits, reference, strict=True):
        comparison.add(window, ours, theirs)
    found = comparison.summary()

    def probabilities(rows: Any) -> Any:
        weights = np.exp(np.concatenate(rows).astype(np.float64))
        return weights / weights.sum(-1, keepdims=True)

    q, p = probabilities(logits), probabilities(reference)
    kl = (p * np.log(p / q)).sum(-1)
    targets = [(row, window[i + 1]) for row, (window, i) in enumerate((w, i) for w in windows for i in range(len(w))) if i + 1 < len(window)]  # fmt: skip
    excess = np.array([np.log(p[row, token] / q[row, token]) for row, token in targets])
    perplexity, other = (np.exp(-np.mean([np.log(x[row, token]) for row, token in targets])) for x in (q, p))
    assert found["perplexity"] == pytest.approx(perplexity)
    assert found["change"] == pytest.approx(perplexity / other - 1)
    assert found["change_error"] == pytest.approx(perplexity / other * excess.std() / len(excess) ** 0.5)
    assert found["kl_mean"] == pytest.approx(kl.mean())
    assert found["kl_max"] == pytest.approx(kl.max())
    assert found["top1_agreement"] == pytest.approx((p.argmax(-1) == q.argmax(-1)).mean())
    assert found["logit_max"] == pytest.approx(np.abs(np.concatenate(logits) - np.concatenate(reference)).max())


def test_known_perplexities():
    comparison = Comparison()
    even = np.zeros((5, 8), np.float32)
    comparison.add([0, 1, 2, 3, 4], even, even)
    assert comparison.summary() == {
        "perplexity": pytest.approx(8), "change": 0, "change_error": 0, "kl_mean": 0, "kl_max": 0, "top1_agreement": 1,
        "logit_max": 0,
    }  # fmt: skip
    comparison.add([0, 1], np.full((2, 8), np.nan, np.float32), even[:2])
    assert set(comparison.summary().values()) == {None}


@pytest.mark.parametrize("tied", [False, True])
def test_matrices(tmp_path: Path, tied: bool):
    config = {**PLAIN_CONFIG, "tie_word_embeddings": tied}
    model = import_model(make_plain_llama(tmp_path, plain_tensors(config), **config))
    matrices = Matrices.of(model_of(model.module))
    assert matrices.outer == {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    assert len(matrices.linear) == 2 * 7
    assert all(name.startswith("model.layers.") and name.endswith("_proj.weight") for name in matrices.linear)


def test_formatted_weights(model: ImportedModel):
    checkpoint = model.checkpoint
    assert checkpoint is not None
    matrices = Matrices.of(model_of(model.module))
    linear, outer, norm = "model.layers.1.mlp.up_proj.weight", "lm_head.weight", "model.norm.weight"
    values = {name: checkpoint.load(name) for name in (linear, outer, norm)}
    int4 = quantize(values[linear], parse_format("int4:g16:zp")).dequantize()

    def load(format: str, **options: bool) -> list[Any]:
        weights = FormattedWeights(checkpoint, matrices, parse_weight_format(format), **options)
        for name in values:
            np.testing.assert_array_equal(weights.load(name, "bf16"), bf16_from_f32(weights.load(name)))
        return [weights.load(name) for name in values]

    rounded = [round_to_bf16(values[name]) for name in values]
    for found, expected in (
        (load("f32"), list(values.values())),
        (load("bf16"), [*rounded[:2], values[norm]]),
        (load("stored"), [*rounded[:2], values[norm]]),
        (load("int4:g16:zp"), [int4, rounded[1], values[norm]]),
        (load("int4:g16:zp", outer=True), [int4, quantize(values[outer], parse_format("int4:g16:zp")).dequantize(), values[norm]]),
    ):  # fmt: skip
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_values_that_cannot_be_quantised_are_named(model: ImportedModel, monkeypatch: pytest.MonkeyPatch):
    checkpoint = model.checkpoint
    assert checkpoint is not None
    name = "model.layers.1.mlp.up_proj.weight"
    monkeypatch.setattr(checkpoint, "load", lambda *_: np.full((4, 64), np.inf, np.float32))
    weights = FormattedWeights(checkpoint, Matrices.of(model_of(model.module)), parse_weight_format("int8"))
    with pytest.raises(CheckpointError, match=f"tensor '{name}': quantize to int8: "):
        weights.load(name)


def test_stored_format():
    model = import_model(Path(__file__).parents[1] / "data" / "quantized" / "fp8_block")
    assert model.checkpoint is not None
    matrices = Matrices.of(model_of(model.module))
    stored = FormattedWeights(model.checkpoint, matrices, "stored")
    name = "model.layers.0.mlp.up_proj.weight"
    np.testing.assert_array_equal(stored.load(name), model.checkpoint.load(name))
    quantized = [model.checkpoint.info(n) for n in matrices.linear]
    assert stored.nbytes() == sum(info.nbytes for info in quantized) + 2 * 2 * 32 * 32
    assert (
        FormattedWeights(model.checkpoint, matrices, "f32").nbytes()
        == 2 * FormattedWeights(model.checkpoint, matrices, "bf16").nbytes()
    )


@pytest.mark.parametrize("text", ["f16", "int5", "stored:g32", ""])
def test_unknown_weight_format(text: str):
    with pytest.raises(UsageError, match=r"quantised format '.*': expected int8, .*; or f32, bf16 or stored"):
        parse_weight_format(text)


def test_forward_is_a_loop_over_steps(model: ImportedModel):
    assert model.checkpoint is not None
    ids = RANDOM.integers(0, 37, 9).tolist()
    interpreter = GraphInterpreter(model_of(model.module), model.checkpoint)
    steps = [interpreter.step([token], pos) for pos, token in enumerate(ids)]
    interpreter.reset()
    first, second = interpreter.forward(ids[:4]), interpreter.forward(ids[4:], 4)
    np.testing.assert_allclose(
        np.concatenate([first.logits, second.logits]), np.concatenate([s.logits for s in steps]), rtol=1e-4, atol=1e-5
    )
    assert [*first.next_tokens, *second.next_tokens] == [s.next_tokens[0] for s in steps]
    with pytest.raises(ExecutionError, match="expected one token or more"):
        interpreter.forward([])
    with pytest.raises(ExecutionError, match="positions 0 to 60, found 61"):
        interpreter.forward([1, 2, 3, 4], 61)


def test_runners_agree(model: ImportedModel):
    assert model.checkpoint is not None
    window = RANDOM.integers(0, 37, 6).tolist()
    weights = FormattedWeights(model.checkpoint, Matrices.of(model_of(model.module)), parse_weight_format("int8"))
    steps = StepRunner(ReferenceBackend().load(plan(model.module, get_target("reference")), weights))
    graph = GraphRunner(model, weights, no_progress)
    for _ in range(2):  # each window starts anew
        np.testing.assert_allclose(steps.logits(window), graph.logits(window), rtol=1e-4, atol=1e-5)
    steps.close()


def test_evaluate(model: ImportedModel):
    windows = [RANDOM.integers(0, 37, 20).tolist() for _ in range(3)]
    formats = {name: parse_weight_format(name) for name in ("f32", "bf16", "int8", "int4")}
    told: list[tuple[str, int, int]] = []
    reported: list[Any] = []
    results = evaluate(model, formats, windows, progress=lambda *w: told.append(w), report=reported.append)
    assert results == reported
    assert [r.name for r in results] == ["f32 reference", "f32", "bf16", "int8", "int4"]
    assert results[0].metrics == results[1].metrics
    assert results[1].metrics["kl_max"] < 1e-9
    divergences = [r.metrics["kl_mean"] for r in results]
    assert divergences[1] < divergences[2] < divergences[3] < divergences[4]
    assert [r.nbytes for r in results[1:3]] == [results[0].nbytes, results[0].nbytes // 2]
    assert ("int4", 3, 3) in told


def test_another_reference(model: ImportedModel, tmp_path: Path):
    windows, formats = [[1, 2, 3, 4]], {"int8": parse_weight_format("int8")}
    directory = make_plain_llama(tmp_path / "other", plain_tensors(seed=1))
    other = evaluate(model, formats, windows, reference=import_model(directory))
    assert other[0].metrics == evaluate(import_model(directory), {}, windows)[0].metrics
    itself = evaluate(model, formats, windows)
    assert other[1].metrics["perplexity"] == itself[1].metrics["perplexity"]
    assert other[1].metrics["kl_mean"] > 100 * itself[1].metrics["kl_mean"]


def test_refused_references(model: ImportedModel, tmp_path: Path):
    config = {**PLAIN_CONFIG, "vocab_size": 38}
    directory = make_plain_llama(tmp_path, plain_tensors(config), **config)
    with pytest.raises(UsageError, match="--reference: expected 37 entries in the vocabulary, .* found 38"):
        evaluate(model, {}, [[1, 2]], reference=import_model(directory))
    for options in ({"weight_dtype": "bf16"}, {"kv_dtype": "bf16"}):
        with pytest.raises(UsageError, match="the reference is float32, but .* was imported with .*bf16"):
            evaluate(import_model(directory, **options), {}, [[1, 2]])


def test_cuda_has_no_float32(model: ImportedModel):
    with pytest.raises(UsageError, match="--format f32: the cuda backend has bf16"):
        evaluate(model, {"f32": "f32"}, [[1, 2]], backend="cuda")


@pytest.mark.parametrize("outer", [False, True])
def test_kernels_of_the_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outer: bool):
    """`--backend cuda` compiles for quantised types: here the reference backend runs what it would get."""
    directory = make_plain_llama(tmp_path)
    model = import_model(directory, weight_dtype="bf16", kv_dtype="bf16")
    windows = [RANDOM.integers(0, 37, 6).tolist()]
    formats = {"int8:g16": parse_weight_format("int8:g16")}
    expected = evaluate(import_model(directory), formats, windows, outer=outer)[1].metrics
    types: list[str] = []

    class Backend(ReferenceBackend):
        def load(self, kernel: Any, weights: Any, progress: Any = None) -> Any:
            types.append(str(kernel.current()))
            return super().load(kernel, weights)

    monkeypatch.setattr("amk.tools.evaluate.make_backend", lambda name: Backend())
    options: dict[str, Any] = {
        "backend": "cuda",
        "target": get_target("reference"),
        "reference": import_model(directory),
    }
    found = evaluate(model, formats, windows, outer=outer, **options)[1].metrics
    assert ("int8" in types[0]) and len(types) == 1
    # caches of bf16
    assert found["perplexity"] == pytest.approx(expected["perplexity"], rel=2e-2)
