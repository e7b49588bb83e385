"""GGUF matrices kept quantised: the same values, to the bit, as the gguf package dequantises."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from tiny_models import PLAIN_CONFIG, make_plain_llama, plain_tensors, write_gguf

from amk.amk_ir.errors import CheckpointError
from amk.frontends.import_model import import_model
from amk.frontends.quantized.gguf_blocks import FORMATS, from_blocks

TEXTS = {
    "Q8_0": "int8:g32:f16",
    "Q4_0": "int4:g32:f16",
    "Q4_1": "int4:g32:min:f16",
    "Q4_K": "int4:g32:min",
    "Q6_K": "int8:g16",
}
SCALES = {"Q8_0": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q4_K": (0, 2), "Q6_K": (208,)}
"""Where the float16 scales lie in a block."""


def random_blocks(kind: str, rows: int, seed: int = 0) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Blocks of random bits with finite scales of all magnitudes and signs."""
    random = np.random.default_rng(seed)
    blocks = random.integers(0, 256, (rows, gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][1]), np.uint8)
    for at in SCALES[kind]:
        scales = (random.normal(0, 1, rows) * 10.0 ** random.integers(-7, 4, rows)).astype(np.float16)
        blocks[:, at : at + 2] = scales[:, None].view(np.uint8)
    return blocks


def test_formats():
    assert {kind: str(format) for kind, format in FORMATS.items()} == TEXTS


@pytest.mark.parametrize("kind", TEXTS)
def test_blocks_are_exact(kind: str):
    per_block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]][0]
    blocks = random_blocks(kind, 4000)
    tensor = from_blocks(kind, blocks, (400, 10 * per_block))
    tensor.validate(kind)
    expected = gguf.quants.dequantize(blocks.reshape(400, -1), gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(tensor.dequantize(), expected)
    lowest, highest = (-32, 31) if kind == "Q6_K" else tensor.format.code_range
    assert (tensor.codes.min(), tensor.codes.max()) == (lowest, highest)


@pytest.fixture(scope="module", params=TEXTS)
def model_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A model whose matrices are of one type: 256 columns, so that every kind of block divides its rows."""
    folder = tmp_path_factory.mktemp("gguf")
    config = {**PLAIN_CONFIG, "hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
    config |= {"num_attention_heads": 4, "num_key_value_heads": 2}
    config["rope_parameters"] = {"rope_theta": 10000.0, "rope_type": "default"}
    make_plain_llama(folder, plain_tensors(config), ("rope_theta",), **config)
    return request.param, write_gguf(folder, folder / "m.gguf", request.param)


def test_kept_quantized(model_file: tuple[str, Path]):
    kind, path = model_file
    checkpoint = import_model(path).checkpoint
    assert checkpoint is not None
    for name, info in checkpoint.tensors.items():
        tensor = checkpoint.quantized(name)
        if len(info.shape) == 1:
            assert tensor is None
            continue
        assert tensor is not None
        assert info.dtype == kind
        assert info.quantized == tensor.format == FORMATS[kind]
        # q and k rows too, which llama.cpp stores in another order
        np.testing.assert_array_equal(tensor.dequantize(), checkpoint.load(name))


def test_damaged_scales(model_file: tuple[str, Path], tmp_path: Path):
    kind, path = model_file
    info = import_model(path).checkpoint.info("model.layers.1.mlp.up_proj.weight")  # type: ignore[union-attr]
    data = bytearray(path.read_bytes())
    at = info.offset + SCALES[kind][-1]
    data[at : at + 2] = np.float16(np.nan).tobytes()
    (tmp_path / "m.gguf").write_bytes(data)
    checkpoint = import_model(tmp_path / "m.gguf").checkpoint
    assert checkpoint is not None
    with pytest.raises(
        CheckpointError, match=r"tensor 'blk.1.ffn_up.weight' .*: (scale|minimum) \[0, 0\]: expected a finite"
    ):
        checkpoint.quantized(info.name)
    with pytest.raises(
        CheckpointError, match=rf"tensor 'blk.1.ffn_up.weight' .*: {kind} block 0: expected finite scales"
    ):
        checkpoint.load(info.name)
