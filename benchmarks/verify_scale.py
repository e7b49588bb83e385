"""Time and peak memory of `amk verify` against the number of tasks, for compact and explicit schedules.

python benchmarks/verify_scale.py --json benchmarks/results/verify_scale.json --svg docs/images/verify_scale.svg
python benchmarks/verify_scale.py --draw benchmarks/results/verify_scale.json --svg docs/images/verify_scale.svg

Every schedule is a file, made in one process. Others read and verify it: one for each repetition, which takes the time of
each stage, and one that is the tool as a user runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from typing import Any

import environment
import scale_graph

from amk.tools.bench.shapes import SHAPES

SMS, TARGET, MAX_SEQ = 132, "sm_90a", 8192


@dataclass(frozen=True)
class Schedule:
    """A model, lowered: a shape of tools/bench/shapes.py with another number of layers, `rows` output rows a task."""

    shape: str
    layers: int
    rows: int = 8
    explicit: bool = False

    @property
    def name(self) -> str:
        rows = "" if self.rows == 8 else f", {self.rows} rows a task"
        return f"{self.shape}, {self.layers} layers{rows}{', explicit' if self.explicit else ''}"


SCHEDULES = (
    Schedule("smollm2-135m", 30),
    Schedule("llama-3.2-1b", 16),
    Schedule("llama-3.1-8b", 32),
    Schedule("llama-3.1-70b", 80),
    Schedule("llama-3.1-70b", 160),
    Schedule("llama-3.1-70b", 320),
    Schedule("smollm2-135m", 6, rows=16, explicit=True),
    Schedule("smollm2-135m", 13, explicit=True),
    Schedule("smollm2-135m", 30, explicit=True),
    Schedule("llama-3.2-1b", 16, explicit=True),
)


def write_schedule(schedule: Schedule, path: Path) -> None:
    """Lowers a model and writes its schedule as .mlir."""
    from amk.frontends.import_model import import_config
    from amk.passes.expand_queues import ExpandQueuesPass
    from amk.passes.graph_to_queue import GraphToQueuePass
    from amk.runtime.compile import module_text, new_context

    config = {**SHAPES[schedule.shape], "num_hidden_layers": schedule.layers}
    module = import_config(config, name="model", max_seq=MAX_SEQ, weight_dtype="bf16", kv_dtype="bf16").module
    GraphToQueuePass(target=TARGET, sms=SMS, rows=schedule.rows, widest=schedule.rows).apply(new_context(), module)
    if schedule.explicit:
        ExpandQueuesPass().apply(new_context(), module)
    path.write_text(module_text(module), encoding="utf-8")


def measure(path: Path) -> dict[str, Any]:
    """Reads and verifies a schedule in this process: what it holds, seconds of each stage, peak memory."""
    from xdsl.parser import Parser

    from amk.dialects import schedule as schedules
    from amk.passes.verifier import check_schedule
    from amk.runtime.compile import find_kernel, new_context

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds: dict[str, float] = {}
    cpu_seconds: dict[str, float] = {}
    last, last_cpu = time.perf_counter(), time.process_time()

    def lap(stage: str) -> None:
        nonlocal last, last_cpu
        now, now_cpu = time.perf_counter(), time.process_time()
        seconds[stage], last = now - last, now
        cpu_seconds[stage], last_cpu = now_cpu - last_cpu, now_cpu

    module = Parser(new_context(), path.read_text(encoding="utf-8"), path.name).parse_module()
    lap("parse")
    module.verify()
    lap("verify the IR")
    schedule = schedules.Schedule.from_kernel(find_kernel(module))
    lap("unroll")
    diagnostics = check_schedule(schedule)
    lap("decide")
    if diagnostics:
        raise SystemExit(f"{path}: the schedule is rejected: {diagnostics[0]}")
    return {
        "tasks": int((schedule.body.kind == schedules.EventKind.RUN).sum()),
        "events": len(schedule.body),
        "fetches": len(schedule.stream),
        "ir_operations": sum(1 for _ in module.walk()),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "imported_mb": before / 1024,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run_tool(path: Path) -> dict[str, float]:
    """`amk verify FILE` as a user runs it: seconds from start to end and of CPU, peak memory."""
    start = time.perf_counter()
    child = subprocess.Popen(
        [str(Path(sys.executable).with_name("amk")), "verify", str(path)], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"amk verify {path} exited with {child.returncode}")
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mb": usage.ru_maxrss / 1024,
    }


def benchmark(schedule: Schedule, repeats: int, folder: Path) -> dict[str, Any]:
    """All repetitions of one schedule."""
    path = folder / "schedule.mlir"
    _child("--write", json.dumps(asdict(schedule)), str(path))
    runs = [json.loads(_child("--measure", str(path))) for _ in range(repeats)]
    counts = {name: runs[0][name] for name in ("tasks", "events", "fetches", "ir_operations")}
    return {
        "schedule": schedule.name,
        **asdict(schedule),
        **counts,
        "file_mb": path.stat().st_size / 1e6,
        "runs": [{k: v for k, v in run.items() if k not in counts} for run in runs],
        "tool": run_tool(path),
    }


def _child(*arguments: str) -> str:
    """This script in a process of its own, so that its peak memory is that of one repetition."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def median_seconds(entry: dict[str, Any], stages: Sequence[str] = ()) -> float:
    """CPU time, of all stages or those named: one thread does it all, and others may use the machine meanwhile."""
    return statistics.median(sum(run["cpu_seconds"][s] for s in stages or run["cpu_seconds"]) for run in entry["runs"])


