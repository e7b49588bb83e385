"""Traces brought into time: synthetic ones, whose times are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from synthetic_traces import LAYERS, STAGES_EACH, synthetic, times_of

from amk.amk_ir.errors import TraceError
from amk.backends.cuda.trace_points import LANDED, PUSHED, PUSHED_NEXT, STAGE_DONE, STAGE_READY
from amk.backends.cuda.tracing import BlockTrace, TraceRow
from amk.tools.trace.timeline import Spent, align, occupancy


@pytest.mark.parametrize("resolution", [1, 32, 1000])
@pytest.mark.parametrize("ghz", [0.9, 1.755])
def test_times(resolution: int, ghz: float) -> None:
    """The SMs' clocks count from anywhere, and wrap: the times of all events are found again."""
    timeline = align(synthetic(ghz=ghz, resolution=resolution))
    assert timeline.doubt == resolution
    accuracy = 2 + max(8, resolution)
    assert timeline.ghz == pytest.approx((ghz, ghz * 1.01) * 2, rel=max(4, resolution) / timeline.length)
    for number, sm in enumerate(timeline.sms):
        expected = np.array([ns for ns, _, _ in times_of(number)[0]]) - 100
        assert np.abs(np.concatenate([sm.starts[:1], sm.ends]) - expected).max() <= accuracy
        assert (sm.starts[1:] == sm.ends[:-1]).all()
        pushed = np.array([ns for ns, point, _ in times_of(number)[1] if point == PUSHED]) - 100
        assert np.abs(sm.pushed - pushed).max() <= accuracy
        landed = np.array([ns for ns, point, _ in times_of(number)[1] if point == LANDED]) - 100
        assert np.abs(sm.landed - landed).max() <= accuracy


def test_pushed_next() -> None:
    """One event that a load has landed and the next one is under way is both."""
    trace = synthetic()

    def joined(block: BlockTrace) -> BlockTrace:
        row = block.producer
        codes, keep = row.codes.copy(), np.ones(len(row.codes), bool)
        landed = np.flatnonzero(codes & 4095 == LANDED)[:-1]
        pushed = np.flatnonzero(codes & 4095 == PUSHED)[1:]
        keep[landed], codes[pushed] = False, codes[pushed] - PUSHED + PUSHED_NEXT
        return replace(block, producer=TraceRow(row.clocks[keep], codes[keep], 0))

    before, timeline = align(trace), align(replace(trace, blocks=tuple(joined(block) for block in trace.blocks)))
    for old, new in zip(before.sms, timeline.sms, strict=True):
        assert np.array_equal(new.pushed, old.pushed)
        assert np.array_equal(new.fetches, old.fetches)
        assert np.array_equal(new.landed, [*old.pushed[1:], old.landed[-1]])


@pytest.mark.parametrize("resolution", [1, 32, 1000])
def test_changing_frequency(resolution: int) -> None:
    """An SM whose clock changes its frequency in the middle of the step is still in time."""
    timeline = align(synthetic(resolution=resolution, slowdown=0.05))
    expected = np.array([ns for ns, _, _ in times_of(1)[0]]) - 100
    late = np.abs(timeline.sms[1].ends - expected[1:])
    # it loses 1500 ns, and half a knot's loss where the frequency changes
    assert late.max() <= max(130, 1.2 * resolution)
    assert np.median(late) <= max(25, 0.6 * resolution)


def test_owners() -> None:
    """Waits and activations belong to what they are for, signals to what came before."""
    timeline = align(synthetic())
    names = np.array(timeline.operations)
    assert timeline.operations == ("other", "linear_q", "linear_down")
    sm = timeline.sms[0]
    texts = [timeline.facts.points[p].text for p in sm.points]
    each = ["linear_q"] * (2 + 2 * STAGES_EACH + 3) + ["linear_down"] * (2 + 2 * STAGES_EACH + 2)
    assert names[sm.owners].tolist() == each * LAYERS
    assert texts[8] == "signal"
    assert sm.runs.sum() == 2 * LAYERS
    assert timeline.spent[STAGE_READY] is Spent.RING
    assert timeline.spent[STAGE_DONE] is Spent.WORK


def test_phases_alone() -> None:
    """Without stages, what was read is spread over the products; all of it is read within them, in order."""
    whole, phases = align(synthetic()), align(synthetic("phases"))
    for exact, sm in zip(whole.sms, phases.sms, strict=True):
        assert len(sm.read) == len(sm.pushed) == 2 * LAYERS * STAGES_EACH
        assert (np.diff(sm.read) > 0).all()
        assert np.abs(sm.read - exact.read).max() < 150
        assert STAGE_DONE not in sm.points


@pytest.mark.parametrize("detail", ["stages", "phases"])
def test_occupancy(detail: str) -> None:
    for sm in align(synthetic("stages" if detail == "stages" else "phases")).sms:
        times, loading, ready = occupancy(sm)
        assert (np.diff(times) >= 0).all()
        assert (loading >= 0).all()
        assert (ready >= 0).all()
        assert loading[-1] == ready[-1] == 0
        assert 1 <= (loading + ready).max() <= 4


def test_refused() -> None:
    trace = synthetic()
    nothing = replace(trace.blocks[2].consumers, clocks=np.zeros(0, np.uint32), codes=np.zeros(0, np.uint32))
    blocks = (*trace.blocks[:2], replace(trace.blocks[2], consumers=nothing), trace.blocks[3])
    with pytest.raises(TraceError, match="SM 2 noted nothing"):
        align(replace(trace, blocks=blocks))
    still = tuple(replace(block, begin_ns=block.align_ns) for block in trace.blocks)
    with pytest.raises(TraceError, match="SM 0 stand still"):
        align(replace(trace, blocks=still))
    row, loads = trace.blocks[0].producer, 2 * STAGES_EACH * LAYERS
    cut = replace(trace.blocks[0], producer=replace(row, clocks=row.clocks[:-1], codes=row.codes[:-1]))
    with pytest.raises(TraceError, match=rf"started {loads} loads, saw {loads - 1} land and read {loads}"):
        align(replace(trace, blocks=(cut, *trace.blocks[1:])))
