"""Accuracy of a model on a text: any backend and weight format beside the float32 reference, on the same windows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..amk_ir.errors import UsageError
from ..amk_ir.quantization import QuantizedFormat
from ..amk_ir.targets import Target
from ..amk_ir.weight_choice import NONE, WeightChoice
from ..frontends.checkpoint import Checkpoint
from ..frontends.import_model import ImportedModel
from ..runtime.backend import Executable, Progress, Weights, no_progress
from ..runtime.evaluation import Comparison, Logits
from ..runtime.footprint import model_of
from ..runtime.weight_formats import FormattedWeights, Matrices, WeightFormat
from .api import BackendName, make_backend
from .quantize import quantize_imported


class Runner(Protocol):
    """A loaded model that gives the logits of a whole window."""

    def logits(self, window: Sequence[int]) -> Logits:
        """The logits of the token after each of the T ids of `window`, fed from position 0: float32 [T, vocabulary]."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


class GraphRunner:
    """The reference backend at the graph level: all positions of a window at once."""

    def __init__(self, model: ImportedModel, weights: Weights, progress: Progress):
        from ..backends.reference.graph_interpreter import GraphInterpreter

        self._interpreter = GraphInterpreter(model_of(model.module), weights, progress)

    def logits(self, window: Sequence[int]) -> Logits:
        self._interpreter.reset()
        return self._interpreter.forward(window).logits

    def close(self) -> None:
        pass


class StepRunner:
    """A compiled kernel, one token a step."""

    def __init__(self, executable: Executable):
        self._executable = executable

    def logits(self, window: Sequence[int]) -> Logits:
        self._executable.reset()
        # a backend may reuse the array
        return np.stack([self._executable.step(token, pos)[1].copy() for pos, token in enumerate(window)])

    def close(self) -> None:
        self._executable.close()


@dataclass(frozen=True)
class Result:
    """What one format reached: see `Comparison.summary`; nbytes are those of all matrices."""

    name: str
    nbytes: int
    seconds: float
    metrics: dict[str, Any]


def evaluate(
    model: ImportedModel,
    formats: dict[str, WeightFormat],
    windows: Sequence[Sequence[int]],
    *,
    backend: BackendName = "reference",
    reference: ImportedModel | None = None,
    target: Target | None = None,
    sms: int | None = None,
    outer: bool = False,
    progress: Progress = no_progress,
    report: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Perplexity and KL divergence of `model` in each of `formats`, by name, after those of the float32 reference.

    reference: the model whose logits the others are compared with, imported with float32 weights and caches (default:
    `model`, which then must be so); it runs on the reference backend. target, sms: what the cuda
    backend compiles for (default: the GPU at hand, all of its SMs). outer: quantise the head and the embedding too. report: told each result as soon as it is there.

    Raises:
        UsageError: a reference of another vocabulary or in bfloat16, or a format that the backend does not have or that
            fits no matrix; before anything is evaluated.
    """
    reference = reference or model
    if reference.config.vocab != model.config.vocab:
        raise UsageError(
            f"--reference: expected {model.config.vocab} entries in the vocabulary, as the model has, "
            f"found {reference.config.vocab}"
        )
    if (reference.weight_dtype, reference.kv_dtype) != ("f32", "f32"):
        raise UsageError(
            f"the reference is float32, but {reference.name} was imported with weights of {reference.weight_dtype} "
            f"and caches of {reference.kv_dtype}"
        )
    if backend == "cuda" and "f32" in formats.values():
        raise UsageError(
            "--format f32: the cuda backend has bf16 and quantised weights; f32 is what --backend reference has"
        )
    matrices = Matrices.of(model_of(model.module))
    formatted = {name: FormattedWeights(_checkpoint(model), matrices, f, outer=outer) for name, f in formats.items()}
    results: list[Result] = []

    def done(result: Result) -> None:
        results.append(result)
        report(result)

    positions = sum(map(len, windows))
    with tempfile.TemporaryFile() as file:
        expected: NDArray[np.float32] = np.memmap(file, np.float32, "w+", shape=(positions, model.config.vocab))
        start = time.perf_counter()
        weights = FormattedWeights(_checkpoint(reference), Matrices.of(model_of(reference.module)), "f32")
        runner = GraphRunner(reference, weights, progress)
        comparison = Comparison()
        for number, (window, rows) in enumerate(zip(windows, _rows(windows), strict=True)):
            progress("f32 reference", number, len(windows))
            expected[rows] = runner.logits(window)
            comparison.add(window, expected[rows], expected[rows])
        progress("f32 reference", len(windows), len(windows))
        del runner
        done(Result("f32 reference", weights.nbytes(), time.perf_counter() - start, comparison.summary()))

        for name, format in formats.items():
            start = time.perf_counter()
            weights = formatted[name]
            runner = _open(model, backend, target, sms, format, outer, weights, progress)
            comparison = Comparison()
            try:
                for number, (window, rows) in enumerate(zip(windows, _rows(windows), strict=True)):
                    progress(name, number, len(windows))
                    comparison.add(window, runner.logits(window), expected[rows])
                progress(name, len(windows), len(windows))
            finally:
                runner.close()
            del runner
            done(Result(name, weights.nbytes(), time.perf_counter() - start, comparison.summary()))
    return results


def _open(
    model: ImportedModel,
    backend: BackendName,
    target: Target | None,
    sms: int | None,
    format: WeightFormat,
    outer: bool,
    weights: Weights,
    progress: Progress,
) -> Runner:
    if backend == "reference":
        return GraphRunner(model, weights, progress)
    from ..runtime.compile import plan
    from .api import choose_target

    if isinstance(format, QuantizedFormat) or format == "stored":
        # a kernel that multiplies codes, which it takes or makes from the checkpoint's values
        others = str(format) if outer and format != "stored" else NONE
        model = quantize_imported(model, WeightChoice(str(format), others, others))
        weights = _checkpoint(model)
    kernel = plan(model.module, target or choose_target(backend), sms)
    return StepRunner(make_backend(backend).load(kernel, weights, progress))


def _checkpoint(model: ImportedModel) -> Checkpoint:
    if model.checkpoint is None:
        raise UsageError(f"{model.name}: was imported from a configuration alone and has no weights to evaluate")
    return model.checkpoint


def _rows(windows: Sequence[Sequence[int]]) -> list[slice]:
    """The rows of each window in an array of all positions."""
    ends = np.cumsum([len(window) for window in windows]).tolist()
    return [slice(end - len(window), end) for window, end in zip(windows, ends, strict=True)]
