"""Traces of steps on a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from cuda_models import RandomWeights, llama_config, verified

from amk.amk_ir.errors import CompileError, TraceError
from amk.amk_ir.targets import Target
from amk.backends.cuda.backend import CudaBackend
from amk.backends.cuda.trace_points import TraceDetail
from amk.backends.cuda.tracing import TracedKernel
from amk.tools.trace.collect import TraceOptions, facts_of, fill, most_events, trace_step
from amk.tools.trace.raw import RawTrace, read_raw, write_raw
from amk.tools.trace.summary import summarise
from amk.tools.trace.timeline import Spent, align

CONTEXT = 20


def take(target: Target, detail: TraceDetail, events: int | None = None) -> RawTrace:
    """A trace of a small model on eight SMs; its logits are those of the untraced kernel."""
    kernel = verified(llama_config(), target.name, sms=8)
    backend = CudaBackend()
    gpu = backend.load(kernel, RandomWeights(kernel.kernel))
    try:
        fill(gpu, 300, CONTEXT)
        expected = gpu.loaded.read("logits")
        compiled = backend.compile(kernel, detail)
        options = TraceOptions(CONTEXT, detail, events, repeat=20, steps=3)
        facts = facts_of("small", gpu.loaded.info.name, compiled.plan, options)
        trace = trace_step(lambda room: TracedKernel(gpu.loaded, compiled, room), facts, options)
        assert np.array_equal(gpu.loaded.read("logits"), expected)
        return trace
    finally:
        gpu.close()


@pytest.mark.parametrize("detail", get_args(TraceDetail))
def test_a_step(detail: TraceDetail, target: Target, tmp_path: Path) -> None:
    trace = take(target, detail)
    timeline = align(trace)
    assert all(0.2 < ghz < 5 for ghz in timeline.ghz)
    # blocks start together, and none ends long after the others
    assert max(sm.starts[0] for sm in timeline.sms) < 0.2 * timeline.length
    summary = summarise(timeline)
    assert sum(summary.shares.values()) == pytest.approx(1)
    assert 0.3 * summary.untraced_us < summary.length_us < 2 * summary.traced_us
    if detail == "stages":
        assert summary.shares[Spent.RING] > 0
    write_raw(tmp_path / "t.npz", trace)
    assert align(read_raw(tmp_path / "t.npz")).length == timeline.length


def test_room(target: Target) -> None:
    trace = take(target, "stages")
    needed = most_events(trace.blocks)
    with pytest.raises(TraceError, match=f"give --events {needed}"):
        take(target, "stages", needed - 1)
    take(target, "stages", needed)


def test_another_kernel_is_refused(target: Target) -> None:
    kernel, other = verified(llama_config(), target.name, sms=8), verified(llama_config(layers=3), target.name, sms=8)
    gpu = CudaBackend().load(kernel, RandomWeights(kernel.kernel))
    for wrong in (CudaBackend().compile(kernel), CudaBackend().compile(other, "phases")):
        with pytest.raises(CompileError, match="no traced form"):
            TracedKernel(gpu.loaded, wrong, 100)
    gpu.close()