def exponent(points: Sequence[tuple[float, float, str]]) -> float:
    """The k of the least-squares fit of y = c * x^k."""
    x, y = ([log(v) for v in column] for column in list(zip(*points, strict=True))[:2])
    return statistics.linear_regression(x, y).slope


BOUNDS = (
    (5.0, "limit for 8B: 5 s", False),
    (15.0, "limit for 70B: 15 s", False),
    (60.0, "limit for 100,000 explicit operations: 60 s", True),
)
VERIFY = ("verify the IR", "unroll", "decide")


def series(results: Sequence[dict[str, Any]], explicit: bool) -> list[tuple[float, float, str]]:
    """(tasks, seconds, label) of a form. Reading a compact file takes no time; the parser is most of an explicit one."""
    stages = () if explicit else VERIFY
    return [(r["tasks"], median_seconds(r, stages), _label(r)) for r in results if r["explicit"] == explicit]


def _label(entry: dict[str, Any]) -> str:
    if entry["explicit"]:
        return f"{entry['events'] + entry['fetches']:,} operations"
    model = entry["shape"].rpartition("-")[2].upper()
    own = SHAPES[entry["shape"]]["num_hidden_layers"]
    return model if entry["layers"] == own else f"{model}, {entry['layers']} layers"


def table(results: Sequence[dict[str, Any]]) -> str:
    """As Markdown, medians of the repetitions."""
    lines = [
        "| schedule | tasks | operations of a step | parse | verify the IR | unroll | decide | `amk verify`, all of it | peak memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in results:
        stages = " | ".join(f"{median_seconds(r, (s,)):.2f} s" for s in ("parse", *VERIFY))
        tool = r["tool"]["cpu_seconds"]
        peak = max(t["peak_mb"] for t in (r["tool"], *r["runs"]))
        lines.append(
            f"| {r['schedule']} | {r['tasks']:,} | {r['events'] + r['fetches']:,} | {stages} | {tool:.1f} s | {peak:.0f} MB |"
        )
    compact, explicit = series(results, False), series(results, True)
    large = [p for p in compact if p[0] > 100_000]
    fits = (
        f"Least-squares fits: seconds ~ tasks^{exponent(explicit):.2f} (explicit), tasks^{exponent(compact):.2f} (compact; "
        f"tasks^{exponent(large):.2f} above 100,000 tasks)."
    )
    return "\n".join([*lines, "", fits])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--svg", metavar="FILE", help="draw the graph")
    parser.add_argument("--draw", metavar="FILE", help="measure nothing: take a recorded result")
    parser.add_argument("--write", nargs=2, metavar=("SCHEDULE", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--measure", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write_schedule(Schedule(**json.loads(options.write[0])), Path(options.write[1]))
        return
    if options.measure:
        print(json.dumps(measure(Path(options.measure))))
        return
    if options.draw:
        results = json.loads(Path(options.draw).read_text(encoding="utf-8"))["results"]
    else:
        results: list[dict[str, Any]] = []
        with tempfile.TemporaryDirectory() as folder:
            for schedule in SCHEDULES:
                results.append(benchmark(schedule, options.repeats, Path(folder)))
                print(f"{schedule.name}: {median_seconds(results[-1]):.2f} s", file=sys.stderr)
        environment.write(options.json, "verify_scale", results)
    print(table(results))
    if options.svg:
        drawing = scale_graph.draw(series(results, False), series(results, True), BOUNDS)
        Path(options.svg).write_text(drawing, encoding="utf-8")


if __name__ == "__main__":
    main()
