"""What a run of `amk bench` found, and its JSON."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from ...amk_ir.dtypes import FloatType
from .correctness import Check
from .engine import KernelFacts

FORMAT = 1
"""Version of the JSON."""


@dataclass(frozen=True)
class Times:
    """Microseconds of each repetition, in order; at least one."""

    microseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.microseconds)

    @property
    def least(self) -> float:
        return min(self.microseconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third."""
        if len(self.microseconds) == 1:
            return self.least, self.least
        first, _, third = statistics.quantiles(self.microseconds, n=4, method="inclusive")
        return first, third

    def to_json(self) -> dict[str, Any]:
        first, third = self.quartiles
        return {
            "median_us": self.median,
            "min_us": self.least,
            "q1_us": first,
            "q3_us": third,
            "microseconds": list(self.microseconds),
        }


@dataclass(frozen=True)
class NotRun:
    """Something that was not measured or checked, and why."""

    reason: str

    def to_json(self) -> dict[str, Any]:
        return {"not_run": self.reason}


@dataclass(frozen=True)
class Baseline:
    """What another implementation took. what: which one, exactly. relative_error: of its logits, where it has any.
    prepared_s: seconds that it took to compile and to capture it."""

    what: str
    times: Times
    relative_error: float | None = None
    prepared_s: float | None = None

    def to_json(self) -> dict[str, Any]:
        facts = {"relative_error": number(self.relative_error), "prepared_s": self.prepared_s}
        return {"what": self.what, **facts, **self.times.to_json()}


@dataclass(frozen=True)
class ContextResult:
    """A step at one position.

    bytes: of weights and KV cache that a step there must read. is_deterministic: repeated steps had the same bits.
    """

    context: int
    times: Times
    bytes: int
    check: Check | NotRun
    is_deterministic: bool
    torch_compile: Baseline | NotRun

    def peak_share(self, read_peak: float) -> float:
        """Part of `read_peak` (bytes per second) at which the median step read its bytes."""
        return self.bytes / (self.times.median * 1e-6) / read_peak

    @property
    def ok(self) -> bool:
        """Whether nothing that was checked is wrong."""
        return self.is_deterministic and (isinstance(self.check, NotRun) or self.check.ok)


@dataclass(frozen=True)
class Memory:
    """Bytes of device memory. used: by the loaded model. weights, kv: what it must hold at least."""

    used: int
    weights: int
    kv: int

    @property
    def ratio(self) -> float:
        return self.used / (self.weights + self.kv)


@dataclass(frozen=True)
class Launches:
    """How many there were, and by how many bytes the memory in use grew meanwhile."""

    count: int
    grown: int


@dataclass(frozen=True)
class ModelResult:
    """All about one model. options: text of the pass options. weight_only: the products with torch's int8 or int4 weights,
    None for a model without such weights. seconds: that the stages of the measurement took, by what was told of them."""

    name: str
    is_random: bool
    weight_dtype: str
    kv_dtype: str
    max_seq: int
    config: Mapping[str, Any]
    options: str
    kernel: KernelFacts
    memory: Memory
    launches: Launches
    contexts: tuple[ContextResult, ...]
    matmuls: Baseline | NotRun
    weight_only: Baseline | NotRun | None = None
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def weights_from(self) -> str:
        """Where the weights are from: for a shape with quantised matrices, nothing was quantised."""
        if not self.is_random:
            return "checkpoint"
        return "random" if self.weight_dtype in get_args(FloatType) else "random codes and scales"

    @property
    def ok(self) -> bool:
        """Whether logits are right and the same every time, and no memory was lost."""
        return all(c.ok for c in self.contexts) and self.launches.grown <= 0


@dataclass(frozen=True)
class Failure:
    """A model with some weights that could not be measured."""

    name: str
    weight_dtype: str
    error: str


@dataclass
class Report:
    """A run: the GPU, its read peak (bytes per second), and what was found so far."""

    gpu: str
    target: str
    num_sms: int
    read_peak: float
    models: list[ModelResult | Failure] = field(default_factory=list["ModelResult | Failure"])

    @property
    def ok(self) -> bool:
        return all(isinstance(model, ModelResult) and model.ok for model in self.models)


def number(value: float | None) -> float | None:
    """`value` as JSON has it: there, no number is infinite or NaN."""
    return value if value is not None and math.isfinite(value) else None


def to_json(report: Report, environment: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The file of --json (docs/bench.md)."""
    return {
        "amk_bench": FORMAT,
        "environment": dict(environment),
        "arguments": dict(arguments),
        "gpu": report.gpu,
        "target": report.target,
        "num_sms": report.num_sms,
        "read_peak_bytes_per_s": report.read_peak,
        "ok": report.ok,
        "models": [_model(m, report.read_peak) for m in report.models],
    }


def _model(result: ModelResult | Failure, read_peak: float) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"model": result.name, "weight_dtype": result.weight_dtype, "error": result.error}
    return {
        "model": result.name,
        "weights": result.weights_from,
        "weight_dtype": result.weight_dtype,
        "kv_dtype": result.kv_dtype,
        "max_seq": result.max_seq,
        "config": dict(result.config),
        "options": result.options,
        "kernel": dataclasses.asdict(result.kernel),
        "ok": result.ok,
        "memory": dataclasses.asdict(result.memory) | {"ratio": result.memory.ratio},
        "launches": dataclasses.asdict(result.launches),
        "matmuls_alone": result.matmuls.to_json(),
        "weight_only": None if result.weight_only is None else result.weight_only.to_json(),
        "contexts": [_context(c, read_peak) for c in result.contexts],
        "seconds": {stage: round(seconds, 3) for stage, seconds in result.seconds.items()},
    }


def _context(result: ContextResult, read_peak: float) -> dict[str, Any]:
    return {
        "context": result.context,
        **result.times.to_json(),
        "bytes": result.bytes,
        "peak_share": result.peak_share(read_peak),
        "ok": result.ok,
        "is_deterministic": result.is_deterministic,
        "correctness": result.check.to_json() if isinstance(result.check, NotRun) else _check(result.check),
        "torch_compile": result.torch_compile.to_json(),
    }


def _check(check: Check) -> dict[str, Any]:
    def values(divergence: Any) -> dict[str, Any]:
        return {name: number(value) for name, value in dataclasses.asdict(divergence).items()}

    return {
        "against": check.against,
        "ok": check.ok,
        "amk": values(check.ours),
        "torch_bf16": None if check.bf16 is None else values(check.bf16),
    }
