"""Index expressions and accesses against direct evaluation."""

import re
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.context import Context
from xdsl.parser import Parser

from amk.amk_ir.access import Access, Dim, check_access
from amk.amk_ir.linear import POSITION, Linear
from amk.amk_ir.syntax import parse_access, parse_linear

NAMES = ("layer", "tile", POSITION)
linears = st.builds(
    Linear.make, st.dictionaries(st.sampled_from(NAMES), st.integers(-9, 9), max_size=3), st.integers(-50, 50)
)
values = st.fixed_dictionaries({name: st.integers(0, 7) for name in NAMES})


def parsed_linear(text: str) -> Linear:
    return parse_linear(Parser(Context(), text))


@given(linears, linears, st.integers(-5, 5), values)
def test_arithmetic_is_that_of_the_values(a: Linear, b: Linear, factor: int, at: dict[str, int]):
    assert (a + b).evaluate(at) == a.evaluate(at) + b.evaluate(at)
    assert (a - b).evaluate(at) == a.evaluate(at) - b.evaluate(at)
    assert (a * factor).evaluate(at) == a.evaluate(at) * factor


@given(linears)
def test_text_round_trips(a: Linear):
    assert parsed_linear(str(a)) == a


@given(linears, linears, values)
def test_substitution_is_evaluation_of_the_inner_expression(a: Linear, b: Linear, at: dict[str, int]):
    assert a.substitute({"tile": b}).evaluate(at) == a.evaluate({**at, "tile": b.evaluate(at)})


@given(linears, st.tuples(*(st.integers(0, 3) for _ in NAMES)))
def test_bounds_are_the_least_and_greatest_values(a: Linear, lasts: tuple[int, int, int]):
    found = [a.evaluate(dict(zip(NAMES, at, strict=True))) for at in product(*(range(last + 1) for last in lasts))]
    ranges = {name: (0, last) for name, last in zip(NAMES, lasts, strict=True)}
    assert a.bounds(ranges) == (min(found), max(found))


def test_an_unbound_index_is_an_error():
    with pytest.raises(KeyError, match="layer"):
        parsed_linear("layer + 1").evaluate({})


@pytest.mark.parametrize(
    ("access", "problem"),
    [
        ("@x[0 : 8]", None),
        ("@x[tile*4 : 4]", None),
        ("@x[tile*5 : 5 to 8]", None),
        ("@x[0 : pos + 1]", None),
        ("@x[pos]", None),
        ("@x[0 : pos]", None),
        ("@x[pos : pos*-1 + 7]", None),
        ("@x[pos + 1 : pos*-1 + 7]", None),
        ("@x[0 : pos - 1]", r"size pos - 1 of dimension 0 of .* can be less than 0"),
        ("@x[0 : pos*-1 + 6]", r"can be less than 0"),
        ("@x[0 : pos to 3]", None),
        ("@x[8 : pos]", r"covers \[8, 15\), buffer @x has \[0, 8\)"),
        ("@x[tile*5 : 5]", r"covers \[0, 10\), buffer @x has \[0, 8\)"),
        ("@x[tile - 1 : 1]", r"covers \[-1, 1\)"),
        ("@x[0 : pos + 2]", r"covers \[0, 9\)"),
        ("@x[tile*8 : 4 to 8]", "starts at 8, at or beyond its limit 8"),
        ("@x[0 : 4 to 9]", r"limit 9 .* must lie in \[1, 8\]"),
        ("@x[0 : 0]", "can be less than 1"),
        ("@x[0 : tile]", "may depend on 'pos' only"),
        ("@x[row]", "index 'row', which is not in the domain"),
        ("@x[0, 0]", "has 2 dimensions, buffer @x has 1"),
    ],
)
def test_check_access_at_the_first_and_last_position(access: str, problem: str | None):
    found = check_access(parse_access(Parser(Context(), access)), (8,), {"tile": 2}, max_pos=7)
    if problem is None:
        assert found is None
    else:
        assert found is not None and re.search(problem, found), found


@given(st.integers(0, 6), st.integers(1, 6), st.one_of(st.none(), st.integers(1, 12)), st.integers(1, 12))
def test_check_access_agrees_with_enumeration(factor: int, size: int, limit: int | None, extent: int):
    access = Access("x", (Dim(Linear.make({"tile": factor}), Linear.of(size), limit),))
    valid = limit is None or limit <= extent
    for tile in range(3):
        start = tile * factor
        stop = start + size if limit is None else min(start + size, limit)
        valid = valid and stop <= extent and (limit is None or start < limit)
    assert (check_access(access, (extent,), {"tile": 3}, max_pos=0) is None) == valid
