"""The model of a step's time: what it reads from a kernel, its formula in cases that can be done by hand, its page."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from amk.amk_ir.errors import CompileError
from amk.amk_ir.targets import get_target
from amk.backends.cuda.compile import plan_kernel
from amk.backends.cuda.step_time import PhaseWork, StepParameters, predict, ring_bytes_of, step_phases
from amk.frontends.import_model import ImportedModel, import_config
from amk.passes.expand_queues import ExpandQueuesPass
from amk.runtime.compile import find_kernel, new_context, plan
from amk.tools.bench.shapes import SHAPES

ROOT = Path(__file__).parents[2]
TARGET = get_target("sm_90a")
SMALL = {**SHAPES["llama-3.2-1b"], "num_hidden_layers": 3}


def shape(**changes: Any) -> ImportedModel:
    return import_config({**SMALL, **changes}, max_seq=512, weight_dtype="bf16", kv_dtype="bf16")


def test_all_bytes_are_counted():
    """Of weights, those of the packed streams; of the cache, whole groups of 16 positions, in either kernel."""
    for options in ({}, {"parts": 0}, {"rows": 16}):
        kernel = plan(shape().module, TARGET, options=options)
        streamed = sum(stream.bytes for stream in plan_kernel(kernel).streams)
        for pos in (0, 15, 16, 300):
            phases = step_phases(kernel.kernel, pos)
            assert sum(p.weight_bytes.sum() for p in phases) == streamed
            cached = 3 * 2 * 8 * 64 * 2 * (pos // 16 * 16)  # layers, k and v, heads, head_dim, bytes
            assert sum(p.cache_bytes.sum() for p in phases) == cached, (options, pos)


def test_what_each_phase_gathers():
    kernel = plan(shape().module, TARGET).kernel
    phases = step_phases(kernel, 100)
    names = [p.name for p in phases]
    assert len(phases) == 1 + 3 * 5 + 3
    assert names[1:6] == [
        "@linear_q, @linear_k, @linear_v (layer = 0)",
        "@attention_mixed (layer = 0)",
        "@linear_o (layer = 0)",
        "@linear_gate_up (layer = 0)",
        "@linear_down (layer = 0)",
    ]
    embedding, qkv, attention, o, gate_up, down = phases[:6]
    assert embedding.words.max() == 0, "ids come from the host"
    assert set(qkv.words[qkv.owns]) == {2048}, "three runs gather the same words once"
    assert (attention.words.max(), int(attention.owns.sum())) == (4 * 64 + 2 * 64, 8)
    # the row, and what an SM's tasks of 16 rows add to it
    assert set(o.words[o.owns]) == {2048 + 16}
    assert set(gate_up.words[gate_up.owns]) == {2048}
    assert set(down.words[down.owns]) == {8192 + 16}
    for work in phases:
        assert not (work.words[~work.owns].any() or work.weight_bytes[~work.owns].any())


def test_several_tokens_gather_as_many_rows():
    one, eight, split = (
        step_phases(plan(shape().with_tokens(n).module, TARGET, options={"product_values": v}).kernel, 100)
        for n, v in ((1, 0), (8, 0), (8, 8192))
    )
    assert [p.weight_bytes.sum() for p in one] == [p.weight_bytes.sum() for p in eight]
    assert eight[4].words.max() == 8 * one[4].words.max()
    # an SM gathers its part of the rows once, and the sums of the parts of a tile of 16 rows
    o, total = split[3:5]
    assert ("linear_o" in o.name, "linear_o_sum" in total.name) == (True, True)
    assert set(o.words[o.owns]) == {8 * 2048 // 2}
    assert set(total.words[total.owns]) == {8 * 16 * (2 + 1)}
    down, total = split[6:8]
    assert ("linear_down" in down.name, "linear_down_sum" in total.name) == (True, True)
    assert set(down.words[down.owns]) == {8 * 8192 // 4}
    assert down.weight_bytes.sum() == eight[5].weight_bytes.sum()
    assert set(total.words[total.owns]) == {8 * 16 * (4 + 1)}


def test_parts_share_the_cache():
    phases = step_phases(plan(shape().module, TARGET, options={"parts": 0}).kernel, 300)
    part = next(p for p in phases if "attention" in p.name)
    assert part.owns.sum() > 8
    # 288 positions in whole groups: two blocks of 128, and 32 positions of the third
    assert sorted(set(part.cache_bytes[part.owns])) == [0, 2 * 64 * 2 * 32, 2 * 64 * 2 * 128]


def test_refused():
    kernel = plan(shape().module, TARGET).kernel
    for pos in (-1, 512):
        with pytest.raises(CompileError, match=f"expected a position from 0 to 511, found {pos}"):
            step_phases(kernel, pos)
    small = plan(shape(num_hidden_layers=1, vocab_size=64, intermediate_size=64).module, TARGET, 2)
    module = small.kernel.parent_op().clone()  # type: ignore[union-attr]
    ExpandQueuesPass().apply(new_context(), module)
    with pytest.raises(CompileError, match=r"has 2 programs.*before expand-queues"):
        step_phases(find_kernel(module), 0)


OF = StepParameters(sm_bytes_per_us=10, phase_us=2, word_ns=100, multiply_bytes_per_us=20, attend_bytes_per_us=40)


def phase(weights: list[float], cache: float = 0, words: float = 0, early: float = 0) -> PhaseWork:
    of = np.array(weights, np.float64)
    owns = of > 0
    return PhaseWork("", owns, of, *(np.where(owns, n, 0.0) for n in (cache, words, early)))


def test_bytes_alone():
    """Without hand-offs, the bytes of the busiest SM: 100 at 10 a microsecond."""
    assert predict([], 1000, OF).total_us == 0
    time = predict([phase([60, 40]), phase([40, 40])], 1000, OF)
    assert (time.total_us, time.read_us, time.handoff_us) == (10, 10, 0)


@pytest.mark.parametrize(
    ("ring", "phases"),
    [
        # 30 bytes come during the wait of 3 us, 20 more while they are worked through
        (1000, (10, 3 + 7)),
        # the ring has room for 20 of them, and the other 80 come afterwards
        (20, (10, 3 + 8)),
        # nothing is hidden
        (0, (10, 3 + 10)),
    ],
)
def test_the_ring_hides_waits(ring: int, phases: tuple[float, ...]):
    time = predict([phase([100]), phase([100], words=10)], ring, OF)
    assert time.phases == phases
    assert time.handoff_us == 3
    assert time.total_us == sum(phases)


def test_weights_in_registers_make_room():
    """A ring of 20 bytes brings 25 during the wait, if registers take 5 of them; an SM that has nothing else to do takes them earlier."""
    assert predict([phase([100]), phase([100], words=10, early=5)], 20, OF).phases == (10, 3 + 7.5)
    skips = phase([0, 200])
    assert predict([skips, phase([100, 0], early=20)], 40, OF).phases == (20, 5), (
        "60 are there, the others come as they are used"
    )


def test_what_registers_take():
    """Seven stages of 16 KiB of products that wait for words, if a task has as many; none of those that attend first."""
    kernel = plan(shape().module, TARGET).kernel
    early = {p.name.split(" (")[0]: p.early_bytes for p in step_phases(kernel, 100)}
    assert {int(n) for n in early["@linear_o"]} == {0, 4 * 16384}
    assert {int(n) for n in early["@linear_down"]} == {0, 7 * 16384}
    assert early["@attention_mixed"].max() == 0
    fused = plan(import_config(SHAPES["smollm2-135m"], max_seq=64, weight_dtype="bf16", kv_dtype="bf16").module, TARGET)
    attends = [p for p in step_phases(fused.kernel, 40) if p.cache_bytes.any()]
    assert attends and all(p.early_bytes.max() == 0 for p in attends)


def test_a_small_phase_is_the_wait_and_the_work():
    """Its bytes come sooner than they are used: a wait of 3 us, 20 bytes at 20 and 20 of the cache at 40 a microsecond."""
    time = predict([phase([20], cache=20, words=10)] * 3, 100, OF)
    assert time.phases == (3 + 1.5, 3 + 1.5, 3 + 1.5)


def test_who_skips_a_phase_loads_on():
    skips = phase([0, 200])
    assert predict([skips, phase([100, 0])], 100, OF).phases == (20, 5)
    assert predict([skips, phase([100, 0])], 40, OF).phases == (20, 6)
    assert predict([skips, phase([0, 100])], 100, OF).phases == (20, 10), "whose ring is empty"


def test_slower_parameters_are_never_faster():
    phases = step_phases(plan(shape().module, TARGET).kernel, 300)
    base = StepParameters(22000, 1.5, 0.1, 30000, 60000)
    usual = predict(phases, 65536, base).total_us
    for slower in (
        {"sm_bytes_per_us": 20000},
        {"phase_us": 2.0},
        {"word_ns": 0.3},
        {"multiply_bytes_per_us": 24000},
        {"attend_bytes_per_us": 30000},
    ):
        assert predict(phases, 65536, replace(base, **slower)).total_us > usual, slower
    assert predict(phases, 16384, base).total_us > usual


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("benchmarks_step_time", ROOT / "benchmarks" / "step_time.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def recorded(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text())


def test_the_page_is_made_of_the_recorded_result(script: ModuleType):
    page = (ROOT / "docs" / "step_time.md").read_text(encoding="utf-8")
    assert script.page_with(page, script.tables(recorded("step_time.json")["results"])) == page
    with pytest.raises(ValueError, match="lacks"):
        script.page_with("no markers", "")


def test_the_result_is_of_the_recorded_steps():
    rows = recorded("step_time.json")["results"]["rows"]
    measured = {(r["model"], r["context"]): r["measured_us"] for r in rows if r["same_schedule"] is not None}
    assert measured == {
        (model["model"], step["context"]): step["median_us"]
        for model in recorded("bench_h200.json")["models"]
        if model["weight_dtype"] == "bf16"
        for step in model["contexts"]
    }
    unseen = [row for row in rows if not row["fitted"]]
    assert len(unseen) > len(rows) / 2


def test_a_fit_finds_the_parameters_back(script: ModuleType):
    """Of steps that the model itself has made."""
    true = StepParameters(22000.0, 1.7, 0.15, 31000.0, 70000.0)
    points = []
    for layers in (1, 3):
        for tokens, pos in ((1, 0), (1, 250), (1, 500), (8, 16), (8, 450)):
            kernel = plan(shape(num_hidden_layers=layers).with_tokens(tokens).module, TARGET).kernel
            phases, ring = step_phases(kernel, pos), ring_bytes_of(kernel)
            points.append(
                script.Point(
                    "", tokens, True, pos, predict(phases, ring, true).total_us, True, 22000.0, ring, True, phases
                )
            )
    found = script.fit(points)
    for name in script.FREE:
        assert getattr(found, name) == pytest.approx(getattr(true, name), rel=0.02), name
