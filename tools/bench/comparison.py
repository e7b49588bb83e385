"""What the logits of a model are compared with, and what its latency is: torch where there is one, else the reference
backend for as many positions as it can do in seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.targets import get_target
from ...runtime.backend import Progress, no_progress
from ...runtime.compile import plan
from ...runtime.footprint import footprint, model_of
from .models import BenchModel
from .results import Baseline, NotRun

REFERENCE_WORK = 3e10
"""Parameters times positions that the reference backend may take: some ten seconds."""
REFERENCE_PARAMETERS = 3e9
"""Of a model that it loads; in float32, four bytes each."""
_LEAST_POSITIONS = 2


@dataclass(frozen=True)
class Expected:
    """Logits to compare with, by position: float32 arrays [vocab]. bf16: those of torch's bf16 run, where there is one."""

    against: str
    logits: dict[int, NDArray[np.float32]]
    bf16: dict[int, NDArray[np.float32]] = field(default_factory=dict[int, NDArray[np.float32]])


class Comparison(Protocol):
    """Made for one model, after AMK's kernel has left the GPU."""

    def expected(self, ids: Sequence[int], positions: Sequence[int]) -> Expected | NotRun:
        """Logits after ids[0 .. position] for each of `positions`, or for some others if these are out of reach."""
        ...

    def torch_compile(self, ids: Sequence[int], context: int) -> Baseline | NotRun:
        """The baseline at the position `context`, after `expected` was asked."""
        ...

    def matmuls(self) -> Baseline | NotRun:
        """The matrix products alone."""
        ...

    def weight_only(self) -> Baseline | NotRun | None:
        """The matrix products alone with torch's int8 or int4 weights; None for a model that has no such weights."""
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


@dataclass
class KnownBaselines:
    """Baselines in bf16 that were measured in this run, by model and what they are, with the weights that they had.

    What bf16 matrices hold does not change how long they take: a model with other weights need not be measured again.
    """

    found: dict[tuple[str, str], tuple[str, Baseline]] = field(
        default_factory=dict[tuple[str, str], tuple[str, Baseline]]
    )

    def get(self, model: BenchModel, what: str, measure: Callable[[], Baseline | NotRun]) -> Baseline | NotRun:
        """The baseline called `what` of a model of that name, or what `measure` finds if there is none."""
        if (known := self.found.get((model.name, what))) is not None:
            weights, baseline = known
            return replace(baseline, what=f"{baseline.what}; measured with the {weights} weights", relative_error=None)
        result = measure()
        if isinstance(result, Baseline):
            self.found[model.name, what] = model.weights_text, result
        return result


