"""Each op of the reference backend against its formula in float64, element by element."""

from __future__ import annotations

import math

import numpy as np
import pytest

from amk.amk_ir.attrs import RopeFrequencies
from amk.amk_ir.rope import inverse_frequencies
from amk.backends.reference import numerics


def randoms(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape, np.float32) for shape in shapes]


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = 2e-6) -> None:
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("n", "k"), [((5,), (7,)), ((2, 3), (7,)), ((4,), (2, 2, 3)), ((1,), (1,))])
def test_linear(rows, n, k):
    x, w = randoms(0, (rows, *k), (*n, *k))
    expected = np.tensordot(x.astype(float), w.astype(float), (tuple(range(1, x.ndim)), tuple(range(len(n), w.ndim))))
    assert_close(numerics.linear(x, w), expected)


def test_linear_of_tiles_that_are_views():
    x, w = randoms(1, (3, 4, 6), (8, 4, 6))
    expected = np.einsum("tij,nij->tn", x[:2, :, 1:5].astype(float), w[2:7, :, 1:5].astype(float))
    assert_close(numerics.linear(x[:2, :, 1:5], w[2:7, :, 1:5]), expected)


@pytest.mark.parametrize("shape", [(1, 8), (3, 576)])
def test_rms_norm(shape):
    x, weight = randoms(2, shape, shape[-1:])
    wide = x.astype(float)
    assert_close(numerics.rms_norm(x, weight, 1e-5), wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-5) * weight)


def test_rms_norm_of_zeros_is_zero():
    assert not numerics.rms_norm(np.zeros((1, 4), np.float32), np.ones(4, np.float32), 1e-5).any()


@pytest.mark.parametrize("pos", [0, 1, 2047, 131071])
@pytest.mark.parametrize("shape", [(1, 2, 4), (3, 5, 2, 4)])
def test_rope_rotates_pairs(pos, shape):
    (x,) = randoms(3, shape)
    frequencies = inverse_frequencies(RopeFrequencies(2 * shape[-1], 10000.0))
    expected = np.empty(shape)
    for index in np.ndindex(*shape[:-2], shape[-1]):
        *outer, i = index
        angle = float(np.float32(pos + outer[0]) * frequencies[i])
        a, b = x[(*outer, 0, i)], x[(*outer, 1, i)]
        expected[(*outer, 0, i)] = a * math.cos(angle) - b * math.sin(angle)
        expected[(*outer, 1, i)] = b * math.cos(angle) + a * math.sin(angle)
    assert_close(numerics.rope(x, frequencies, pos), expected)


def test_rope_of_a_part_of_the_pairs_is_that_part_of_the_result():
    (x,) = randoms(4, (1, 2, 8))
    frequencies = inverse_frequencies(RopeFrequencies(16, 500000.0))
    whole = numerics.rope(x, frequencies, 17)
    assert np.array_equal(numerics.rope(x[..., 2:5], frequencies[2:5], 17), whole[..., 2:5])


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize(("rows", "pos"), [(1, 0), (1, 6), (3, 0), (3, 5)])
def test_attention(heads, kv_heads, rows, pos):
    q, k, v = randoms(5, (rows, heads, 6), (pos + rows, kv_heads, 6), (pos + rows, kv_heads, 6))
    expected = np.empty(q.shape)
    for row, head in np.ndindex(rows, heads):
        of_kv = head // (heads // kv_heads)
        seen = pos + row + 1
        scores = k[:seen, of_kv].astype(float) @ q[row, head] * 0.3
        weights = np.exp(scores - scores.max())
        expected[row, head] = weights @ v[:seen, of_kv] / weights.sum()
    assert_close(numerics.attention(q, k[:pos], v[:pos], k[pos:], v[pos:], 0.3), expected)


def in_parts(operands: list[np.ndarray], scale: float, parts: int, block: int) -> np.ndarray:
    """Attention of all parts, merged."""
    found = [numerics.attention_part(*operands, scale, part, parts, block) for part in range(parts)]
    return numerics.attention_merge(np.stack([sums for sums, _ in found]), np.stack([stats for _, stats in found]))


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (3, 1)])
@pytest.mark.parametrize(("parts", "block"), [(1, 1), (1, 64), (2, 1), (3, 4), (5, 2), (16, 1), (4, 64)])
def test_attention_by_parts(heads: int, kv_heads: int, parts: int, block: int):
    """For every position up to beyond one round of all parts, so that there are parts of no positions, and of all."""
    for rows in (1, 3):
        for pos in (0, 1, 2, 3, 7, 8, 9, 16, 31):
            q, k, v = randoms(pos, (rows, heads, 6), (pos + rows, kv_heads, 6), (pos + rows, kv_heads, 6))
            operands = [q, k[:pos], v[:pos], k[pos:], v[pos:]]
            assert_close(in_parts(operands, 0.3, parts, block), numerics.attention(*operands, 0.3))


def test_a_part_of_no_positions_adds_nothing():
    q, k = randoms(9, (2, 4, 6), (2, 2, 6))
    none = k[:0]
    sums, stats = numerics.attention_part(q, none, none, k, k, 1.0, part=1, parts=2, block=2)
    assert not sums.any()
    assert (stats == [numerics.NO_EXPONENT, 0]).all()


