"""Taking a trace: which step is kept, room for events, and the command line; with a kernel that only pretends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cuda_models import llama_config
from synthetic_traces import facts, synthetic

from amk.amk_ir.errors import TraceError
from amk.amk_ir.targets import get_target
from amk.backends.cuda.tracing import BlockTrace, TraceRow
from amk.dialects.task import AttentionPartOp
from amk.frontends.import_model import import_config
from amk.tools.amk import main
from amk.tools.trace.collect import TracedStep, TraceOptions, most_events, plan_step, trace_step
from amk.tools.trace.raw import read_raw, write_raw
from amk.tools.tuned import Choice


class FakeKernel:
    """Traced steps of lengths that are told, in a buffer with room for `events` events a row."""

    def __init__(self, events: int, lengths: Sequence[float], log: list[str]):
        self.events, self.lengths, self.log, self.count = events, lengths, log, 0
        log.append(f"open {events}")

    def step(self, pos: int) -> list[BlockTrace]:
        self.log.append(f"step {pos}")
        trace = synthetic(ghz=self.lengths[self.count % len(self.lengths)])
        self.count += 1
        return [replace(b, consumers=self._cut(b.consumers), producer=self._cut(b.producer)) for b in trace.blocks]

    def _cut(self, row: TraceRow) -> TraceRow:
        kept = min(self.events, len(row.clocks))
        return TraceRow(row.clocks[:kept], row.codes[:kept], len(row.clocks) - kept)

    def time_turns(self, pos: int, repeats: int) -> tuple[list[float], list[float]]:
        self.log.append(f"time {repeats}")
        return [10.0] * repeats, [10.2] * repeats

    def close(self) -> None:
        self.log.append("close")


def run(options: TraceOptions, lengths: Sequence[float] = (1.0,), first: int | None = None) -> tuple[list[str], object]:
    """(what was done, the trace)"""
    log: list[str] = []

    def open_kernel(events: int) -> TracedStep:
        return FakeKernel(first if first is not None and not log else events, lengths, log)

    trace = trace_step(open_kernel, facts(), options)
    assert log[-1] == "close"
    assert trace.facts.untraced_us == (10.0,) * options.repeat
    return log, trace


def test_median_step() -> None:
    """Of the traced steps after the timing, that of median length is kept."""
    lengths = (9.0, 9.0, 1.0, 5.0, 2.0, 3.0, 8.0)  # two steps come before the timing
    log, trace = run(TraceOptions(context=16, repeat=4, steps=5), lengths)
    expected = synthetic(ghz=3.0)
    assert np.array_equal(trace.blocks[0].consumers.clocks, expected.blocks[0].consumers.clocks)  # type: ignore[attr-defined]
    assert log == ["open 16384", "step 16", "step 16", "time 4", *["step 16"] * 5, "close"]


def test_room_is_found() -> None:
    """Without --events, a first step tells how many there are."""
    needed = most_events(synthetic().blocks)
    log, _ = run(TraceOptions(repeat=1, steps=1), first=10)
    assert log[:4] == ["open 10", "step 128", "close", f"open {needed + needed // 8}"]


def test_overflow() -> None:
    needed = most_events(synthetic().blocks)
    log: list[str] = []
    with pytest.raises(TraceError, match=rf"a row has room for 20, the longest has {needed}; give --events {needed}"):
        trace_step(lambda events: FakeKernel(events, (1.0,), log), facts(), TraceOptions(events=20))
    assert log[-1] == "close"
    run(TraceOptions(events=needed, repeat=1))


@pytest.mark.parametrize(("context", "options", "expected"), [(191, {}, 1), (192, {}, 0), (192, {"parts": 3}, 3)])
def test_kernel_of_a_context(context: int, options: dict[str, int], expected: int) -> None:
    """At long contexts the kernel is traced that would run there: its attention is divided among more SMs."""
    model = import_config(llama_config(64, 64, 1, 4, 2, 128, 64, max_seq=512), weight_dtype="bf16", kv_dtype="bf16")
    kernel = plan_step(model, get_target("sm_90a"), Choice(options, 8), context).kernel
    parts = [op.parts.value.data for op in kernel.walk() if isinstance(op, AttentionPartOp)]
    assert parts == {1: [], 0: [4], 3: [3]}[expected]


# ---- command line ----------------------------------------------------------------------------------------------------


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "trace.npz"
    write_raw(path, synthetic())
    return path


def amk(*args: str | Path) -> int:
    with pytest.raises(SystemExit) as e:
        main([str(arg) for arg in args])
    return int(e.value.code or 0)


def test_from(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = [tmp_path / name for name in ("a.html", "a.json", "a.json.gz", "a.npz")]
    flags = [text for path in outputs for text in ("-o", path)]
    flags += ["--html", tmp_path / "page", "--perfetto", tmp_path / "events", "--json", tmp_path / "sums"]
    assert amk("trace", "--from", raw, *flags) == 0
    out = capsys.readouterr().out
    assert "linear_q" in out
    assert all(str(path) in out for path in outputs)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "page").read_bytes()
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "events").read_bytes()
    assert read_raw(tmp_path / "a.npz").facts == read_raw(raw).facts
    sums = json.loads((tmp_path / "sums").read_text())
    assert sums["overhead"] == pytest.approx(0.01)
    assert sum(sums["shares"].values()) == pytest.approx(1)
    assert sums["operations"]["other"]["median_us"] is None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trace"], "MODEL is missing"),
        (["trace", "smollm2-135m", "-o", "x.txt"], "x.txt: expected a name that ends in .html"),
        (["trace", "smollm2-135m", "--events", "9999999"], "--events 9999999: expected at most"),
        (["trace", "smollm2-135m", "--from", "x.npz"], "--from x.npz: goes without MODEL, found smollm2-135m"),
        (["trace", "--from", "x.npz", "--sms", "3"], "--from goes without --sms"),
        (["trace", "--from", "x.npz", "--set", "rows=8"], "--from goes without --set"),
        (["trace", "--from", "none.npz"], "none.npz: cannot be read as a trace: No such file"),
        (["trace", "smollm2-135m", "--detail", "all"], "--detail"),
    ],
)
def test_refused(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert amk(*args) == 2
    assert message in capsys.readouterr().err


def test_unwritable(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert amk("trace", "--from", raw, "-o", tmp_path / "none" / "a.html") == 2
    assert "a.html: there is no folder" in capsys.readouterr().err
    for option in ("-o", "--json", "--perfetto"):  # before anything is traced
        assert amk("trace", "smollm2-135m", option, tmp_path / "none" / "a.json") == 2
        assert f"{option} {tmp_path}/none/a.json: there is no folder {tmp_path}/none" in capsys.readouterr().err


def test_no_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from amk.amk_ir.errors import DeviceError
    from amk.backends.cuda import backend

    def none() -> None:
        raise DeviceError("no NVIDIA driver is installed: use the reference backend")

    monkeypatch.setattr(backend, "detect_target", none)
    assert amk("trace", "smollm2-135m") == 2
    expected = "no GPU to trace on: no NVIDIA driver is installed; --from FILE draws a trace that was taken elsewhere"
    assert expected in capsys.readouterr().err
