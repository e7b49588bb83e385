"""The index of regions: positions that stand for all, and cells, against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amk.passes.verifier import arrangement as module
from amk.passes.verifier.arrangement import arrangement
from amk.passes.verifier.regions import Boxes, critical_positions

LINES = st.dictionaries(st.integers(-2, 3), st.sets(st.integers(-5, 60), min_size=1, max_size=4), min_size=1)


def order(lines: dict[int, set[int]], position: int) -> tuple[int, ...]:
    """The order of all end points at one position."""
    values = [value + slope * position for slope in sorted(lines) for value in sorted(lines[slope])]
    return tuple((a > b) - (a < b) for a, b in itertools.combinations(values, 2))


@given(LINES, st.integers(0, 80))
def test_critical_positions_see_every_order(lines: dict[int, set[int]], max_pos: int):
    chosen = critical_positions(lines, max_pos)
    assert chosen <= set(range(max_pos + 1))
    assert {order(lines, p) for p in chosen} == {order(lines, p) for p in range(max_pos + 1)}


def test_a_kv_cache_needs_four_positions():
    lines = {0: {0, 1, 2048}, 1: {0, 1}}
    assert sorted(critical_positions(lines, 2047)) == [0, 1, 2, 2047]


def random_boxes(rng: np.random.Generator, shape: tuple[int, ...], count: int) -> Boxes:
    a, b = (np.stack([rng.integers(0, n, count) for n in shape], axis=1) for _ in range(2))
    return Boxes(np.minimum(a, b), np.maximum(a, b) + 1)


def elements(boxes: Boxes, row: int) -> set[tuple[int, ...]]:
    return set(itertools.product(*(range(a, b) for a, b in zip(boxes.low[row], boxes.high[row], strict=True))))


@pytest.mark.parametrize("max_cells", [1, 7, 1 << 22])
@pytest.mark.parametrize("shape", [(5,), (4, 6), (3, 4, 5), ()])
def test_cells_partition_the_buffer_and_respect_all_boxes(monkeypatch, shape: tuple[int, ...], max_cells: int):
    """Also where the grid is too large and the buffer is halved."""
    monkeypatch.setattr(module, "MAX_CELLS", max_cells)
    rng = np.random.default_rng(0)
    sets = (
        (random_boxes(rng, shape, 5), random_boxes(rng, shape, 3)) if shape else (Boxes(*[np.zeros((1, 0), int)] * 2),)
    )
    seen: list[tuple[int, ...]] = []
    covered: list[dict[int, set[tuple[int, ...]]]] = [{} for _ in sets]
    for part in arrangement(shape, sets):
        cells = [set(itertools.product(*(range(a, b) for a, b in part.box_of(c)))) for c in range(part.cells)]
        seen += [e for cell in cells for e in cell]
        for which in range(len(sets)):
            for box, cell in zip(*part.cover(which), strict=True):
                mine = covered[which].setdefault(int(box), set())
                assert not mine & cells[cell]
                mine |= cells[cell]
    assert sorted(seen) == sorted(itertools.product(*map(range, shape)))
    for which, boxes in enumerate(sets):
        assert covered[which] == {row: elements(boxes, row) for row in range(len(boxes))}
