"""How well the model of a step's time (backends/cuda/step_time.py) predicts what was measured; needs no GPU.

    python benchmarks/step_time.py --json benchmarks/results/step_time.json --write docs/step_time.md

Parameters are fitted to the recorded steps of two shapes, and the others are predicted with them. `--write` puts the tables
into the page, between its markers; `--from FILE` takes them from a JSON of before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import environment
import numpy as np

from amk.amk_ir.targets import get_target
from amk.backends.cuda.step_time import PhaseWork, StepParameters, predict, ring_bytes_of, step_phases
from amk.frontends.import_model import import_config
from amk.runtime.compile import plan
from amk.runtime.files import write_atomically
from amk.tools.bench.shapes import SHAPES

RESULTS = Path(__file__).parent / "results"
FITTED = ("smollm2-135m", "qwen3-0.6b", "llama-3.2-1b")
FITTED_AT = (128, 1024)
"""The shapes and contexts whose steps of one token decide the parameters, with those of several tokens without outputs."""
START = StepParameters(
    sm_bytes_per_us=0,
    phase_us=1.2,
    word_ns=0.1,
    multiply_bytes_per_us=6e4,
    attend_bytes_per_us=6e4,
)
RECORDED_FAR = {"parts": 0}
"""Options of the kernels for long contexts when the steps were recorded."""
OTHER_GPU = "bench_h100.json"
"""A recorded run on another GPU of the same target, with an older device code: its read peak counts here, not its steps."""
FREE = ("phase_us", "word_ns", "multiply_bytes_per_us", "attend_bytes_per_us")
MOST = dict.fromkeys(("multiply_bytes_per_us", "attend_bytes_per_us"), 128 * 1980.0)
"""What an SM reads from its shared memory: 128 bytes a clock, at the highest. Steps that do not depend on a parameter leave it there."""


@dataclass(frozen=True)
class Point:
    """A measured step. sm_bytes_per_us: of the read peak of its run. same_schedule: whether the kernel that is lowered now
    is the one that was measured; None if that was not recorded."""

    model: str
    tokens: int
    outputs: bool
    context: int
    measured_us: float
    fitted: bool
    sm_bytes_per_us: float
    ring_bytes: int
    same_schedule: bool | None
    phases: Sequence[PhaseWork]

    def predicted(self, parameters: StepParameters):
        return predict(self.phases, self.ring_bytes, replace(parameters, sm_bytes_per_us=self.sm_bytes_per_us))


def read_points() -> list[Point]:
    """All recorded steps, with the phases of their kernels."""
    points: list[Point] = []
    target = get_target("sm_90a")
    record = json.loads((RESULTS / "bench_h200.json").read_text())
    peak = record["read_peak_bytes_per_s"] / record["num_sms"] / 1e6
    for entry in record["models"]:
        if entry["weight_dtype"] != "bf16":
            continue
        model = _import(entry["model"], entry["max_seq"])
        near = plan(model.module, target)
        far = plan(model.module, target, options=RECORDED_FAR)
        for step in entry["contexts"]:
            kernel = near if step["context"] < entry["kernel"]["far_from"] else far
            points.append(
                Point(
                    entry["model"],
                    1,
                    True,
                    step["context"],
                    step["median_us"],
                    entry["model"] in FITTED and step["context"] in FITTED_AT,
                    peak,
                    ring_bytes_of(kernel.kernel),
                    near.digest == entry["kernel"]["schedule"],
                    step_phases(kernel.kernel, step["context"]),
                )
            )
    record = json.loads((RESULTS / "chunk_cost_h200.json").read_text())["results"]
    for entry in record["models"]:
        for kind, times in entry["steps_us"].items():
            tokens, outputs = int(kind.split()[0]), "no outputs" not in kind
            contexts = [int(context) for context in times]
            model = _import(entry["model"], max(*contexts, 128) + 64).with_tokens(tokens)
            kernel = plan(model.module, target, outputs=outputs).kernel
            for context, time in times.items():
                phases = step_phases(kernel, int(context))
                ring = ring_bytes_of(kernel)
                # its run did not measure the read peak: that of the other one
                fitted = not outputs and entry["model"] in FITTED
                points.append(
                    Point(entry["model"], tokens, outputs, int(context), time, fitted, peak, ring, None, phases)
                )
    return points


def _import(name: str, max_seq: int):
    return import_config(SHAPES[name], name=name, max_seq=max_seq, weight_dtype="bf16", kv_dtype="bf16")


def fit(points: Sequence[Point]) -> StepParameters:
    """The parameters up to `MOST` with the least squares of relative errors (of logarithms), by damped Gauss-Newton steps on
    their logarithms."""
    most = np.log([MOST.get(name, np.inf) for name in FREE])

    def of(values: np.ndarray) -> StepParameters:
        return replace(START, **dict(zip(FREE, map(float, np.exp(values)), strict=True)))

    def errors(values: np.ndarray) -> np.ndarray:
        return np.array([np.log(p.predicted(of(values)).total_us / p.measured_us) for p in points])

    values = np.log([getattr(START, name) for name in FREE])
    now, damping = errors(values), 1e-3
    for _ in range(200):
        slopes = np.stack([(errors(values + step) - now) / 1e-3 for step in 1e-3 * np.eye(len(FREE))], axis=1)
        while True:
            change = np.linalg.solve(slopes.T @ slopes + damping * np.eye(len(FREE)), -slopes.T @ now)
            new = np.minimum(values + np.clip(change, -0.5, 0.5), most)
            later = errors(new)
            if later @ later < now @ now or damping > 1e3:
                break
            damping *= 4
        gained = now @ now - later @ later
        if gained > 0:
            values, now, damping = new, later, damping / 5
        if gained < 1e-6 * (now @ now) + 1e-16:
            break
    return of(values)


def evaluate() -> dict[str, Any]:
    """Parameters and predictions: what the JSON holds."""
    points = read_points()
    parameters = fit([p for p in points if p.fitted])
    other = json.loads((RESULTS / OTHER_GPU).read_text())
    other_rate = other["read_peak_bytes_per_s"] / other["num_sms"] / 1e6
    rows: list[dict[str, Any]] = []
    for point in points:
        time = point.predicted(parameters)
        used = np.sum([phase.weight_bytes + phase.cache_bytes for phase in point.phases], axis=0)
        rows.append(
            {
                "model": point.model,
                "tokens": point.tokens,
                "outputs": point.outputs,
                "context": point.context,
                "fitted": point.fitted,
                "same_schedule": point.same_schedule,
                "phases": len(point.phases),
                "bytes": float(used.sum()),
                "busiest_sm": float(used.max() / used.mean()),
                "words": float(sum(phase.words.max() for phase in point.phases)),
                "floor_us": float(used.sum() / len(used) / point.sm_bytes_per_us),
                "read_us": time.read_us,
                "handoff_us": time.handoff_us,
                "work_us": time.work_us,
                "hidden_us": time.hidden_us,
                "predicted_us": time.total_us,
                "measured_us": point.measured_us,
                "other_gpu_us": replace(point, sm_bytes_per_us=other_rate).predicted(parameters).total_us,
                "error": time.total_us / point.measured_us - 1,
            }
        )
    found = asdict(parameters)
    del found["sm_bytes_per_us"]
    return {
        "fitted_to": [f"{p.model}, {p.tokens} tokens, at {p.context}" for p in points if p.fitted],
        "parameters": found,
        "sm_bytes_per_us": points[0].sm_bytes_per_us,
        "other_gpu": {"gpu": other["gpu"], "sm_bytes_per_us": other_rate},
        "rows": rows,
    }


def tables(results: Mapping[str, Any]) -> str:
    """The part of docs/step_time.md that is generated."""
    found = results["parameters"]
    lines = [
        "| parameter | value | |",
        "|---|---|---|",
        f"| `phase_us` | {found['phase_us']:.2f} µs | a hand-off |",
        f"| `word_ns` | {found['word_ns']:.3f} ns | each word that an SM gathers |",
        f"| `multiply_bytes_per_us` | {found['multiply_bytes_per_us'] / 1e3:.1f} KB/µs | weights that are in the ring |",
        f"| `attend_bytes_per_us` | {found['attend_bytes_per_us'] / 1e3:.1f} KB/µs | keys and values that are in the ring |",
        f"| `sm_bytes_per_us` | {results['sm_bytes_per_us'] / 1e3:.1f} KB/µs | measured, not fitted: read peak / SMs |",
        "",
        "| step | at | phases | bytes at the peak | busiest SM | hand-offs | work | hidden | predicted | measured | error "
        f"| on {results['other_gpu']['gpu']} |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        what = row["model"]
        if row["tokens"] > 1:
            what += f", {row['tokens']} tokens" + ("" if row["outputs"] else ", no outputs")
        elif row["same_schedule"] is None:
            what += ", one token, another run"
        if row["same_schedule"] is False:
            what += " (an older schedule)"
        error = f"{100 * row['error']:+.1f}%"
        lines.append(
            f"| {what} | {row['context']:,} | {row['phases']} | {row['floor_us']:,.0f} | {row['read_us']:,.0f} "
            f"| {row['handoff_us']:,.0f} | {row['work_us']:,.0f} | {row['hidden_us']:,.0f} | {row['predicted_us']:,.0f} "
            f"| {row['measured_us']:,.0f} | {error + ' (fitted)' if row['fitted'] else '**' + error + '**'} "
            f"| {row['other_gpu_us']:,.0f} |"
        )
    return "\n".join(lines)


BEGIN, END = "<!-- benchmarks/step_time.py writes from here -->", "<!-- to here -->"


def page_with(page: str, table: str) -> str:
    """`page` with `table` between its markers; ValueError if it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks '{BEGIN}' or '{END}'")
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="source", metavar="FILE", type=Path)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--write", metavar="PAGE", type=Path)
    options = parser.parse_args()
    if options.source is None:
        results = evaluate()
        environment.write(options.json, "step_time", results)
    else:
        results = json.loads(options.source.read_text())["results"]
    print(tables(results))
    if options.write is not None:
        write_atomically(options.write, page_with(options.write.read_text(), tables(results)).encode())


if __name__ == "__main__":
    main()
