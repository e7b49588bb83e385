"""GGUF files: the container, and the model in it, with the numbers compared with the gguf package."""

import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tiny_models import PLAIN_CONFIG, make_plain_llama, plain_tensors, write_gguf

from amk.amk_ir.attrs import CheckpointAttr, RopeFrequencies
from amk.amk_ir.dtypes import bf16_from_f32
from amk.amk_ir.errors import AmkError, CheckpointError, ConfigError
from amk.amk_ir.rope import inverse_frequencies
from amk.dialects.graph import WeightOp
from amk.frontends.gguf_file import GgufFile
from amk.frontends.import_model import import_model

ROPE = {"rope_theta": 10000.0, "rope_type": "default"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory to convert: 64 columns, so that blocks of 32 divide its rows."""
    config = {**PLAIN_CONFIG, "hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "rope_parameters": ROPE}
    return make_plain_llama(tmp_path_factory.mktemp("source"), plain_tensors(config), ("rope_theta",), **config)


@pytest.fixture
def plain(source: Path, tmp_path: Path) -> Path:
    """That model as F32."""
    return write_gguf(source, tmp_path / "plain.gguf")


def test_container_agrees_with_the_gguf_package(plain: Path):
    ours, theirs = GgufFile(plain), gguf.GGUFReader(plain)
    assert list(ours.tensors) == [t.name for t in theirs.tensors]
    for t in theirs.tensors:
        mine = ours.tensors[t.name]
        assert (mine.shape, mine.type) == (tuple(reversed(t.shape.tolist())), t.tensor_type)
        assert (mine.offset, mine.nbytes) == (t.data_offset, t.n_bytes)
    fields = {k: v.contents() for k, v in theirs.fields.items() if not k.startswith("GGUF.")}
    assert ours.metadata == fields


def test_metadata_of_every_type(tmp_path: Path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    values: dict[str, Any] = {"b": True, "s": "ü", "f": 0.5, "l": [1, 2, 3], "t": ["a", "", "c"], "g": [0.5, 1.5]}
    writer.add_bool("b", True)
    writer.add_string("s", "ü")
    writer.add_float32("f", 0.5)
    for key in "ltg":
        writer.add_array(key, values[key])
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        values[name] = 100
        getattr(writer, f"add_{name}")(name, 100)
    values["float64"] = 0.1
    writer.add_float64("float64", 0.1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    read = GgufFile(tmp_path / "m.gguf").metadata
    for key, value in values.items():
        found = read[key].tolist() if isinstance(read[key], np.ndarray) else read[key]
        assert found == value, key


@pytest.mark.parametrize("quantisation", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1"])
def test_dequantises_as_the_gguf_package(source: Path, tmp_path: Path, quantisation: str):
    path = write_gguf(source, tmp_path / "q.gguf", quantisation)
    checkpoint = import_model(path).checkpoint
    assert checkpoint is not None
    assert checkpoint.tensors.keys() == plain_tensors().keys()
    theirs = {t.name: t for t in gguf.GGUFReader(path).tensors}
    for name, info in checkpoint.tensors.items():
        stored = theirs[info.stored_name]
        expected = gguf.quants.dequantize(stored.data, stored.tensor_type)
        if "q_proj" in name or "k_proj" in name:  # row h*32 + 2i + j of the file is row h*32 + j*16 + i of the model
            rows = np.arange(info.shape[0])
            row = rows // 32 * 32 + rows % 16 * 2 + rows % 32 // 16
            expected = expected[row]
        assert info.dtype == (quantisation if len(info.shape) == 2 else "F32")
        np.testing.assert_array_equal(checkpoint.load(name), expected)
        np.testing.assert_array_equal(checkpoint.load(name, "bf16"), bf16_from_f32(expected))


@pytest.mark.parametrize("quantisation", ["Q4_K", "Q6_K"])
def test_k_quants(tmp_path: Path, quantisation: str):
    config = {
        **PLAIN_CONFIG,
        "hidden_size": 256,
        "intermediate_size": 256,
        "head_dim": 256,
        "num_attention_heads": 1,
        "rope_parameters": ROPE,
    }
    make_plain_llama(tmp_path, plain_tensors(config), **config)
    path = write_gguf(tmp_path, tmp_path / "k.gguf", quantisation)
    checkpoint = import_model(path).checkpoint
    assert checkpoint is not None
    values = checkpoint.load("model.layers.1.mlp.down_proj.weight")
    (stored,) = (t for t in gguf.GGUFReader(path).tensors if t.name == "blk.1.ffn_down.weight")
    assert stored.tensor_type.name == quantisation
    np.testing.assert_array_equal(values, gguf.quants.dequantize(stored.data, stored.tensor_type))
    assert np.isfinite(values).all()
    assert values.std() > 0


def test_unpermutes_to_the_original(source: Path, plain: Path):
    gguf_model, model = import_model(plain), import_model(source)
    assert gguf_model.config == model.config
    assert gguf_model.checkpoint is not None
    assert model.checkpoint is not None
    for name in model.checkpoint.tensors:
        np.testing.assert_array_equal(gguf_model.checkpoint.load(name), model.checkpoint.load(name))


def test_unsupported_quantisation(source: Path, tmp_path: Path):
    path = write_gguf(source, tmp_path / "q.gguf", "Q5_0")
    with pytest.raises(
        CheckpointError, match=r"tensor '.*: unsupported type Q5_0; supported types: F32, F16, BF16, Q8_0"
    ):
        import_model(path)


def test_rope_factors_scale_the_frequencies(source: Path, tmp_path: Path):
    rope = {**ROPE, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope["original_max_position_embeddings"] = 32
    config = {**PLAIN_CONFIG, "hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "rope_parameters": rope}
    make_plain_llama(tmp_path, plain_tensors(config), ("rope_theta",), **config)
    model = import_model(write_gguf(tmp_path, tmp_path / "m.gguf"))
    (op,) = (op for op in model.module.walk() if isinstance(op, WeightOp) and op.sym_name.data == "inv_freq")
    assert isinstance(op.source, CheckpointAttr)
    assert model.checkpoint is not None
    expected = inverse_frequencies(RopeFrequencies(32, 10000.0, "llama3", 8.0, 1.0, 4.0, 32))
    found = model.checkpoint.load(op.source.data)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (found != inverse_frequencies(RopeFrequencies(32, 10000.0))).any()


@pytest.mark.parametrize(
    ("metadata", "error", "message"),
    [
        ({"llama__attention__sliding_window": 512}, ConfigError, "'llama.attention.sliding_window': only"),
        ({"llama__expert_count": 8}, ConfigError, "'llama.expert_count': only"),
        ({"llama__logit_scale": 2.0}, ConfigError, "'llama.logit_scale': unknown setting 2.0"),
        ({"llama__attention__scale": 0.5}, ConfigError, "'llama.attention.scale': unknown setting"),
        ({"llama__rope__scaling__type": "yarn"}, ConfigError, "'llama.rope.scaling.type': only \"none\" or \"linear\""),
        ({"llama__rope__scaling__factor": 4.0}, ConfigError, "'llama.rope.scaling.factor'"),
        ({"split__count": 2}, ConfigError, "'split.count'"),
        ({"general__type": "adapter"}, ConfigError, "'general.type': only \"model\" is supported, found \"adapter\""),
        ({"general__alignment": 3}, CheckpointError, "general.alignment must be a power of two, found 3"),
    ],
)  # fmt: skip
def test_refused_metadata(source: Path, tmp_path: Path, metadata: dict[str, Any], error: type[AmkError], message: str):
    path = write_gguf(source, tmp_path / "m.gguf", **metadata)
    with pytest.raises(error) as raised:
        import_model(path)
    assert message in str(raised.value)
    assert str(raised.value).startswith(str(path))


def replace_u32(path: Path, key: str, value: int) -> Path:
    """Overwrites a uint32 metadata value in place."""
    data = bytearray(path.read_bytes())
    at = data.index(key.encode()) + len(key)
    assert data[at : at + 4] == struct.pack("<I", 4)
    data[at + 4 : at + 8] = struct.pack("<I", value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("llama.block_count", 0, "'llama.block_count': expected a positive integer, found 0"),
        ("llama.block_count", 1, "blk.1.attn_norm.weight' (model.layers.1.input_layernorm.weight): unexpected"),
        ("llama.block_count", 3, "tensor 'model.layers.2.input_layernorm.weight' is missing"),
        ("llama.attention.head_count_kv", 2, "'llama.attention.head_count_kv': expected a divisor of"),
        ("llama.rope.dimension_count", 16, "'llama.rope.dimension_count': only 32 is supported, found 16"),
        ("llama.attention.value_length", 16, "'llama.attention.value_length': only 32 is supported, found 16"),
        ("llama.vocab_size", 38, "expected shape [38, 64] by the configuration, found [37, 64]"),
    ],
)
def test_metadata_that_contradicts(plain: Path, key: str, value: int, message: str):
    with pytest.raises((ConfigError, CheckpointError)) as error:
        import_model(replace_u32(plain, key, value))
    assert message in str(error.value)


def test_unknown_architecture(tmp_path: Path):
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ConfigError, match=r"m\.gguf: unknown architecture 'mamba'; supported: llama"):
        import_model(tmp_path / "m.gguf")


def test_truncated_anywhere(plain: Path):
    whole = plain.read_bytes()
    for size in (*range(0, 2500, 7), *range(2500, len(whole), 2003)):
        plain.write_bytes(whole[:size])
        with pytest.raises(CheckpointError) as error:
            import_model(plain)
        assert str(error.value).startswith(f"{plain}: ")


def test_corrupt_header_never_hangs_or_escapes(plain: Path):
    """Any byte of the header may be anything: a typed error, or a model that happens to be one."""
    whole = plain.read_bytes()
    header = min(t.offset for t in GgufFile(plain).tensors.values())
    for at in range(0, header, 11):
        for byte in (0x00, 0x7F, 0xFF):
            plain.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            try:
                import_model(plain)
            except AmkError as e:
                assert "\n" not in str(e)  # noqa: PT017


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"PK\3\4", "not a GGUF file"),
        (b"GGUF" + struct.pack(">I", 3), "a big-endian file of GGUF"),
        (b"GGUF" + struct.pack("<I", 9), "version 9 of GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**62, 0), "truncated or corrupt"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**62), "truncated or corrupt"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63), "truncated or corrupt: a metadata key"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<IIQ", 9, 8, 2**60), "metadata key 'k'"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"k" + struct.pack("<I", 99), "has the unknown type 99"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1) + b"\xff" + struct.pack("<I", 4), "not valid UTF-8"),
    ],
)
def test_damaged_start(tmp_path: Path, data: bytes, message: str):
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        import_model(path)


def rewrite(
    source: Path,
    path: Path,
    *,
    without: tuple[str, ...] = (),
    arrays: dict[str, list[int]] | None = None,
    rename: dict[str, str] | None = None,
    extra: dict[str, Any] | None = None,
) -> Path:
    """A copy of a GGUF file with keys left out, replaced by arrays, and tensors renamed or added."""
    reader, arrays, rename = gguf.GGUFReader(source), arrays or {}, rename or {}
    writer = gguf.GGUFWriter(path, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", *without, *arrays):
            continue
        value = field.contents()
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(key, value)
    for key, values in arrays.items():
        writer.add_array(key, values)
    for t in reader.tensors:
        writer.add_tensor(rename.get(t.name, t.name), t.data)
    for name, values in (extra or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_rewritten_is_the_same(plain: Path, tmp_path: Path):
    keys = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
    metadata = GgufFile(plain).metadata
    arrays = {f"llama.{key}": 2 * [metadata[f"llama.{key}"]] for key in keys}
    assert import_model(rewrite(plain, tmp_path / "r.gguf", arrays=arrays)).config == import_model(plain).config


@pytest.mark.parametrize(
    ("rename", "name"),
    [
        ({"blk.0.attn_q.weight": "model.layers.0.self_attn.q_proj.weight"}, "model.layers.0.self_attn.q_proj.weight"),
        ({"output_norm.weight": "model.norm.weight"}, "model.norm.weight"),
        ({"blk.0.attn_q.weight": "blk.{layer}.attn_q.weight"}, "blk.{layer}.attn_q.weight"),
        ({"blk.0.attn_q.weight": "blk.00.attn_q.weight"}, "blk.00.attn_q.weight"),
        ({"blk.0.attn_q.weight": "blk.0.attn\nq"}, r"blk.0.attn\nq"),
    ],
)
def test_only_gguf_names(plain: Path, tmp_path: Path, rename: dict[str, str], name: str):
    """A canonical name would be taken for a tensor in the layout of Hugging Face."""
    path = rewrite(plain, tmp_path / "r.gguf", rename=rename)
    with pytest.raises(CheckpointError) as error:
        import_model(path)
    assert str(error.value).startswith(f"{path}: tensor '{name}': unexpected")
    assert "\n" not in str(error.value)


def test_stored_frequencies_are_not_taken(plain: Path, tmp_path: Path):
    name = "model.rotary_emb.inv_freq"
    path = rewrite(plain, tmp_path / "r.gguf", extra={name: np.full(16, 3, np.float32)})
    with pytest.raises(
        CheckpointError, match=f"tensor '{name}': unexpected: GGUF files of such a model have no tensor"
    ):
        import_model(path)


def test_layer_number_beyond_integers(plain: Path, tmp_path: Path):
    path = rewrite(plain, tmp_path / "r.gguf", extra={f"blk.{'9' * 5000}.attn_q.weight": np.zeros(4, np.float32)})
    with pytest.raises(CheckpointError, match="unexpected"):
        import_model(path)


@pytest.mark.parametrize(
    "key",
    [
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
    ],
)
def test_required_keys(plain: Path, tmp_path: Path, key: str):
    path = rewrite(plain, tmp_path / "r.gguf", without=(f"llama.{key}",))
    with pytest.raises(ConfigError) as error:
        import_model(path)
    assert str(error.value).startswith(f"{path}: 'llama.{key}': missing")


@pytest.mark.parametrize("count", [1, 3, 9])
def test_array_for_another_number_of_layers(plain: Path, tmp_path: Path, count: int):
    path = rewrite(plain, tmp_path / "r.gguf", arrays={"llama.attention.head_count_kv": count * [1]})
    with pytest.raises(ConfigError) as error:
        import_model(path)
    assert f"'llama.attention.head_count_kv': has {count} values, one for each layer, but 'block_count' is 2" in str(
        error.value
    )


def test_control_characters_in_a_key(source: Path, tmp_path: Path):
    path = write_gguf(source, tmp_path / "m.gguf", **{"llama__a\nb\x1b[2J": 1})
    with pytest.raises(ConfigError) as error:
        import_model(path)
    assert str(error.value).startswith(rf"{path}: 'llama.a\nb\x1b[2J': unknown setting 1")
    data = b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 3) + b"a\nb" + struct.pack("<I", 99)
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"metadata key 'a\\nb' has the unknown type 99"):
        import_model(path)
