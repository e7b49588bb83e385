"""safetensors files: whole, sharded, and damaged in every way."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny_models import make_plain_llama, plain_tensors

from amk.amk_ir.dtypes import bf16_from_f32, f32_from_bf16
from amk.amk_ir.errors import CheckpointError
from amk.frontends.import_model import import_model
from amk.frontends.safetensors_checkpoint import SafetensorsCheckpoint, read_header


def write(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(begin: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_what_safetensors_wrote(tmp_path: Path):
    checkpoint = SafetensorsCheckpoint(make_plain_llama(tmp_path))
    expected = plain_tensors()
    assert checkpoint.tensors.keys() == expected.keys()
    for name, values in expected.items():
        assert checkpoint.info(name).shape == values.shape
        np.testing.assert_array_equal(checkpoint.load(name), values)
        np.testing.assert_array_equal(checkpoint.load(name, "bf16"), bf16_from_f32(values))


def test_does_not_copy_float32(tmp_path: Path):
    values = SafetensorsCheckpoint(make_plain_llama(tmp_path)).load("lm_head.weight")
    assert not values.flags.owndata
    assert not values.flags.writeable


def test_types(tmp_path: Path):
    values = np.array([1.5, -2.25, 1e-3], np.float32)
    bits = bf16_from_f32(values)
    half = values.astype(np.float16)
    data = values.tobytes() + half.tobytes() + bits.tobytes() + b"\0" * 3
    header = {
        "__metadata__": {"format": "pt"},
        "a": entry(0, 12, [3]),
        "b": entry(12, 18, [3, 1], "F16"),
        "c": entry(18, 24, [3], "BF16"),
        "d": entry(24, 27, [3], "F8_E4M3"),
    }
    write(tmp_path / "model.safetensors", header, data)
    checkpoint = SafetensorsCheckpoint(tmp_path)
    np.testing.assert_array_equal(checkpoint.load("a"), values)
    np.testing.assert_array_equal(checkpoint.load("b"), half.astype(np.float32)[:, None])
    np.testing.assert_array_equal(checkpoint.load("c"), f32_from_bf16(bits))
    np.testing.assert_array_equal(checkpoint.load("c", "bf16"), bits)
    with pytest.raises(CheckpointError, match="'d': cannot read its type F8_E4M3; supported types: F32"):
        checkpoint.load("d")
    with pytest.raises(CheckpointError, match="no tensor 'e' among the 4"):
        checkpoint.load("e")


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{", b"", "header: not valid JSON"),
        (b"\xff\xfe", b"", "header: not valid JSON"),
        ([], b"", "expected a JSON object, found list"),
        (b'{"a": {}, "a": {}}', b"", "key 'a' appears twice"),
        ({"a": 3}, b"", "tensor 'a': expected dtype, shape and data_offsets, found 3"),
        ({"a": {"dtype": "F32", "shape": [1]}}, b"", "expected dtype, shape and data_offsets"),
        ({"a": entry(0, 4, [-1])}, b"1234", "expected dtype, shape and data_offsets"),
        ({"a": entry(0, 4, [True])}, b"1234", "expected dtype, shape and data_offsets"),  # type: ignore[list-item]
        ({"a": entry(0, 4, [1], "F13")}, b"1234", "tensor 'a': unknown type F13"),
        ({"a": entry(0, 4, [2])}, b"1234", r"F32 of shape \[2\] has 8 bytes, but the header gives it 4"),
        ({"a": entry(8, 4, [1])}, b"1234", "gives it -4"),
        ({"a\nb": 3}, b"", r"tensor 'a\\nb': expected dtype"),
        ({"a\r": entry(0, 4, [1], "F\n")}, b"1234", r"tensor 'a\\r': unknown type F\\n"),
        ({"a\n": entry(4, 8, [1])}, b"12345678", r"'a\\n' leaves a gap before it"),
        (b'{"a\\n": {}, "a\\n": {}}', b"", r"key 'a\\n' appears twice"),
        ({"a": entry(0, 4, [1]), "b": entry(0, 4, [1])}, b"1234", "'b' overlaps the tensor before it"),
        ({"a": entry(4, 8, [1])}, b"12345678", "'a' leaves a gap before it"),
        ({"a": entry(0, 8, [2])}, b"1234567", "truncated: the tensors need"),
        ({"a": entry(0, 8, [2])}, b"123456789", "corrupt: the tensors need"),
    ],
)
def test_damaged_file(tmp_path: Path, header: object, data: bytes, message: str):
    path = write(tmp_path / "model.safetensors", header, data)
    with pytest.raises(CheckpointError, match=message) as error:
        SafetensorsCheckpoint(tmp_path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"1234", "truncated: a safetensors file has 8 bytes or more, found 4"),
        (b"\xff" * 8, "not a safetensors file"),
        (b"\x40" + b"\0" * 7 + b"{}", "truncated: the header needs 72 bytes, found 10"),
    ],
)
def test_damaged_start(tmp_path: Path, data: bytes, message: str):
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        SafetensorsCheckpoint(tmp_path)


def test_truncated_anywhere(tmp_path: Path):
    path = make_plain_llama(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    for size in range(0, len(whole), 997):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read_header(path)


def test_no_weights(tmp_path: Path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"expected model\.safetensors or .*, found only pytorch_model\.bin"):
        SafetensorsCheckpoint(tmp_path)


def make_shards(directory: Path) -> dict[str, str]:
    """Two shards of one tensor each, and their index."""
    for i, name in enumerate("ab"):
        write(directory / f"shard{i}.safetensors", {name: entry(0, 4, [1])}, bytes(4))
    weight_map = {"a": "shard0.safetensors", "b": "shard1.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


def test_shards(tmp_path: Path):
    make_shards(tmp_path)
    checkpoint = SafetensorsCheckpoint(tmp_path)
    assert [f.name for f in checkpoint.files] == ["shard0.safetensors", "shard1.safetensors"]
    assert checkpoint.load("b").shape == (1,)


def test_missing_shard(tmp_path: Path):
    make_shards(tmp_path)
    (tmp_path / "shard1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"shard1\.safetensors: this shard is missing"):
        SafetensorsCheckpoint(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": "shard0.safetensors"}, r"shard0\.safetensors: tensor 'b' is not in it"),
        ({"c": "shard1.safetensors"}, "tensor 'c' is not in it"),
        ({"a": "../shard0.safetensors"}, "is not the name of a safetensors file in the same directory"),
        ({"a": "shard1.safetensors"}, "tensor 'a' is not in it"),
    ],
)
def test_index_contradicts_shards(tmp_path: Path, change: dict[str, str], message: str):
    weight_map = {**make_shards(tmp_path), **change}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=message):
        SafetensorsCheckpoint(tmp_path)


def test_shard_with_unnamed_tensor(tmp_path: Path):
    make_shards(tmp_path)
    write(tmp_path / "shard1.safetensors", {"b": entry(0, 4, [1]), "x": entry(4, 8, [1])}, bytes(8))
    with pytest.raises(CheckpointError, match=r"has tensor 'x', but model\.safetensors\.index\.json does not name it"):
        SafetensorsCheckpoint(tmp_path)


@pytest.mark.parametrize("text", ["{}", '{"weight_map": {}}', '{"weight_map": 3}', "["])
def test_damaged_index(tmp_path: Path, text: str):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"index\.json: "):
        SafetensorsCheckpoint(tmp_path)


def test_stale_file_next_to_an_index(tmp_path: Path):
    """The single file counts, as in transformers; an error about it says that there are shards, too."""
    tensors = plain_tensors()
    make_plain_llama(tmp_path, tensors)
    make_shards(tmp_path)
    import_model(tmp_path)
    make_plain_llama(tmp_path, {k: v for k, v in tensors.items() if k != "lm_head.weight"})
    with pytest.raises(CheckpointError) as error:
        import_model(tmp_path)
    assert "tensor 'lm_head.weight' is missing" in str(error.value)
    assert "model.safetensors was read, and not model.safetensors.index.json next to it" in str(error.value)
