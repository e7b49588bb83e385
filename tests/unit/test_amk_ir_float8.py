"""e4m3fn against its definition. (tests/oracle/test_float8.py compares it with torch.)"""

import numpy as np

from amk.amk_ir.float8 import E4M3_MAX, E4M3_NAN, e4m3_from_f32, f32_from_e4m3

ALL = np.arange(256, dtype=np.uint8)


def test_decodes_as_defined():
    for bits in range(0x7F):
        exponent, mantissa = bits >> 3, bits & 7
        expected = (8 + mantissa) * 2.0 ** (exponent - 10) if exponent else mantissa * 2.0**-9
        for sign in (0, 0x80):
            (found,) = f32_from_e4m3(np.array([bits | sign], np.uint8))
            assert found == (-expected if sign else expected)
            assert np.signbit(found) == bool(sign)
    assert f32_from_e4m3(np.array([0x7E], np.uint8))[0] == E4M3_MAX
    assert np.isnan(f32_from_e4m3(np.array([0x7F, 0xFF], np.uint8))).all()


def test_encoding_inverts_decoding():
    finite = ALL[(ALL & 0x7F) != E4M3_NAN]
    np.testing.assert_array_equal(e4m3_from_f32(f32_from_e4m3(finite)), finite)


def test_rounds_to_nearest_even():
    values = f32_from_e4m3(np.arange(0x7F, dtype=np.uint8))
    middle = (values[:-1] + values[1:]) / 2  # exact
    even = np.arange(0x7E) + (np.arange(0x7E) % 2)
    for sign, bit in ((1, 0), (-1, 0x80)):
        np.testing.assert_array_equal(e4m3_from_f32(sign * middle), even | bit)
        below, above = np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(1e9))
        np.testing.assert_array_equal(e4m3_from_f32(sign * below), np.arange(0x7E) | bit)
        np.testing.assert_array_equal(e4m3_from_f32(sign * above), (np.arange(0x7E) + 1) | bit)


def test_saturates_and_keeps_nan():
    values = np.array([[449, 464, 1e9], [np.inf, np.nan, 1e-30], [-465, -np.inf, -1e-30]], np.float32)
    expected = [[0x7E, 0x7E, 0x7E], [0x7E, 0x7F, 0], [0xFE, 0xFE, 0x80]]
    np.testing.assert_array_equal(e4m3_from_f32(values), expected)
