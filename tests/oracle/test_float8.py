"""e4m3fn against torch."""

import numpy as np
import torch

from amk.amk_ir.float8 import e4m3_from_f32, f32_from_e4m3


def test_decoding():
    bits = np.arange(256, dtype=np.uint8)
    expected = torch.from_numpy(bits).view(torch.float8_e4m3fn).float().numpy()
    np.testing.assert_array_equal(f32_from_e4m3(bits), expected)
    np.testing.assert_array_equal(np.signbit(f32_from_e4m3(bits)), np.signbit(expected))


def test_encoding():
    values = np.arange(0, 2**32, 997, dtype=np.uint64).astype(np.uint32).view(np.float32)
    values = values[np.isnan(values) | (np.abs(values) <= 464)]  # above, older versions of torch give NaN
    expected = torch.from_numpy(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    np.testing.assert_array_equal(e4m3_from_f32(values), expected)
