"""Traced kernels: they compute the same, and note what each block does in order."""

from __future__ import annotations

import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_models import CONFIGS, RandomWeights, llama_config, lower, verified
from cuda_targets import spread

from amk.amk_ir.targets import TARGETS
from amk.backends.cuda.context import Loads
from amk.backends.cuda.emit import ENTRY, EmittedKernel, attempts, emit_kernel
from amk.backends.cuda.nvrtc import Resources, check_resources, compile_cubin
from amk.backends.cuda.pack import packed_weights
from amk.backends.cuda.plan import KernelPlan
from amk.backends.cuda.trace_points import (
    LANDED,
    POINT_BITS,
    PUSHED,
    PUSHED_NEXT,
    STAGE_DONE,
    STAGE_READY,
    PointKind,
    TraceDetail,
)
from amk.backends.cuda.tracing import BlockTrace, comparable, read_rows
from amk.tools.trace.collect import TraceOptions, facts_of
from amk.tools.trace.raw import RawTrace
from amk.tools.trace.summary import summarise
from amk.tools.trace.timeline import align

needs_emulator = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SMS = 3
POSITION = 40  # its attention has two groups of earlier rows in the ring
MODELS = CONFIGS | {"wide": llama_config(512, 96, 1, 4, 2, 16, 64)}


def run(
    folder: Path, detail: TraceDetail | None, events: int = 4000, sms: int = SMS, config: str = "gqa", **options: Any
) -> tuple[EmittedKernel, np.ndarray, list[BlockTrace]]:
    """The kernel, its logits, and its trace in the emulator."""
    kernel = verified(MODELS[config], sms=sms, **options)
    emitted = emit_kernel(kernel.kernel, trace=detail)
    weights = packed_weights(emitted.plan, RandomWeights(kernel.kernel))
    folder = folder / f"{detail}_{events}"
    folder.mkdir()
    emulated = EmulatedKernel(emitted, weights, folder, trace_events=events)
    logits = emulated.step({"token": np.array([5], np.int32)}, POSITION)["logits"].copy()
    return emitted, logits, [] if detail is None else read_rows(emulated.arrays["trace"], sms, events)


def count(block: BlockTrace, point: int) -> int:
    """How many loads were started (PUSHED), or have landed (LANDED)."""
    return int(np.isin(block.producer.codes & 4095, (point, PUSHED_NEXT)).sum())


@needs_emulator
@pytest.mark.parametrize("detail", get_args(TraceDetail))
def test_timestamps(detail: TraceDetail, tmp_path: Path) -> None:
    _, untraced, _ = run(tmp_path, None)
    emitted, traced, blocks = run(tmp_path, detail)
    assert np.array_equal(untraced, traced)
    points, operations = emitted.plan.trace_points, emitted.plan.operations
    seen: set[str] = set()
    fetched: set[str] = set()
    for block in blocks:
        for row in (block.consumers, block.producer):
            assert row.dropped == 0
            assert (np.diff(row.clocks) < 1 << 31).all()  # modulo 2^32, each is after the one before
        numbers = block.consumers.codes & 4095
        texts = [points[n].text for n in numbers]
        assert texts[0] == "start of the step"
        assert {"activations", "products", "results", "signal"} <= set(texts)
        seen |= set(texts)
        fetched |= {operations[c >> 12].text for c in block.producer.codes if c & 4095 in (PUSHED, PUSHED_NEXT)}
        assert 0 < block.begin_ns < block.align_ns
        pushed, landed = (count(block, point) for point in (PUSHED, LANDED))
        assert pushed == landed > 0
        if detail == "stages":  # every stage that was loaded is read, one after the other
            stages = numbers[np.isin(numbers, (STAGE_READY, STAGE_DONE))]
            assert stages.tolist() == [STAGE_READY, STAGE_DONE] * pushed
        else:
            assert not np.isin(numbers, (STAGE_READY, STAGE_DONE)).any()
    assert {"queries", "attention"} <= seen
    assert {"queue.fetch @linear_q", "queue.fetch @linear_o"} <= fetched


