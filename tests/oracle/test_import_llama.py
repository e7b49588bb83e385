"""The importer against transformers: the same configuration, the same weights, the same rotary frequencies."""

from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import gguf
import numpy as np
import pytest
import torch
from tiny_models import VARIANTS, edit_json, load_reference, make_llama, write_gguf
from transformers import AutoConfig, LlamaForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from amk.amk_ir.dtypes import bf16_from_f32
from amk.amk_ir.rope import inverse_frequencies
from amk.dialects.graph import WeightOp
from amk.frontends.checkpoint import Checkpoint
from amk.frontends.import_model import ImportedModel, import_model

Directories = dict[str, Path]


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> Directories:
    """One directory for each variant."""
    folder = tmp_path_factory.mktemp("models")
    return {name: make_llama(folder / name, variant) for name, variant in VARIANTS.items()}


def checkpoint_of(model: ImportedModel) -> Checkpoint:
    assert model.checkpoint is not None
    return model.checkpoint


def assert_same_weights(model: ImportedModel, reference: dict[str, Any]) -> None:
    """Every parameter of transformers' model is a tensor of the checkpoint, bit for bit, and the other way round."""
    checkpoint = checkpoint_of(model)
    state = {n: p for n, p in reference.items() if not (n == "lm_head.weight" and model.config.tied)}
    assert state.keys() == {n for n in checkpoint.tensors if "inv_freq" not in n}
    for name, parameter in state.items():
        np.testing.assert_array_equal(checkpoint.load(name), parameter.numpy(), err_msg=name)


def gguf_state(path: Path) -> dict[str, Any]:
    """The tensors that transformers' own reader finds in a GGUF file.

    It would read the file anew for the configuration, and look up all names anew for each part of the model.
    """
    with patch.multiple(gguf, GGUFReader=cache(gguf.GGUFReader), get_tensor_name_map=cache(gguf.get_tensor_name_map)):
        config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        return load_gguf_checkpoint(path, return_tensors=True, model_to_load=model)["tensors"]


def symbols(model: ImportedModel) -> set[str]:
    return {op.sym_name.data for op in model.module.walk() if isinstance(op, WeightOp)}


@pytest.mark.parametrize("name", VARIANTS)
def test_directory(directories: Directories, name: str):
    model, theirs = import_model(directories[name]), AutoConfig.from_pretrained(directories[name])
    ours = model.config
    assert (ours.vocab, ours.hidden, ours.intermediate) == (
        theirs.vocab_size, theirs.hidden_size, theirs.intermediate_size,
    )  # fmt: skip
    assert (ours.layers, ours.heads, ours.kv_heads, ours.head_dim) == (
        theirs.num_hidden_layers, theirs.num_attention_heads, theirs.num_key_value_heads, theirs.head_dim,
    )  # fmt: skip
    assert (ours.norm_eps, ours.max_position) == (theirs.rms_norm_eps, theirs.max_position_embeddings)
    assert (ours.tied, ours.attention_bias, ours.mlp_bias) == (
        theirs.tie_word_embeddings, theirs.attention_bias, theirs.mlp_bias,
    )  # fmt: skip
    assert_same_weights(model, load_reference(directories[name]).state_dict())
    assert ("head" in symbols(model)) != ours.tied
    assert ({"q_bias", "o_bias"} <= symbols(model)) == ours.attention_bias
    assert ({"gate_bias", "down_bias"} <= symbols(model)) == ours.mlp_bias


@pytest.mark.parametrize("name", VARIANTS)
def test_rotary_frequencies(directories: Directories, name: str):
    theirs = load_reference(directories[name]).model.rotary_emb
    assert theirs.attention_scaling == 1.0
    ours = inverse_frequencies(import_model(directories[name]).config.rope)
    np.testing.assert_allclose(ours, theirs.inv_freq.numpy(), rtol=3e-7, atol=0)


@pytest.mark.parametrize("name", VARIANTS)
def test_bf16_is_what_torch_rounds_to(directories: Directories, name: str):
    checkpoint = checkpoint_of(import_model(directories[name]))
    for key, parameter in load_reference(directories[name], "bfloat16").state_dict().items():
        if key in checkpoint.tensors:
            expected = parameter.view(torch.uint16).numpy()
            np.testing.assert_array_equal(checkpoint.load(key, "bf16"), expected, err_msg=key)


def test_version_4_layout(directories: Directories, tmp_path: Path):
    """What transformers 4 wrote for llama3 scaling is read as transformers reads it."""
    new = import_model(directories["rope_llama3"])
    rope = dict(new.raw_config["rope_parameters"])
    edit_json(
        make_llama(tmp_path, VARIANTS["rope_llama3"]) / "config.json",
        ("rope_parameters",),
        rope_theta=rope.pop("rope_theta"),
        rope_scaling=rope,
        torch_dtype="bfloat16",
    )
    old = import_model(tmp_path)
    assert old.config == new.config
    theirs = load_reference(tmp_path).model.rotary_emb.inv_freq.numpy()
    np.testing.assert_allclose(inverse_frequencies(old.config.rope), theirs, rtol=3e-7, atol=0)


@pytest.mark.parametrize("name", [n for n, v in VARIANTS.items() if not (v.attention_bias or v.mlp_bias)])
@pytest.mark.parametrize("quantisation", ["F32", "Q8_0"])
def test_gguf_as_transformers_loads_it(directories: Directories, tmp_path: Path, name: str, quantisation: str):
    path = write_gguf(directories[name], tmp_path / "m.gguf", quantisation)
    ours = import_model(path)
    assert_same_weights(ours, gguf_state(path))
    if quantisation == "F32":
        assert_same_weights(ours, load_reference(directories[name]).state_dict())


@pytest.mark.parametrize("name", VARIANTS)
def test_gguf_gives_the_original_back(directories: Directories, tmp_path: Path, name: str):
    ours = import_model(write_gguf(directories[name], tmp_path / "m.gguf"))
    reference = load_reference(directories[name])
    assert_same_weights(ours, reference.state_dict())
    if VARIANTS[name].rope and VARIANTS[name].rope["rope_type"] == "llama3":
        frequencies = checkpoint_of(ours).load("model.rotary_emb.inv_freq")
    else:
        assert ours.config == import_model(directories[name]).config
        frequencies = inverse_frequencies(ours.config.rope)
    np.testing.assert_allclose(frequencies, reference.model.rotary_emb.inv_freq.numpy(), rtol=1e-6, atol=0)


def test_smollm2_as_transformers_loads_it():
    """The model of the demo, whole: Q4_1 and Q8_0, tied, 30 layers."""
    ours = import_model("smollm2-135m-instruct")
    assert ours.path is not None
    assert_same_weights(ours, gguf_state(ours.path))
    checkpoint = checkpoint_of(ours)
    name = "model.layers.7.self_attn.k_proj.weight"
    np.testing.assert_array_equal(checkpoint.load(name, "bf16"), bf16_from_f32(checkpoint.load(name)))
