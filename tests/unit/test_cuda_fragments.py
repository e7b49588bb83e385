"""The fragment order of streamed weights: packing, and what mma.m16n8k16 makes of it, emulated lane by lane."""

import numpy as np
import pytest
from numpy.typing import NDArray

from amk.amk_ir.dtypes import bf16_from_f32, f32_from_bf16
from amk.backends.cuda.fragments import FragmentLayout


@pytest.mark.parametrize(("rows", "k", "stage"), [(8, 32, 512), (8, 576, 16384), (5, 33, 1024), (24, 100, 4096)])
def test_unpack_is_the_inverse(rows: int, k: int, stage: int) -> None:
    layout = FragmentLayout(rows, k, stage)
    weights = np.random.default_rng(0).integers(1, 60000, (3, rows, k), np.uint16)
    packed = layout.pack(weights)
    assert packed.nbytes == 3 * layout.task_bytes
    assert np.array_equal(layout.unpack(packed), weights)
    assert np.count_nonzero(packed) == weights.size  # what is padded is zero
    assert layout.chunk_bytes <= stage
    assert (layout.chunks - 1) * layout.chunk_bytes < layout.task_bytes <= layout.chunks * layout.chunk_bytes


def _mma(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """D of m16n8k16 from the registers of all lanes: a [32, 8], b [32, 4] elements; D is [16, 8].

    PTX: lane l holds A rows l/4 and l/4 + 8, columns 2(l%4) + {0, 1} and + 8; B column l/4, rows likewise.
    """
    matrix_a, matrix_b = np.zeros((16, 16)), np.zeros((16, 8))
    for lane in range(32):
        for i in range(8):
            matrix_a[lane // 4 + i % 4 // 2 * 8, lane % 4 * 2 + i % 2 + i // 4 * 8] = a[lane, i]
        for i in range(4):
            matrix_b[lane % 4 * 2 + i % 2 + i // 2 * 8, lane // 4] = b[lane, i]
    return matrix_a @ matrix_b


@pytest.mark.parametrize(("rows", "k", "tokens"), [(8, 64, 1), (16, 96, 2), (16, 96, 3), (5, 70, 8)])
def test_matvec_of_fragments(rows: int, k: int, tokens: int) -> None:
    generator = np.random.default_rng(1)
    weights = f32_from_bf16(bf16_from_f32(generator.standard_normal((rows, k), np.float32)))
    x = generator.standard_normal((tokens, k), np.float32)
    layout = FragmentLayout(rows, k, 16384)
    fragments = f32_from_bf16(layout.pack(bf16_from_f32(weights)[None])[0])
    fragments = fragments.reshape(layout.k_blocks, layout.groups, 32, 8)
    padded = np.zeros((8, layout.k_blocks * 32), np.float32)
    padded[:tokens, :k] = x
    hi = f32_from_bf16(bf16_from_f32(padded))
    lo = f32_from_bf16(bf16_from_f32(padded - hi))

    result = np.zeros((8, layout.groups * 8))
    lane = np.arange(32)[:, None]
    halves = np.array([[0, 1, 4, 5], [2, 3, 6, 7]])  # of a lane's elements
    for block in range(layout.k_blocks):
        # as matvec.cuh loads them
        at = block * 32 + lane % 4 * 8
        for group in range(layout.groups):
            weights_of = fragments[block, group]
            into = result[:, group * 8 : group * 8 + 8]
            if tokens <= 2:
                # a lane has one column: hi or lo of a half of a vector
                columns = at + halves[lane[:, 0] // 8 % 2]
                b = np.where(lane // 4 % 2 == 0, hi[lane // 16, columns], lo[lane // 16, columns])
                d = _mma(weights_of, b)
                for token in range(2):
                    into[token] += d[:8, token * 4 : token * 4 + 2].sum(axis=1)
                    into[token] += d[8:, token * 4 + 2 : token * 4 + 4].sum(axis=1)
            else:
                for half in halves:
                    # registers: hi, lo of the first pair, hi, lo of the second one
                    a = np.stack([hi[lane // 4, at + half], lo[lane // 4, at + half]], axis=1).reshape(32, 2, 2, 2)
                    d = _mma(a.transpose(0, 2, 1, 3).reshape(32, 8), weights_of[:, half])
                    into += d[:8] + d[8:]
    expected = x.astype(np.float64) @ weights.T.astype(np.float64)
    assert np.abs(result[:tokens, :rows] - expected).max() < 1e-4
    assert np.all(result[tokens:] == 0) and np.all(result[:, rows:] == 0)