@needs_emulator
def test_loops(tmp_path: Path) -> None:
    """An event in a loop says in which iteration it was."""
    emitted, _, blocks = run(tmp_path, "phases")
    points = emitted.plan.trace_points
    layers = CONFIGS["gqa"]["num_hidden_layers"]
    for block in blocks:
        seen = [int(c >> 12) for c in block.consumers.codes if points[c & 4095].loops == (("layer", layers),)]
        assert seen == sorted(seen)
        assert set(seen) == set(range(layers))


@needs_emulator
@pytest.mark.parametrize(("fuse", "operations"), [("never", 2), ("auto", 1)])
def test_divided_attention(fuse: str, operations: int, tmp_path: Path) -> None:
    """Parts of an attention and what merges them are told apart, unless their reader does, and all stages of the cache are
    followed."""
    emitted, _, blocks = run(tmp_path, "stages", parts=2, fuse_attention=fuse)
    points = emitted.plan.trace_points
    texts = {points[c & 4095].text for block in blocks for c in block.consumers.codes}
    assert {"queries", "attention", "parts", "results"} <= texts
    facts = facts_of("emulated", "a CPU", emitted.plan, TraceOptions(POSITION, "stages"))
    names = align(RawTrace(facts, tuple(blocks))).operations
    assert sum("attention" in name for name in names) == operations


@needs_emulator
@pytest.mark.parametrize(("config", "last"), [("gqa", "attention"), ("mqa", "first weights")])
def test_activations_of_what_attends_itself(config: str, last: str, tmp_path: Path) -> None:
    """They end after the attention that they are made of, not when it does; first weights, if there are any, come in between."""
    emitted, _, blocks = run(tmp_path, "phases", config=config, fuse_attention="always")
    texts = [point.text for point in emitted.plan.trace_points]
    found = 0
    for block in blocks:
        events = [
            (texts[c & 4095], int(clock))
            for c, clock in zip(block.consumers.codes, block.consumers.clocks, strict=True)
        ]
        for (before, begin), (after, end) in pairwise(events):
            assert (before, after) != ("first weights", "attention")
            if (before, after) == (last, "activations"):
                assert 0 < (end - begin) % 2**32 < 2**31
                found += 1
    assert found > 0


@needs_emulator
def test_quantised_weights(tmp_path: Path) -> None:
    """Their stages are noted like all others."""
    _, untraced, _ = run(tmp_path, None, weights="int8")
    _, traced, blocks = run(tmp_path, "stages", weights="int8")
    assert np.array_equal(untraced, traced)
    for block in blocks:
        numbers = block.consumers.codes & 4095
        stages = numbers[np.isin(numbers, (STAGE_READY, STAGE_DONE))]
        assert stages.tolist() == [STAGE_READY, STAGE_DONE] * count(block, PUSHED)


@needs_emulator
@pytest.mark.parametrize("sms", [2, SMS])
def test_several_first_stages(sms: int, tmp_path: Path) -> None:
    """Where several stages come into registers at once, each is noted, also if an SM has several tasks."""
    emitted, traced, blocks = run(tmp_path, "stages", sms=sms, config="wide", bytes=3072)
    assert re.search(r"FirstStages<.*, [2-8]> held", emitted.source)
    assert np.array_equal(traced, run(tmp_path, None, sms=sms, config="wide", bytes=3072)[1])
    for block in blocks:
        numbers = block.consumers.codes & 4095
        stages = numbers[np.isin(numbers, (STAGE_READY, STAGE_DONE))]
        assert stages.tolist() == [STAGE_READY, STAGE_DONE] * count(block, PUSHED)
        assert block.consumers.dropped == 0 and (block.consumers.clocks > 0).all()


@needs_emulator
def test_overflow(tmp_path: Path) -> None:
    """What has no room is counted, and overwrites nothing."""
    _, untraced, _ = run(tmp_path, None)
    _, _, whole = run(tmp_path, "stages")
    _, traced, blocks = run(tmp_path, "stages", 12)
    assert np.array_equal(untraced, traced)
    for block, all_of_it in zip(blocks, whole, strict=True):
        for row, complete in ((block.consumers, all_of_it.consumers), (block.producer, all_of_it.producer)):
            assert (row.codes[:5] & 4095).tolist() == (complete.codes[:5] & 4095).tolist()
            assert len(row.clocks) == 12
            assert row.dropped == len(complete.clocks) - 12