class TorchComparison:
    """transformers in float32 and in bf16 on the GPU, and the baselines.

    repeats: of the baselines. mode: of torch.compile. baselines: those that were asked for. compiled_contexts: where
    torch.compile is measured. known: what need not be measured again.
    """

    def __init__(
        self,
        model: BenchModel,
        *,
        repeats: int,
        mode: str,
        baselines: Sequence[str],
        compiled_contexts: Sequence[int],
        known: KnownBaselines | None = None,
        progress: Progress = no_progress,
        device: str = "cuda",
    ):
        self.device = device
        self.model, self.repeats, self.mode = model, repeats, mode
        self.baselines, self.compiled_contexts, self.progress = baselines, compiled_contexts, progress
        self.known = known or KnownBaselines()
        self._torch_model: Any = None  # in bf16, after `expected`
        self._logits: dict[int, NDArray[np.float32]] = {}

    def expected(self, ids: Sequence[int], positions: Sequence[int]) -> Expected | NotRun:
        from .torch_model import build_model, prefill_logits, to_bf16

        wanted = sorted(positions)
        try:
            model = build_model(self.model, self.device, self.progress)
            self.progress("torch in float32", 0, 2)
            right = prefill_logits(model, list(ids), wanted)
            self.progress("torch in bf16", 1, 2)
            self._torch_model = to_bf16(model)
            half = prefill_logits(self._torch_model, list(ids), wanted)
            self.progress("torch in bf16", 2, 2)
        except Exception as e:  # no memory, mostly; whatever it is, what was measured is worth having without it
            return NotRun(f"torch: {str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__}")
        self._logits = dict(zip(wanted, right, strict=True))
        return Expected("torch float32", self._logits, dict(zip(wanted, half, strict=True)))

    def torch_compile(self, ids: Sequence[int], context: int) -> Baseline | NotRun:
        from .baselines import torch_compile_step

        if "torch-compile" not in self.baselines or context not in self.compiled_contexts:
            return NotRun("not asked for")

        def measure() -> Baseline | NotRun:
            if self._torch_model is None:
                return NotRun("torch has no room for the model")
            self.progress(f"torch.compile at context {context}", 0, 1)
            expected = self._logits.get(context)
            result = torch_compile_step(self._torch_model, list(ids), context, expected, self.repeats, self.mode)
            self.progress(f"torch.compile at context {context}", 1, 1)
            return result

        return self.known.get(self.model, f"torch.compile at {context}", measure)

    def matmuls(self) -> Baseline | NotRun:
        from .baselines import matmuls_alone, release

        if "matmuls" not in self.baselines:
            return NotRun("not asked for")
        self._torch_model = None
        release()

        def measure() -> Baseline | NotRun:
            self.progress("the matrix products alone", 0, 1)
            result = matmuls_alone(self.model.model.config, self.repeats)
            self.progress("the matrix products alone", 1, 1)
            return result

        return self.known.get(self.model, "the matrix products alone", measure)

    def weight_only(self) -> Baseline | NotRun | None:
        from .baselines import release
        from .weight_only import has_weight_only, weight_only_alone

        module = self.model.model.module
        if not has_weight_only(module):
            return None
        if "weight-only" not in self.baselines:
            return NotRun("not asked for")
        self._torch_model = None
        release()
        self.progress("torch's int8 and int4 products", 0, 1)
        result = weight_only_alone(module, self.repeats, self.mode, self.device)
        self.progress("torch's int8 and int4 products", 1, 1)
        return result

    def close(self) -> None:
        from .baselines import release

        self._torch_model = None
        release()


class ReferenceComparison:
    """AMK's own reference backend, which runs the queue level in NumPy; no baselines. reason: why torch does not do it."""

    def __init__(self, model: BenchModel, reason: str, progress: Progress = no_progress):
        self.model, self.reason, self.progress = model, reason, progress

    def expected(self, ids: Sequence[int], positions: Sequence[int]) -> Expected | NotRun:
        from ...backends.reference.backend import ReferenceBackend

        parameters = footprint(model_of(self.model.model.module)).parameters
        count = min(int(REFERENCE_WORK // parameters), max(positions) + 1)
        if parameters > REFERENCE_PARAMETERS or count < min(_LEAST_POSITIONS, max(positions) + 1):
            return NotRun(f"{self.reason}, and the model is too large for the reference backend")
        kernel = plan(self.model.model.module, get_target("reference"))
        weights: Any = self.model.weights
        executable = ReferenceBackend().load(kernel, weights, self.progress)
        try:
            logits: dict[int, NDArray[np.float32]] = {}
            for position in range(count):
                self.progress("reference backend", position, count)
                logits[position] = executable.step(ids[position], position)[1]
            self.progress("reference backend", count, count)
        finally:
            executable.close()
        return Expected("reference backend", logits)

    def torch_compile(self, ids: Sequence[int], context: int) -> Baseline | NotRun:
        return NotRun(self.reason)

    def matmuls(self) -> Baseline | NotRun:
        return NotRun(self.reason)

    def weight_only(self) -> Baseline | NotRun | None:
        from .weight_only import has_weight_only

        return NotRun(self.reason) if has_weight_only(self.model.model.module) else None

    def close(self) -> None:
        pass
