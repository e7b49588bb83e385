"""Every key of a configuration counts: used, harmless, or refused by name."""

from pathlib import Path
from typing import Any

import pytest
from tiny_models import PLAIN_CONFIG

from amk.amk_ir.errors import ConfigError, UsageError
from amk.frontends.import_model import import_config
from amk.frontends.recipe import DecoderConfig

LLAMA_8B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.42.3",
    "use_cache": True,
    "vocab_size": 128256,
}


def read(remove: tuple[str, ...] = (), **changes: Any) -> DecoderConfig:
    config = {k: v for k, v in PLAIN_CONFIG.items() if k not in remove}
    return import_config({**config, **changes}).config


def test_whole_8b_without_weights():
    model = import_config(LLAMA_8B, name="Llama 3.1 8B", max_seq=4096, weight_dtype="bf16", kv_dtype="bf16")
    assert model.checkpoint is None
    assert (model.config.head_dim, model.config.rope.scaling, model.name) == (128, "llama3", "llama_3_1_8b")
    text = str(model.module)
    assert "graph.weight @q_proj layers 32" in text
    assert "tensor<32x128x4096xbf16>" in text
    assert "@attn_norm layers 32" in text
    assert "tensor<4096x8x128xbf16>" in text
    with pytest.raises(UsageError, match="has no tokenizer"):
        model.load_tokenizer()


def test_defaults_of_absent_keys():
    config = read(remove=("num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta", "tie_word_embeddings"))
    assert (config.kv_heads, config.head_dim, config.norm_eps, config.rope.theta) == (3, 8, 1e-6, 10000.0)
    assert not config.tied


def test_null_is_absent():
    config = read(num_key_value_heads=None, head_dim=None, rope_scaling=None, sliding_window=None, pretraining_tp=None)
    assert (config.kv_heads, config.head_dim) == (3, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_act": "gelu"}, "'hidden_act': only \"silu\" is supported, found \"gelu\""),
        ({"pretraining_tp": 2}, "'pretraining_tp': only 1 is supported, found 2"),
        ({"sliding_window": 4096}, "'sliding_window': only no such setting is supported, found 4096"),
        ({"quantization_config": {"bits": 4}}, "'quantization_config'"),
        ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor'"),
        ({"rope_interleaved": True}, "'rope_interleaved'"),
        ({"layer_types": ["sliding_attention", "full_attention"]}, "'layer_types'"),
        ({"logits_scaling": 8.0}, "'logits_scaling': unknown setting 8.0: it may change what the model computes"),
        ({"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}, "'auto_map'"),
        ({"pruned_heads": {"0": [1]}}, "'pruned_heads'"),
        ({"num_hidden_layers": 0}, "'num_hidden_layers': expected a positive integer, found 0"),
        ({"hidden_size": -8}, "'hidden_size': expected a positive integer, found -8"),
        ({"vocab_size": "37"}, "'vocab_size': expected a positive integer"),
        ({"vocab_size": True}, "'vocab_size': expected a positive integer, found true"),
        ({"intermediate_size": 4.0}, "'intermediate_size': expected a positive integer, found 4.0"),
        ({"num_attention_heads": 0}, "'num_attention_heads'"),
        ({"num_key_value_heads": 2}, "'num_key_value_heads': expected a divisor of num_attention_heads = 3, found 2"),
        ({"num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": None}, "5 does not divide hidden_size = 24, and there is no head_dim"),
        ({"head_dim": 7}, "'head_dim': expected an even number up to 256, found 7"),
        ({"head_dim": 258}, "'head_dim': expected an even number up to 256, found 258"),
        ({"head_dim": 0}, "'head_dim': expected a positive integer, found 0"),
        ({"rms_norm_eps": 0}, "'rms_norm_eps': expected a positive number, found 0"),
        ({"rms_norm_eps": float("nan")}, "'rms_norm_eps': expected a positive number, found NaN"),
        ({"rope_theta": -1.0}, "'rope_theta': expected a positive number"),
        ({"tie_word_embeddings": None}, "'tie_word_embeddings': expected true or false, found null"),
        ({"tie_word_embeddings": 1}, "'tie_word_embeddings': expected true or false, found 1"),
        ({"attention_bias": "no"}, "'attention_bias': expected true or false"),
        ({"architectures": ["MambaForCausalLM"]}, "unknown architecture 'MambaForCausalLM'; supported: LlamaForCausalLM"),
        ({"architectures": []}, "'architectures': expected a list of one name"),
        ({"architectures": None}, "'architectures': expected a list of one name, found None"),
        ({"model_type": "mistral"}, "'model_type': expected llama with LlamaForCausalLM, found 'mistral'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "unsupported rope type 'yarn'; supported types: default"),
        ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, "unsupported rope type 'dynamic'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "rope_scaling: 'factor': expected a positive number, found nothing"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, "'factor': expected a positive number, found 0"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta": 1}}, "'beta': unknown setting"),
        ({"rope_scaling": {"rope_type": "linear", "type": "llama3", "factor": 2}}, "contradicts 'type'"),
        ({"rope_scaling": {"factor": 2.0}}, "rope_scaling: 'factor': unknown setting"),
        ({"rope_scaling": [1]}, "'rope_scaling': expected an object"),
        ({"rope_scaling": 0}, "'rope_scaling': expected an object, found 0"),
        *(
            ({key: wrong, other: {"rope_type": "default"}}, f"'{key}': expected an object, found {wrong!r}")
            for key, other in (("rope_parameters", "rope_scaling"), ("rope_scaling", "rope_parameters"))
            for wrong in ([1], 3, "x")
        ),
        ({"num_hidden_layers": 10_001}, "'num_hidden_layers': expected at most 10000, found 10001"),
        ({"vocab_size": 2**31 - 1, "hidden_size": 2**31 - 1}, "model.embed_tokens.weight would have 4611686014132420609 elements"),
        ({"a\nb\u2028\x1b": 1}, r"'a\nb\u2028\x1b': unknown setting 1"),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, "'rope_theta': 10000.0 contradicts 500000.0"),
        (
            {"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": {"rope_type": "default"}},
            "contradicts 'rope_scaling'",
        ),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}}, "'partial_rotary_factor'"),
        (
            {"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}},
            "'high_freq_factor': expected more than low_freq_factor",
        ),
    ],
)  # fmt: skip
def test_refused(changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError) as error:
        read(**changes)
    assert message in str(error.value)
    assert str(error.value).startswith("configuration: ")
    assert "\n" not in str(error.value)


