"""bf16 conversion, bit by bit."""

import numpy as np
import pytest

from amk.amk_ir.dtypes import bf16_from_f32, f32_from_bf16, itemsize, round_to_bf16


def _f32(bits: int) -> np.ndarray:
    return np.array([bits], np.uint32).view(np.float32)


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0x3F800000, 0x3F80),  # exact
        (0x3F808000, 0x3F80),  # tie, even below
        (0x3F818000, 0x3F82),  # tie, even above
        (0x3F808001, 0x3F81),  # just above a tie
        (0x3F80FFFF, 0x3F81),
        (0x7F7FFFFF, 0x7F80),  # the greatest float32 rounds to infinity
        (0x7F800000, 0x7F80),  # infinity
        (0xFF800000, 0xFF80),
        (0x80000000, 0x8000),  # -0
        (0x00000001, 0x0000),  # the least subnormal
        (0x00008001, 0x0001),  # a subnormal that rounds up
        (0x7F800001, 0x7FC0),  # a NaN whose payload would be cut off
        (0xFFFFFFFF, 0xFFFF),
    ],
)
def test_rounds_to_nearest_even(bits: int, expected: int):
    assert int(bf16_from_f32(_f32(bits))[0]) == expected


def test_every_bf16_value_survives():
    bits = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
    values = f32_from_bf16(bits)
    back = bf16_from_f32(values)
    nan = np.isnan(values)
    np.testing.assert_array_equal(back[~nan], bits[~nan])
    assert np.isnan(f32_from_bf16(back[nan])).all()


def test_keeps_shape_and_handles_more_than_a_chunk():
    values = np.random.default_rng(0).normal(size=(3, 400_001)).astype(np.float32)
    rounded = round_to_bf16(values)
    assert rounded.shape == values.shape
    assert np.abs(rounded / values - 1).max() <= 2**-8
    np.testing.assert_array_equal(round_to_bf16(values[:, ::2]), rounded[:, ::2])
    assert bf16_from_f32(np.float32(1.0)).shape == ()


def test_itemsize():
    assert (itemsize("f32"), itemsize("bf16")) == (4, 2)