# ---- the text and its compilation ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("detail", "target"), spread(get_args(TraceDetail)))
def test_traced_kernels_compile(detail: TraceDetail, target: str) -> None:
    """Without spills, like the untraced kernel with the same loads: else the two would not compare."""
    pytest.importorskip("cuda.bindings.nvrtc")
    kernel = verified(llama_config(576, 1536, 30, 9, 3, 64, 49152, 2048), target, sms=TARGETS[target].num_sms)

    def compiled(loads: Loads, detail: TraceDetail | None) -> tuple[KernelPlan, Resources]:
        emitted = emit_kernel(kernel.kernel, loads=loads, trace=detail)
        return emitted.plan, compile_cubin(emitted.source, TARGETS[target], ENTRY).resources

    for loads in (loads for loads in attempts(TARGETS[target], tokens=1) if loads.is_early):
        plan, resources = compiled(loads, detail)
        untraced, untraced_resources = compiled(loads, None)
        if not resources.spill_stores and not untraced_resources.spill_stores:
            break
    else:
        pytest.fail("all attempts that have early weights spill registers")
    assert comparable(plan) == comparable(untraced)
    assert resources.spill_loads == untraced_resources.spill_loads == 0
    check_resources(resources, plan.dynamic_shared, plan.threads, TARGETS[target], "traced")


def test_untraced_text() -> None:
    """An untraced kernel has none of it, and traced ones do not grow with layers."""
    kernel = lower(llama_config())
    plain, traced = emit_kernel(kernel), emit_kernel(kernel, trace="stages")
    assert "race" not in plain.source
    assert plain.plan.trace is None
    assert plain.plan.trace_points == ()
    more = emit_kernel(lower(llama_config(layers=12)), trace="stages")
    assert len(more.plan.trace_points) == len(traced.plan.trace_points)


def test_points_are_told_apart() -> None:
    """Every operation of a body has points that name it, and every wait one that says what for."""
    points = emit_kernel(lower(llama_config()), trace="stages").plan.trace_points
    assert len(set(points)) == len(points) < 1 << POINT_BITS
    work = {p.operation for p in points if p.kind is PointKind.WORK and p.text == "results"}
    for family in ("linear_q", "linear_o", "linear_down", "linear_logits", "argmax_next"):
        assert sum(f"@{family}[" in operation for operation in work) == 1
    assert any(p.kind is PointKind.COUNTER and "queue.wait @" in p.operation for p in points)
    assert any(p.kind is PointKind.WORDS and p.text.startswith("the read of @") for p in points)


@needs_emulator
@pytest.mark.parametrize("sms", [SMS, 16], ids=["apart", "together"])  # the products of q, k and v
@pytest.mark.parametrize("detail", get_args(TraceDetail))
def test_timeline_of_a_step(detail: TraceDetail, sms: int, tmp_path: Path) -> None:
    """What the device notes becomes a timeline in which every operation has its time and every stage is followed."""
    emitted, _, blocks = run(tmp_path, detail, sms=sms)
    facts = facts_of("emulated", "a CPU", emitted.plan, TraceOptions(POSITION, detail))
    timeline = align(RawTrace(facts, tuple(blocks)))
    summary = summarise(timeline)
    assert sum(summary.shares.values()) == pytest.approx(1)
    runs = {operation.name: operation.runs for operation in summary.operations}
    layers = CONFIGS["gqa"]["num_hidden_layers"]
    assert runs["linear_o"] * sms >= layers
    assert runs["argmax_next"] == pytest.approx(1 / sms)
    assert all(count > 0 for name, count in runs.items() if name != "other")
    for sm in timeline.sms:
        assert len(sm.pushed) == len(sm.read)
        assert (np.diff(sm.pushed) >= 0).all()
