"""Quantised matrices: formats and their text, what values they stand for, quantising, and refusals."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amk.amk_ir.dtypes import round_to_bf16
from amk.amk_ir.errors import CheckpointError, UsageError
from amk.amk_ir.float8 import f32_from_e4m3
from amk.amk_ir.quantization import QuantizedFormat, QuantizedTensor, parse_format, quantize

TEXTS = (
    "int8", "int8:g128", "int8:g32:f16", "int8:zp", "int8:g16:zp:bf16", "int4", "int4:g32", "int4:g64", "int4:g128:bf16",
    "int4:g128:zp", "int4:zp:f16", "int4:g32:min", "int4:g32:min:f16", "fp8", "fp8:bf16", "fp8:g128", "fp8:b128x128",
    "fp8:b3x5",
)  # fmt: skip
MATRIX = np.random.default_rng(0).normal(0, 0.5, (37, 100)).astype(np.float32)  # no group of 32 or 128 divides 100


@pytest.mark.parametrize("text", TEXTS)
def test_text_round_trips(text: str):
    assert str(parse_format(text)) == text


@given(
    st.builds(
        dict,
        storage=st.sampled_from(["int8", "int4", "fp8_e4m3"]),
        group=st.integers(0, 300),
        block_rows=st.sampled_from([1, 2, 128]),
        zero_points=st.booleans(),
        minimums=st.booleans(),
        scale_dtype=st.sampled_from(["f32", "bf16", "f16"]),
    )
)
def test_text_names_exactly_one_format(fields: dict[str, Any]):
    try:
        format = QuantizedFormat(**fields)
    except UsageError:
        return
    assert parse_format(str(format)) == format


@pytest.mark.parametrize(
    "text",
    ["", "int3", "int8:", "int4:g0", "int4:128", "int4:g32:zp:min", "fp8:b128", "int8:f64", "INT8", "int4\n", "fp8:g١"],
)
def test_unknown_text(text: str):
    with pytest.raises(UsageError, match="quantised format '.*': expected int8, int4 or fp8, then"):
        parse_format(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"storage": "int2"}, "storage: expected int8, int4, fp8_e4m3, found 'int2'"),
        ({"storage": "int8", "scale_dtype": "f64"}, "scale_dtype: expected f32, bf16, f16, found 'f64'"),
        ({"storage": "int8", "group": -1}, "group: expected 0 .* found -1"),
        ({"storage": "int8", "block_rows": 0}, "block_rows: expected 1 or more, found 0"),
        ({"storage": "int8", "block_rows": 128}, "block_rows of 128 needs a group"),
        ({"storage": "int4", "zero_points": True, "minimums": True}, "zero points and minimums exclude each other"),
        ({"storage": "fp8_e4m3", "zero_points": True}, "fp8 has no zero points"),
        ({"storage": "int8", "minimums": True}, "only int4 has minimums, found int8"),
    ],
)
def test_contradicting_formats(fields: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=f"quantised format: {message}"):
        QuantizedFormat(**fields)


def by_definition(tensor: QuantizedTensor) -> np.ndarray[Any, Any]:
    """The values, one at a time."""
    format, (rows, columns) = tensor.format, tensor.shape
    result = np.empty((rows, columns), np.float32)
    for n in range(rows):
        for k in range(columns):
            at = n // format.block_rows, k // format.group if format.group else 0
            code = tensor.codes[n, k]
            value = f32_from_e4m3(code[None])[0] if format.storage == "fp8_e4m3" else np.float32(code)
            if tensor.zeros is not None:
                value = value - np.float32(tensor.zeros[at])
            value = value * tensor.scales[at]
            if tensor.minimums is not None:
                value = value + tensor.minimums[at]
            result[n, k if tensor.permutation is None else tensor.permutation[k]] = value
    return result


@pytest.mark.parametrize("text", TEXTS)
def test_dequantizes_as_defined(text: str):
    tensor = quantize(MATRIX, parse_format(text))
    np.testing.assert_array_equal(tensor.dequantize(), by_definition(tensor))
    permutation = np.random.default_rng(1).permutation(MATRIX.shape[1]).astype(np.int32)
    permuted = replace(tensor, permutation=permutation)
    permuted.validate("w")
    np.testing.assert_array_equal(permuted.dequantize(), by_definition(permuted))


@pytest.mark.parametrize("text", TEXTS)
def test_quantizes_to_within_half_a_step(text: str):
    format = parse_format(text)
    tensor = quantize(MATRIX, format, search=False)
    tensor.validate("w")
    assert tensor.codes.min() >= format.code_range[0]
    assert tensor.codes.max() <= format.code_range[1]
    error = np.abs(tensor.dequantize() - MATRIX)
    scales = tensor.scales.repeat(format.block_rows, 0)[:37].repeat(format.group or 100, 1)[:, :100]
    if format.storage == "fp8_e4m3":
        assert (error <= np.maximum(np.abs(MATRIX) / 16, scales * 2.0**-10) * 1.01).all()
    else:
        # a scale that was rounded down does not reach the end of the range, which is clipped
        rounding = {"f32": 2.0**-22, "bf16": 2.0**-8, "f16": 2.0**-11}[format.scale_dtype]
        assert (error <= scales * (0.5 + rounding * 2.0**format.code_bits)).all()


def test_extremes():
    rows = np.array([[-3.0, 0.5, 1.27], [0, 0, 0], [2, 2, 2], [-1, -1, -1]], np.float32)
    for text in TEXTS:
        if ":b" in text or "f16" in text:  # blocks mix the rows, rounded scales do not reach them
            continue
        tensor = quantize(rows, parse_format(text), search=False)
        # integers without an offset are half a step away from the largest magnitude, so that none is further away
        is_exact = tensor.minimums is not None or tensor.zeros is not None or "fp8" in text
        found = tensor.dequantize()
        half = 0 if is_exact else np.abs(tensor.scales) / 2
        assert (np.abs(found[1:] - rows[1:]) <= np.broadcast_to(half, rows.shape)[1:] + 1e-6).all()
        assert (found[1] == 0).all()
        assert found[0, 0] == pytest.approx(-3.0, abs=float(tensor.scales[0, 0]) / 2 + 1e-6)


def test_zero_is_exact_with_zero_points():
    rows = np.array([[-0.31, 0, 0.77], [0.2, 0, 0.9], [-0.4, 0, -0.1]], np.float32)
    for text in ("int4:zp", "int8:zp", "int4:zp:f16"):
        assert (quantize(rows, parse_format(text)).dequantize()[:, 1] == 0).all()


def test_scale_types():
    for text, rounded in (
        ("int8:f16", lambda x: x.astype(np.float16).astype(np.float32)),
        ("int8:bf16", round_to_bf16),
    ):
        found = quantize(MATRIX, parse_format(text)).scales
        np.testing.assert_array_equal(found, rounded(found))
        scales = quantize(MATRIX, parse_format(text), search=False).scales
        np.testing.assert_array_equal(scales, rounded(np.abs(MATRIX).max(1, keepdims=True) / np.float32(127.5)))


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch):
    matrix = np.random.default_rng(2).normal(0, 1, (300, 70)).astype(np.float32)
    for text in ("int4:g32:zp", "fp8:b128x32", "int8"):
        whole = quantize(matrix, parse_format(text))
        values = whole.dequantize()
        with monkeypatch.context() as context:
            context.setattr("amk.amk_ir.quantization._CHUNK", 500)
            parts = quantize(matrix, parse_format(text))
            np.testing.assert_array_equal(parts.codes, whole.codes)
            np.testing.assert_array_equal(parts.scales, whole.scales)
            np.testing.assert_array_equal(parts.dequantize(), values)


def test_rows():
    tensor = quantize(MATRIX, parse_format("fp8:b8x32"))
    np.testing.assert_array_equal(tensor.rows(8, 24).dequantize(), tensor.dequantize()[8:24])
    np.testing.assert_array_equal(tensor.rows(32, 37).dequantize(), tensor.dequantize()[32:])
    with pytest.raises(ValueError, match="rows 4 to 8 of 37 are not whole blocks of 8 rows"):
        tensor.rows(4, 8)


@pytest.mark.parametrize(
    ("text", "bits"),
    [("int8", 8 + 32 / 128), ("int4:g32:f16", 4.5), ("int4:g32:min:f16", 5), ("int4:g64:zp:f16", 4 + 20 / 64), ("fp8:b64x64", 8 + 32 / 4096)],
)  # fmt: skip
def test_bytes(text: str, bits: float):
    assert parse_format(text).nbytes((64, 128)) == 64 * 128 * bits / 8


@pytest.mark.parametrize(
    ("matrix", "text", "message"),
    [
        (np.zeros(3), "int8", r"expected a matrix with elements, found shape \[3\]"),
        (np.zeros((0, 4)), "int8", r"found shape \[0, 4\]"),
        (np.array([[1, np.nan]]), "int4:g32", r"quantize to int4:g32: element \[0, 1\] is not finite"),
        (np.array([[1, np.inf]]), "fp8", r"element \[0, 1\] is not finite"),
        (np.array([[3e38, 1]]), "int8:f16", "f16 cannot hold the scale"),
        (
            np.array([[1, 2], [1, 3.4e38]]),
            "int8",
            r"int8: element \[1, 1\] is 3.4e\+38: float32 cannot hold all values",
        ),
        (np.array([[1, 2, 1, 3.2e38, -3.3e38]]), "int4:g3", r"element \[0, 4\] is -3.3e\+38: float32 cannot"),
        (np.array([[3e38, -3e38, 1]]), "int8:zp", r"element \[0, 0\] is 3e\+38: float32 cannot"),
        (np.array([[1, 1, 1], [2, 3e38, -3e38]]), "int4:g3:min", r"element \[1, 1\] is 3e\+38: float32 cannot"),
        (np.full((5, 5), 3.4e38), "int8:b2x2", r"element \[0, 0\] is 3.4e\+38: float32 cannot"),
    ],
)
def test_what_cannot_be_quantized(matrix: Any, text: str, message: str):
    with pytest.raises(UsageError, match=message):
        quantize(matrix, parse_format(text))


@pytest.mark.parametrize("text", ["int8", "int4:g8", "int8:g8:zp", "int4:g8:zp", "int4:g8:min", "fp8", "int4:g8:bf16"])
@pytest.mark.parametrize("largest", [1e38, 1.7e38, 3.1e38, 3.2e38, 3.38e38, 3.395e38, 3.4e38])
@pytest.mark.parametrize("signs", [(1, 1), (-1, -1), (1, -1)])
def test_the_largest_values(text: str, largest: float, signs: tuple[int, int]):
    """Whatever is not refused means finite values, also where a search moves the scale."""
    values = np.random.default_rng(0).uniform(-1, 1, (4, 24)).astype(np.float32) * np.float32(largest)
    values[:, 3], values[:, 14] = (np.float32(sign * largest) for sign in signs)
    for search in (False, True):
        try:
            found = quantize(values, parse_format(text), search=search)
        except UsageError:
            assert largest > (1.6e38 if "zp" in text or "min" in text else 3.1e38)
            continue
        found.validate("here")
        assert np.isfinite(found.dequantize()).all()


def spoiled(text: str, **changes: Any) -> QuantizedTensor:
    return replace(quantize(MATRIX, parse_format(text)), **changes)


def with_entry(array: Any, at: tuple[int, int], value: float) -> Any:
    array = array.copy()
    array[at] = value
    return array


GOOD = quantize(MATRIX, parse_format("int4:g32:zp"))


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (replace(GOOD, shape=(37, 99)), r"codes: expected shape \[37, 99\], found \[37, 100\]"),
        (replace(GOOD, scales=GOOD.scales[:, :2]), r"scales: expected shape \[37, 4\], found \[37, 2\]"),
        (replace(GOOD, scales=GOOD.scales.astype(np.float64)), "scales: expected float32, found float64"),
        (replace(GOOD, codes=GOOD.codes.astype(np.uint8)), "codes: expected int8, found uint8"),
        (replace(GOOD, zeros=None), "zero points: missing"),
        (replace(GOOD, minimums=GOOD.scales), "minimums: the format has none"),
        (replace(GOOD, scales=with_entry(GOOD.scales, (3, 1), np.nan)), r"scale \[3, 1\]: expected a finite number, found nan"),
        (replace(GOOD, scales=with_entry(GOOD.scales, (3, 1), np.inf)), r"scale \[3, 1\]: expected a finite number, found inf"),
        (replace(GOOD, scales=with_entry(GOOD.scales, (3, 1), -3e37)), r"scale \[3, 1\]: -3e\+37 makes values that float32 cannot"),
        (replace(GOOD, codes=with_entry(GOOD.codes, (36, 99), 16)), r"code \[36, 99\]: expected 0 to 15, found 16"),
        (replace(GOOD, zeros=with_entry(GOOD.zeros, (0, 3), -1)), r"zero point \[0, 3\]: expected 0 to 15, found -1"),
        (replace(GOOD, permutation=np.zeros(100, np.int32)), "permutation: expected each of 0 to 99 once"),
        (replace(GOOD, permutation=np.arange(99, dtype=np.int32)), r"permutation: expected shape \[100\], found \[99\]"),
        (spoiled("fp8", codes=np.full((37, 100), 0xFF, np.uint8)), r"fp8: code \[0, 0\]: is NaN"),
        (spoiled("int8", format=parse_format("int8:f16")), r"scale \[0, 0\]: .* is not exact in f16"),
        (spoiled("int4:min", minimums=np.full((37, 1), np.nan, np.float32)), r"minimum \[0, 0\]: expected a finite"),
    ],
)  # fmt: skip
def test_damaged_tensors(tensor: QuantizedTensor, message: str):
    with pytest.raises(CheckpointError, match=rf"^file: tensor 'w': .*{message}"):
        tensor.validate("file: tensor 'w'")