def test_a_row_that_sees_nothing_of_a_part():
    """Position 1 is in the second part: the first of two rows at position 0 does not see it."""
    q, k, v = randoms(10, (2, 2, 6), (2, 1, 6), (2, 1, 6))
    sums, stats = numerics.attention_part(q, k[:0], v[:0], k, v, 1.0, part=1, parts=2, block=1)
    assert not sums[0].any()
    assert (stats[0, :, 1] == 0).all()
    assert np.allclose(sums[1], v[1])
    assert (stats[1, :, 1] == 1).all()


@pytest.mark.parametrize("magnitude", [1e-3, 30.0, 1e4])
def test_parts_of_large_and_small_scores(magnitude: float):
    """The greatest exponents of the parts are far apart; none of their sums overflows or vanishes."""
    q, k, v = randoms(11, (1, 2, 6), (9, 1, 6), (9, 1, 6))
    operands = [q * np.float32(magnitude), k[:8], v[:8], k[8:], v[8:]]
    with np.errstate(over="raise", invalid="raise"):
        found = in_parts(operands, 1.0, 3, 2)
    assert np.isfinite(found).all()
    assert np.abs(found - numerics.attention(*operands, 1.0)).max() < 1e-3


def test_the_exponents_of_a_part_are_scaled_scores_to_base_two():
    """What `task.attention_part` says of its results, from the definition."""
    q, k, v = randoms(12, (1, 1, 6), (5, 1, 6), (5, 1, 6))
    sums, stats = numerics.attention_part(q, k[:4], v[:4], k[4:], v[4:], 0.7, part=0, parts=2, block=2)
    mine = [0, 1, 4]
    exponents = (k[mine, 0].astype(float) @ q[0, 0]) * 0.7 * math.log2(math.e)
    weights = 2 ** (exponents - exponents.max())
    assert_close(stats[0, 0], np.array([exponents.max(), weights.sum()]))
    assert_close(sums[0, 0], weights @ v[mine, 0])


def test_softmax_of_large_scores_does_not_overflow():
    weights = numerics.softmax(np.array([[1e30, 1e30, -1e30]], np.float32))
    assert weights.tolist() == [[0.5, 0.5, 0.0]]


def test_silu_mul_over_the_whole_range():
    gate = np.array([[-1e4, -100, -88.5, -1, -0.0, 0, 1, 88.5, 1e4]], np.float32)
    (up,) = randoms(6, gate.shape)
    expected = np.array([[g * math.exp(min(g, 0)) / (1 + math.exp(-abs(g))) for g in gate[0]]]) * up
    assert_close(numerics.silu_mul(gate, up), expected)


def test_bias_add_adds_to_every_row():
    x, bias = randoms(7, (3, 2, 4), (2, 4))
    assert_close(numerics.bias_add(x, bias), x.astype(float) + bias)


def test_gather_repeats_rows():
    (table,) = randoms(8, (5, 3))
    assert np.array_equal(numerics.gather(table, np.array([4, 0, 4], np.int32)), table[[4, 0, 4]])


def test_argmax_takes_the_lowest_index_of_ties():
    ids = numerics.argmax(np.array([[1, 3, 3], [-np.inf, -np.inf, -np.inf], [0, -1, 5]], np.float32))
    assert ids.dtype == np.int32
    assert ids.tolist() == [1, 0, 2]


def split_argmax(x: np.ndarray, stride: int, width: int, dropped_bits: int = 0) -> list[int]:
    """Argmax by parts; `dropped_bits` are cleared in the words that are handed over, as tagged words do."""
    parts = [numerics.argmax_part(x[:, at : at + width]) for at in range(0, x.shape[1] - width + 1, stride)]
    words = np.stack(parts, axis=1).view(np.uint32) & ~np.uint32(dropped_bits)
    ids = numerics.argmax_merge(words.view(np.float32), stride)
    assert ids.dtype == np.int32
    return ids.tolist()


@pytest.mark.parametrize("dropped_bits", [0, 1])
@pytest.mark.parametrize(("stride", "width"), [(1, 1), (4, 4), (4, 8), (3, 6), (12, 12)])
def test_argmax_by_parts(stride: int, width: int, dropped_bits: int):
    one = np.float32(1)
    above = np.nextafter(one, np.float32(2))
    odd_nan = np.array(0x7F800001, np.uint32).view(np.float32)  # without its lowest bit it is an infinity
    specials = np.array([0.0, -0.0, one, above, -above, np.inf, -np.inf, np.nan, odd_nan, -odd_nan], np.float32)
    rng = np.random.default_rng(stride)
    # few distinct values, so that there are ties within parts and between them
    rows = [np.full((1, 12), value, np.float32) for value in specials]
    rows += [specials[rng.choice(len(specials), size=(20, 12))] for _ in range(10)]
    rows += [specials[:5][rng.choice(5, size=(100, 12))], rng.standard_normal((20, 12)).astype(np.float32)]
    for x in rows:
        assert split_argmax(x, stride, width, dropped_bits) == x.argmax(-1).tolist()
