"""Traced kernels: they compute the same, and note what each block does in order."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from cuda_emulator import EmulatedKernel
from cuda_models import CONFIGS, RandomWeights, verified

from amk.backends.cuda.emit import EmittedKernel, emit_kernel
from amk.backends.cuda.pack import packed_weights
from amk.backends.cuda.trace_points import LANDED, PUSHED, STAGE_DONE, STAGE_READY, TraceDetail
from amk.backends.cuda.tracing import BlockTrace, read_rows

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SMS = 3


def run(
    folder: Path, detail: TraceDetail | None, events: int = 4000
) -> tuple[EmittedKernel, np.ndarray, list[BlockTrace]]:
    """The kernel, its logits, and its trace in the emulator."""
    kernel = verified(CONFIGS["gqa"], sms=SMS)
    emitted = emit_kernel(kernel.kernel, trace=detail)
    weights = packed_weights(emitted.plan, RandomWeights(kernel.kernel))
    folder = folder / f"{detail}_{events}"
    folder.mkdir()
    emulated = EmulatedKernel(emitted, weights, folder, trace_events=events)
    logits = emulated.step({"token": np.array([5], np.int32)}, 0)["logits"].copy()
    return emitted, logits, [] if detail is None else read_rows(emulated.arrays["trace"], SMS, events)


@pytest.mark.parametrize("detail", get_args(TraceDetail))
def test_timestamps(detail: TraceDetail, tmp_path: Path) -> None:
    _, untraced, _ = run(tmp_path, None)
    emitted, traced, blocks = run(tmp_path, detail)
    assert np.array_equal(untraced, traced)
    points = emitted.plan.trace_points
    for block in blocks:
        for row in (block.consumers, block.producer):
            assert row.dropped == 0
            assert (np.diff(row.clocks.astype(np.int64)) >= 0).all()
        numbers = block.consumers.codes & 4095
        texts = [points[n].text for n in numbers]
        assert texts[0] == "start of the step"
        assert {"activations", "products", "results", "signal", "attention"} <= set(texts)
        assert 0 < block.begin_ns < block.align_ns
        pushed, landed = (int((block.producer.codes & 4095 == p).sum()) for p in (PUSHED, LANDED))
        assert pushed == landed > 0
        if detail == "stages":  # every stage that was loaded is read, one after the other
            stages = numbers[np.isin(numbers, (STAGE_READY, STAGE_DONE))]
            assert stages.tolist() == [STAGE_READY, STAGE_DONE] * pushed
        else:
            assert not np.isin(numbers, (STAGE_READY, STAGE_DONE)).any()


def test_loops(tmp_path: Path) -> None:
    """An event in a loop says in which iteration it was."""
    emitted, _, blocks = run(tmp_path, "phases")
    points = emitted.plan.trace_points
    layers = CONFIGS["gqa"]["num_hidden_layers"]
    for block in blocks:
        seen = [int(c >> 12) for c in block.consumers.codes if points[c & 4095].loops == (("layer", layers),)]
        assert seen == sorted(seen)
        assert set(seen) == set(range(layers))


def test_overflow(tmp_path: Path) -> None:
    """What has no room is counted, and overwrites nothing."""
    _, untraced, _ = run(tmp_path, None)
    _, _, whole = run(tmp_path, "stages")
    _, traced, blocks = run(tmp_path, "stages", 12)
    assert np.array_equal(untraced, traced)
    for block, all_of_it in zip(blocks, whole, strict=True):
        for row, complete in ((block.consumers, all_of_it.consumers), (block.producer, all_of_it.producer)):
            assert row.codes.tolist()[:5] == complete.codes.tolist()[:5]
            assert len(row.clocks) == 12
            assert row.dropped == len(complete.clocks) - 12
