"""Parts of the passes that are easier to test alone than through IR, and what holds for whole models."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from cpu_time import cpu_seconds
from hypothesis import given
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from amk.amk_ir.access import Access, Dim
from amk.amk_ir.attrs import RopeFrequencies
from amk.amk_ir.linear import POSITION, Linear
from amk.dialects import queue, task
from amk.dialects.schedule import EventKind, Schedule
from amk.frontends import llama
from amk.frontends.recipe import DecoderConfig, ImportOptions
from amk.passes.effects import Box, Effects, box
from amk.passes.graph_to_queue import FuseAttention, GraphToQueuePass
from amk.passes.names import NameTable, join_names
from amk.passes.sync_plan import _reduced as reduced
from amk.passes.tiling import NotTileableError, narrow


def test_unique_names_are_bare_identifiers():
    names = NameTable()
    names.reserve(["x"])
    assert [names.unique(n) for n in ("x", "x", "y", "a-b", "0", "a.b")] == ["x_2", "x_3", "y", "a_b", "_0", "a_b_2"]


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        (["x"], "x"),
        (["k_cache", "v_cache"], "k_v_cache"),
        (["linear_q", "linear_k", "linear_v"], "linear_q_k_v"),
        (["a", "b"], "a_b"),
        (["q", "k_cache", "v_cache"], "q_k_cache_v_cache"),
        (["a_b", "a"], "a_b_a"),
        (["a_b", "a_c_b"], "a_b_c_b"),
    ],
)
def test_join_names(names: list[str], joined: str):
    assert join_names(names) == joined


LAYER, TILE, POS = Linear.of("layer"), Linear.of("tile"), Linear.of("pos")
RANGES = {"layer": (0, 3), "pos": (0, 6)}


def region(*dims: Dim) -> Access:
    return Access("x", dims)


class TestBoxes:
    def test_free_indices_are_widened_and_bound_ones_replaced(self):
        found = box(
            region(Dim(Linear.of("i"), kept=False), Dim(TILE * 8, Linear(constant=8), 20)),
            {"i": LAYER + 1},
            {"i": 5, "tile": 3},
        )
        assert found == Box("x", ((LAYER + 1, LAYER + 2), (Linear(), Linear(constant=20))))

    def test_domain_and_loop_names_may_coincide(self):
        access = region(Dim(Linear.of("a"), kept=False), Dim(Linear.of("b"), kept=False))
        found = box(access, {"a": Linear.of("b"), "b": Linear.of("a")}, {"a": 2, "b": 2})
        assert [str(low) for low, _ in found.intervals] == ["b", "a"]

    @pytest.mark.parametrize(
        ("first", "second", "overlap"),
        [
            ((LAYER, LAYER + 1), (LAYER + 1, LAYER + 2), False),
            ((LAYER, LAYER + 2), (LAYER + 1, LAYER + 2), True),
            ((LAYER, LAYER + 1), (Linear(constant=4), Linear(constant=5)), False),
            ((LAYER, LAYER + 1), (Linear(constant=3), Linear(constant=5)), True),
            ((POS, POS + 1), (Linear(), POS), False),
            ((POS, POS + 1), (Linear(), POS + 1), True),
        ],
    )
    def test_overlap(self, first, second, overlap):
        a, b = Box("x", (first,)), Box("x", (second,))
        assert a.overlaps(b, RANGES) is b.overlaps(a, RANGES) is overlap
        assert not a.overlaps(Box("y", (second,)), RANGES)

    def test_two_reads_never_conflict(self):
        a = Box("x", ((LAYER, LAYER + 1),))
        assert not Effects(reads=(a,)).conflicts(Effects(reads=(a,)), RANGES)
        assert Effects(reads=(a,)).conflicts(Effects(writes=(a,)), RANGES)
        assert Effects(writes=(a,)).conflicts(Effects(writes=(a,)), RANGES)


class TestNarrow:
    whole = Dim(Linear(), Linear(constant=10))

    def test_slices_are_relative(self):
        access = region(Dim(LAYER, kept=False), Dim(Linear(constant=2), Linear(constant=8)))
        assert str(narrow(access, (Dim(TILE * 4, Linear(constant=4)),))) == "@x[layer, tile*4 + 2 : 4]"

    def test_limits_combine(self):
        access = region(Dim(Linear(), Linear(constant=10), 7))
        assert str(narrow(access, (Dim(TILE * 4, Linear(constant=4), 10),))) == "@x[tile*4 : 4 to 7]"

    def test_a_moving_start_takes_no_limit(self):
        access = region(Dim(TILE * 5, Linear(constant=5)))
        with pytest.raises(NotTileableError):
            narrow(access, (Dim(LAYER * 2, Linear(constant=2), 5),))

    def test_a_size_of_the_position_is_not_sliced(self):
        with pytest.raises(NotTileableError):
            narrow(region(Dim(Linear(), POS + 1)), (Dim(TILE, Linear(constant=1)),))


@given(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)).filter(lambda e: e[0] < e[1])))
def test_reduction_keeps_the_order_and_nothing_superfluous(edges):
    def closure(of):
        found = set(of)
        while new := {(a, d) for a, b in found for c, d in found if b == c} - found:
            found |= new
        return found

    kept = reduced(9, edges)
    assert kept <= edges
    assert closure(kept) == closure(edges)
    assert all(closure(kept - {edge}) != closure(edges) for edge in kept)


def large_model(layers: int = 32, hidden: int = 4096, intermediate: int = 14336) -> ModuleOp:
    """Shaped like Llama 3.1 8B."""
    config = DecoderConfig(
        vocab=128256,
        hidden=hidden,
        intermediate=intermediate,
        layers=layers,
        heads=32,
        kv_heads=8,
        head_dim=128,
        max_position=131072,
        norm_eps=1e-5,
        rope=RopeFrequencies(128, 500000.0, "llama3", 8.0, 1.0, 4.0, 8192),
    )
    return llama.build(config, ImportOptions(name="m", max_seq=4096, weight_dtype="bf16", kv_dtype="bf16"))


def kernel_of(module: ModuleOp, **options) -> queue.KernelOp:
    GraphToQueuePass(**options).apply(Context(), module)
    (kernel,) = module.ops
    assert isinstance(kernel, queue.KernelOp)
    return kernel


def test_a_large_model_is_lowered_in_no_time():
    start = cpu_seconds()
    kernel_of(large_model())
    assert cpu_seconds() - start < 3


@pytest.mark.parametrize(
    ("fuse_attention", "shapes"),
    [
        ("never", ((32, 4096, 14336, 132), (2, 4096, 14336, 7), (32, 1024, 3000, 132))),
        # where it is fused into all of them
        ("always", ((32, 1024, 14336, 132), (2, 1024, 14336, 131), (32, 1024, 3000, 132))),
    ],
)
def test_the_size_of_the_ir_is_that_of_one_layer(
    fuse_attention: FuseAttention, shapes: tuple[tuple[int, int, int, int], ...]
):
    counts = {
        sum(1 for _ in kernel_of(large_model(layers, hidden, wide), sms=sms, fuse_attention=fuse_attention).walk())
        for layers, hidden, wide, sms in shapes
    }
    assert len(counts) == 1


def test_a_layer_has_five_phases():
    kernel = kernel_of(large_model())
    (loop,) = (op for op in kernel.programs[0].body.block.ops if isinstance(op, task.ForOp))
    runs = [[run.family_name for run in phase.runs] for phase in loop.body.block.ops]
    assert runs == [
        ["linear_q", "linear_k", "linear_v"],
        ["attention_mixed"],
        ["linear_o"],
        ["linear_gate_up"],
        ["linear_down"],
    ]


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("sms", [1, 5, 132])
def test_all_sms_have_the_same_number_of_tasks_at_any_time(sms: int, parts: int):
    """After every run of every layer, the SMs differ by one task at most."""
    schedule = Schedule.from_kernel(kernel_of(large_model(layers=4), sms=sms, parts=parts))
    body = schedule.body
    runs = body.kind == EventKind.RUN
    # the order in which runs come is that of their ops, layer by layer
    layer = np.array(
        [schedule.task_indices(f, t).get("layer", -1) for f, t in zip(body.ref[runs], body.arg[runs], strict=True)]
    )
    before = body.op[runs] < body.op[runs][layer == 0].min()
    key = np.where(layer >= 0, layer, np.where(before, -1, 10**6)) * 1000 + body.op[runs]
    totals = np.zeros(sms, int)
    for moment in np.unique(key):
        np.add.at(totals, body.sm[runs][key == moment], 1)
        assert totals.max() - totals.min() <= 1


def test_streams_differ_by_little():
    """Bytes of weights that the SMs stream in a step."""
    kernel = kernel_of(large_model())
    schedule = Schedule.from_kernel(kernel)
    sizes = np.array(
        [
            sum(np.prod(op.region.tile_shape) for op in family.streams if POSITION not in op.region.names) * 2
            for family in schedule.families
        ],
        np.int64,
    )
    streamed = np.zeros(schedule.num_sms, np.int64)
    np.add.at(streamed, schedule.stream.sm, sizes[schedule.stream.ref])
    assert streamed.max() < 1.005 * streamed.mean()


def test_pairs_of_fetches_and_runs_agree():
    """Every SM fetches what it runs, in the same order."""
    schedule = Schedule.from_kernel(kernel_of(large_model(layers=2), sms=3))
    streaming = np.array([bool(family.streams) for family in schedule.families])
    for sm in range(3):
        body, stream = schedule.body.range(sm), schedule.stream.range(sm)
        runs = [
            (ref, arg)
            for kind, ref, arg in zip(
                schedule.body.kind[body], schedule.body.ref[body], schedule.body.arg[body], strict=True
            )
            if kind == EventKind.RUN and streaming[ref]
        ]
        assert runs == list(zip(schedule.stream.ref[stream], schedule.stream.arg[stream], strict=True))
        assert all(a != b for a, b in pairwise(runs))
