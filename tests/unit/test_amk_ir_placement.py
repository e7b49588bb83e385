"""Placement formulas, and the schedule that unrolls them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from amk.amk_ir.attrs import DomainAttr, Placement, PlacementKind
from amk.amk_ir.linear import Linear
from amk.dialects.queue import ProgramOp, RunOp
from amk.dialects.schedule import place
from amk.dialects.task import FamilyOp, single_block

placements = st.builds(Placement, st.sampled_from(["cyclic", "blocked"]), st.builds(Linear.of, st.integers(-9, 30)))


@given(placements, st.integers(1, 9), st.integers(0, 40))
def test_every_task_is_on_exactly_one_sm(placement: Placement, n: int, count: int):
    tasks = [t for sm in range(n) for t in placement.tasks(sm, n, count, {})]
    assert sorted(tasks) == list(range(count))


@given(placements, st.integers(1, 9), st.integers(0, 40))
def test_shares_differ_by_at_most_one(placement: Placement, n: int, count: int):
    shares = [len(placement.tasks(sm, n, count, {})) for sm in range(n)]
    assert max(shares) - min(shares) <= 1


@given(placements, st.integers(1, 7), st.integers(0, 3), st.integers(1, 5), st.integers(1, 6), st.integers(0, 1))
def test_the_unrolled_schedule_places_as_the_formula(
    placement: Placement, n: int, first: int, heads: int, parts: int, layer: int
):
    family = FamilyOp("f", (("layer", 2), ("head", heads), ("part", parts)), single_block())
    program = ProgramOp(first, first + n, single_block(), single_block())
    sms, tasks = place(RunOp("f", [Linear.of("layer")], placement), family, program, {"layer": layer})
    for sm in range(n):
        expected = [layer * heads * parts + t for t in placement.tasks(sm, n, heads * parts, {})]
        assert list(tasks[sms == first + sm]) == expected


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_flatten_and_unflatten_are_inverse(shape: list[int], data: st.DataObject):
    domain = DomainAttr(tuple((f"i{n}", extent) for n, extent in enumerate(shape)))
    index = [data.draw(st.integers(0, extent - 1)) for extent in shape]
    flat = domain.flatten(index)
    assert flat == int(np.ravel_multi_index(index, shape))
    assert list(domain.unflatten(flat).values()) == index


def test_kinds_are_the_two_documented_ones():
    assert set(PlacementKind.__args__) == {"cyclic", "blocked"}
