"""Searched scales: never worse than those that clip nothing, as good as trying all, and nothing else changes."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from amk.amk_ir.errors import UsageError
from amk.amk_ir.quantization import QuantizedTensor, parse_format, quantize
from amk.amk_ir.scale_search import GRID, SHORT_GRID, search_steps

FORMATS = ("int4", "int4:g4", "int4:g4:f16", "int4:b2x3", "int4:g4:zp", "int4:g5:zp:bf16", "int4:min", "int4:g4:min:f16",
           "int8", "int8:g4:zp", "int8:bf16")  # fmt: skip
EXTREMES = (0.0, -0.0, 1e-45, -1e-45, 1e-40, 1.0, 1.0, -1.0, 65504.0, 1e30, -1e30, 1.7e38)

matrices = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 9)),
    elements=st.one_of(st.sampled_from(EXTREMES), st.floats(-8, 8, width=32), st.integers(-3, 3).map(float)),
)


def group_errors(
    tensor: QuantizedTensor, matrix: NDArray[Any], importance: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """The squared error of each group, weighted by the importance of its inputs."""
    errors = (tensor.dequantize().astype(np.float64) - matrix) ** 2
    if importance is not None:
        errors *= importance
    group, rows = tensor.format.group or matrix.shape[1], tensor.format.block_rows
    columns = np.add.reduceat(errors, range(0, matrix.shape[1], group), axis=1)
    return np.add.reduceat(columns, range(0, matrix.shape[0], rows), axis=0)


@pytest.mark.parametrize("text", FORMATS)
@given(matrix=matrices, data=st.data())
@settings(max_examples=40, deadline=None)
def test_no_group_gets_worse(text: str, matrix: NDArray[np.float32], data: st.DataObject) -> None:
    format = parse_format(text)
    importance = data.draw(st.none() | arrays(np.float64, matrix.shape[1], elements=st.sampled_from([0, 1e-3, 1, 7])))
    try:
        plain = quantize(matrix, format, search=False)
    except UsageError:  # what the scale type cannot hold is refused either way
        with pytest.raises(UsageError, match="cannot hold the scale"):
            quantize(matrix, format, importance, search=True)
        return
    found = quantize(matrix, format, importance, search=True)
    found.validate("w")
    assert np.isfinite(found.dequantize()).all()
    before, after = (group_errors(tensor, matrix, importance) for tensor in (plain, found))
    # the last block of rows is filled up with copies of its last, so that another error may have decided
    if matrix.shape[0] % format.block_rows == 0:
        assert (after <= before * (1 + 1e-6)).all()


def test_it_gets_better() -> None:
    """By how much, on values with longer tails than a normal distribution's; with importance, more."""
    rng = np.random.default_rng(0)
    matrix = rng.standard_t(6, (64, 512)).astype(np.float32)
    importance = rng.random(512) ** 4
    for text, wanted, wanted_weighted in (
        ("int4:g32", 0.78, 0.65),
        ("int4:g128", 0.78, 0.70),
        ("int4:g128:zp", 0.93, 0.85),
        ("int4:g32:min", 0.90, 0.72),
        ("int8", 1.0, 0.95),
    ):
        format = parse_format(text)
        plain, found = (quantize(matrix, format, search=search) for search in (False, True))
        assert group_errors(found, matrix).sum() < wanted * group_errors(plain, matrix).sum()
        weighted = quantize(matrix, format, importance)
        before, after = (group_errors(tensor, matrix, importance).sum() for tensor in (plain, weighted))
        assert after < wanted_weighted * before
        assert after < group_errors(found, matrix, importance).sum()


def fitted(values: NDArray[Any], codes: NDArray[Any], weights: NDArray[Any], has_offset: bool) -> float:
    """The least squared error with these codes, by NumPy's solver."""
    columns = [codes, np.ones_like(codes)] if has_offset else [codes]
    root = np.sqrt(weights)
    a, b = (np.stack(columns, axis=1) * root[:, None]).astype(np.float64), values.astype(np.float64) * root
    return float(((a @ np.linalg.lstsq(a, b)[0] - b) ** 2).sum())


@pytest.mark.parametrize("kind", ["none", "real", "integer"])
@pytest.mark.parametrize("is_weighted", [False, True])
def test_against_all_codes(kind: Any, is_weighted: bool) -> None:
    """Between the optimum over all codes of a group and the best of the grid, on three codes a group of 4 values."""
    rng = np.random.default_rng(1)
    lowest, highest = (-2, 1) if kind == "none" else (0, 3)
    for _ in range(40):
        values = rng.normal(0, 1, 4).astype(np.float32)
        weights = rng.integers(0, 4, 4).astype(np.float32) if is_weighted else np.ones(4, np.float32)
        offset = np.float32(0)
        if kind == "none":
            values /= np.abs(values).max() / (highest + 0.5)
        else:
            low, high = min(values.min(), 0), max(values.max(), 0)
            unit = (high - low) / (highest - lowest)
            values, offset = (values / unit).astype(np.float32), np.float32(-low / unit)
            offset = np.rint(offset) if kind == "integer" else offset
        step, found = search_steps(
            values[None],
            np.array([offset], np.float32),
            (lowest, highest),
            kind,
            weights[None] if is_weighted else None,
        )

        def error(step: float, offset: float, values: Any = values, weights: Any = weights) -> float:
            codes = np.clip(np.rint(values / step + offset), lowest, highest)
            return float((weights * ((codes - offset) * step - values) ** 2).sum())

        reached = error(float(step[0]), float(found[0]))
        offsets = range(lowest, highest + 1) if kind == "integer" else (None,)
        best = np.inf
        for codes in product(range(lowest, highest + 1), repeat=4):
            for zero in offsets:
                shifted = np.array(codes, np.float64) - (zero or 0)
                best = min(best, fitted(values, shifted, weights, kind == "real"))
        tolerance = 1e-5 * float((weights * values**2).sum())
        assert reached >= best - tolerance
        if kind == "none":
            steps = [sign * factor for factor in (GRID if is_weighted else SHORT_GRID) for sign in (1, -1)]
            assert reached <= min(error(step, 0) for step in steps) + tolerance
        if kind == "integer":
            assert found[0] in range(lowest, highest + 1)