def test_both_rope_layouts_mean_the_same():
    scaling = LLAMA_8B["rope_scaling"]
    old = read(rope_theta=5e5, rope_scaling=scaling)
    old_name = read(rope_theta=5e5, rope_scaling={k.replace("rope_type", "type"): v for k, v in scaling.items()})
    new = read(remove=("rope_theta",), rope_parameters={**scaling, "rope_theta": 5e5})
    assert old.rope == old_name.rope == new.rope
    assert (new.rope.theta, new.rope.scaling, new.rope.original_max_position) == (5e5, "llama3", 8192)


def test_missing_sizes_are_errors():
    for key in ("hidden_size", "vocab_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
        with pytest.raises(ConfigError, match=f"'{key}': expected a positive integer, found nothing"):
            read(remove=(key,))


@pytest.mark.parametrize("max_seq", [0, -1, 65])
def test_max_seq_out_of_range(max_seq: int):
    with pytest.raises(UsageError, match="max_seq: expected 1 to 64, the model's maximum position"):
        import_config(PLAIN_CONFIG, max_seq=max_seq)


def test_cache_beyond_any_memory():
    with pytest.raises(UsageError, match="max_seq: a cache of 2147483647 positions would have more than"):
        import_config(
            {
                **PLAIN_CONFIG,
                "num_hidden_layers": 10_000,
                "num_attention_heads": 64,
                "num_key_value_heads": 64,
                "max_position_embeddings": 2**31 - 1,
            },
            max_seq=2**31 - 1,
        )


def test_max_seq_default():
    assert import_config(PLAIN_CONFIG).max_seq == 64
    assert import_config(LLAMA_8B).max_seq == 2048


def test_unknown_dtype():
    with pytest.raises(UsageError, match="weight_dtype: expected f32 or bf16, found 'f16'"):
        import_config(PLAIN_CONFIG, weight_dtype="f16")  # type: ignore[arg-type]


def test_config_files(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"config\.json: cannot be read: No such file"):
        import_config(tmp_path)
    path = tmp_path / "config.json"
    for text, message in (
        ("", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"a": 1, "a": 2}', "'a' appears"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=message):
            import_config(tmp_path)