def test_what_the_codes_hold_exactly_stays() -> None:
    rng = np.random.default_rng(2)
    for text in ("int4:g8:min:f16", "int4:g8:zp", "int8:zp"):
        format = parse_format(text)
        codes = rng.integers(*format.code_range, (6, 16), endpoint=True).astype(np.int8)
        codes[:, ::8], codes[:, 1::8] = format.code_range
        shape = format.scales_shape((6, 16))
        scales = np.ldexp(np.float32(1), rng.integers(-3, 3, shape)).astype(np.float32)
        inside = rng.integers(-8, 8, shape)
        tensor = QuantizedTensor(
            format,
            (6, 16),
            codes,
            scales,
            (inside + (8 if format.storage == "int4" else 0)).astype(np.int8) if format.zero_points else None,
            inside.astype(np.float32) if format.minimums else None,
        )
        tensor.validate("w")
        values = tensor.dequantize()
        again = quantize(values, format, search=True)
        np.testing.assert_array_equal(again.dequantize(), values)
        np.testing.assert_array_equal(again.scales, tensor.scales)


def test_groups_of_equal_values() -> None:
    """Zeros stay, a constant is reached, and a group whose scale vanishes is left as it is."""
    matrix = np.zeros((4, 8), np.float32)
    matrix[1], matrix[2], matrix[3] = 2.5, -1e-45, 1e-42
    for text in FORMATS:
        found = quantize(matrix, parse_format(text), search=True).dequantize()
        np.testing.assert_array_equal(found[0], 0)
        if ":b" not in text:
            assert np.abs(found[1] - 2.5).max() <= 0.01
        assert np.abs(found[2:]).max() <= (2.5 if ":b" in text else 2e-42)


def test_what_does_not_count_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    matrix = rng.normal(0, 1, (8, 24)).astype(np.float32)
    for text in ("int4:g8", "int8", "int4:g8:zp"):
        format = parse_format(text)
        plain = quantize(matrix, format, search=False)
        nothing = quantize(matrix, format, np.zeros(24))
        np.testing.assert_array_equal(nothing.codes, plain.codes)
        np.testing.assert_array_equal(nothing.scales, plain.scales)
        # only ratios count
        importance = rng.random(24)
        small, large = (quantize(matrix, format, importance * 2.0**power) for power in (-300, 300))
        np.testing.assert_array_equal(small.codes, large.codes)
        np.testing.assert_array_equal(small.scales, large.scales)
    for text in ("fp8", "fp8:b4x8"):
        format = parse_format(text)
        searched = quantize(matrix, format, rng.random(24), search=True)
        np.testing.assert_array_equal(searched.codes, quantize(matrix, format).codes)


def test_defaults() -> None:
    """Integers are searched for; an importance changes what is found."""
    matrix = np.random.default_rng(4).standard_t(4, (8, 64)).astype(np.float32)

    def scales(text: str, **options: Any) -> NDArray[np.float32]:
        return quantize(matrix, parse_format(text), **options).scales

    for text in ("int4:g32", "int8:g32", "int8"):
        np.testing.assert_array_equal(scales(text), scales(text, search=True))
        assert (scales(text) != scales(text, search=False)).any()
    importance = np.linspace(0, 1, 64) ** 4
    assert (scales("int8:g32", importance=importance) != scales("int8:g32")).any()
    assert (scales("int4:g32", importance=importance) != scales("int4:g32")).any()
    np.testing.assert_array_equal(
        scales("int4:g32", importance=importance, search=False), scales("int4:g32", search=False)
    )


@pytest.mark.parametrize("text", ["int4:g32", "int4:g32:zp", "int8", "int4:b8x16"])
def test_threads_and_chunks_make_no_difference(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    matrix, importance = rng.normal(0, 1, (200, 72)).astype(np.float32), rng.random(72)
    format = parse_format(text)
    whole = quantize(matrix, format, importance)
    for chunk, cores in ((500, 1), (500, 4), (5000, 3)):
        with monkeypatch.context() as context:
            context.setattr("amk.amk_ir.quantization._CHUNK", chunk)
            context.setattr("os.cpu_count", lambda cores=cores: cores)
            parts = quantize(matrix, format, importance)
        np.testing.assert_array_equal(parts.codes, whole.codes)
        np.testing.assert_array_equal(parts.scales, whole.scales)


@pytest.mark.parametrize(
    ("importance", "message"),
    [
        (np.ones(7), r"quantize to int4:g4: importance: expected shape \[8\], found \[7\]"),
        (np.ones((1, 8)), r"importance: expected shape \[8\], found \[1, 8\]"),
        (np.array([1, 1, -1, 1, 1, 1, 1, 1]), r"importance \[2\]: expected 0 or more, and finite, found -1"),
        (np.array([1, np.nan, 1, 1, 1, 1, 1, 1]), r"importance \[1\]: expected 0 or more, and finite, found nan"),
        (np.array([np.inf, 1, 1, 1, 1, 1, 1, 1]), r"importance \[0\]: expected 0 or more, and finite, found inf"),
    ],
)
def test_importance_that_is_refused(importance: NDArray[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        quantize(np.ones((2, 8)), parse_format("int4:g4"), importance)
