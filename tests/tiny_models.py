"""Random tiny Llama checkpoints, made with torch and transformers: the inputs of the oracle tests.

    directory = make_llama(tmp_path, VARIANTS["gqa"])       # a Hugging Face directory with tokenizer
    reference = load_reference(directory)                   # transformers' LlamaForCausalLM, float32, eager attention
    path = write_gguf(directory, tmp_path / "tiny.gguf", "Q8_0")

No pytest in here. Importing this module does not import torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


@dataclass(frozen=True)
class Variant:
    """A model of one configuration. `rope` is a `rope_scaling` object; `extra` goes into the config as it is."""

    vocab: int = 97
    hidden: int = 48
    intermediate: int = 88
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    head_dim: int | None = None
    tied: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    rope: dict[str, Any] | None = None
    theta: float = 10000.0
    max_position: int = 128
    dtype: str = "float32"
    shards: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


VARIANTS: dict[str, Variant] = {
    "mha": Variant(kv_heads=4),
    "gqa": Variant(),
    "mqa": Variant(kv_heads=1),
    "tied": Variant(tied=True),
    "attention_bias": Variant(attention_bias=True),
    "mlp_bias": Variant(mlp_bias=True),
    "all_biases_tied": Variant(attention_bias=True, mlp_bias=True, tied=True),
    "rope_linear": Variant(rope={"rope_type": "linear", "factor": 4.0}),
    "rope_llama3": Variant(rope=LLAMA3_ROPE, theta=500000.0),
    "head_dim_16": Variant(hidden=64, head_dim=16),
    "head_dim_64": Variant(hidden=128, heads=2, kv_heads=1, head_dim=64),
    "head_dim_80": Variant(hidden=72, heads=3, kv_heads=3, head_dim=80),
    "head_dim_128": Variant(hidden=64, heads=4, kv_heads=2, head_dim=128),
    "head_dim_256": Variant(hidden=64, heads=2, kv_heads=1, head_dim=256),
    "odd_widths": Variant(vocab=131, hidden=57, intermediate=101, heads=3, kv_heads=1, head_dim=18),
    "odd_everything": Variant(
        vocab=1003, hidden=75, intermediate=119, layers=3, heads=5, kv_heads=5, head_dim=22,
        attention_bias=True, mlp_bias=True, rope=LLAMA3_ROPE,
    ),
    "one_layer": Variant(layers=1, heads=1, kv_heads=1, hidden=32),
    "bf16": Variant(dtype="bfloat16"),
    "f16": Variant(dtype="float16"),
    "sharded": Variant(layers=3, shards=True),
    "sharded_tied_bf16": Variant(tied=True, shards=True, dtype="bfloat16"),
}  # fmt: skip
"""Configurations that cover each branch of the Llama family, by name."""


def make_llama(directory: Path, variant: Variant = Variant(), *, seed: int = 0, tokenizer: bool = True) -> Path:
    """Writes a random model to `directory` (made if need be) as transformers would; returns it.

    All parameters are random, norms and biases too: a weight that is ignored shows in the logits.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    generator = torch.Generator().manual_seed(seed)
    config = LlamaConfig(
        vocab_size=variant.vocab,
        hidden_size=variant.hidden,
        intermediate_size=variant.intermediate,
        num_hidden_layers=variant.layers,
        num_attention_heads=variant.heads,
        num_key_value_heads=variant.kv_heads,
        head_dim=variant.head_dim,
        max_position_embeddings=variant.max_position,
        tie_word_embeddings=variant.tied,
        attention_bias=variant.attention_bias,
        mlp_bias=variant.mlp_bias,
        rope_parameters={"rope_type": "default", **(variant.rope or {}), "rope_theta": variant.theta},
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).to(getattr(torch, variant.dtype))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.2 * noise)
            else:
                parameter.copy_(noise * (1.0 if "embed" in name else parameter.shape[1] ** -0.5))
    directory.mkdir(parents=True, exist_ok=True)
    largest = max(p.numel() * p.element_size() for p in model.parameters())
    model.save_pretrained(directory, max_shard_size=2 * largest if variant.shards else "50GB")
    if variant.extra:
        edit_json(directory / "config.json", **variant.extra)
    if tokenizer:
        write_tokenizer(directory, variant.vocab)
    return directory


def edit_json(path: Path, remove: tuple[str, ...] = (), **changes: Any) -> None:
    """Changes keys of a JSON object in a file."""
    value = json.loads(path.read_text())
    for key in remove:
        value.pop(key, None)
    path.write_text(json.dumps({**value, **changes}))


def write_tokenizer(directory: Path, vocab: int) -> None:
    """A byte-level tokenizer with ids below `vocab`: `<pad>`, `<s>`, `</s>`, then the printable bytes that fit."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "Ġ", *(c for c in alphabet if c != "Ġ")][:vocab]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[], unk_token="<unk>"))
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tokens[:4]])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template="{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}",
    ).save_pretrained(directory)


def load_reference(directory: Path, dtype: str = "float32") -> Any:
    """transformers' model with eager attention, in evaluation mode; no torch function may train it."""
    import torch
    from transformers import LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = LlamaForCausalLM.from_pretrained(
        directory, dtype=getattr(torch, dtype), attn_implementation="eager", local_files_only=True
    )
    return model.eval().requires_grad_(False)


def reference_logits(directory: Path, ids: list[int]) -> Any:
    """float32 logits [len(ids), vocab] of transformers, as a NumPy array."""
    import torch

    with torch.no_grad():
        return load_reference(directory)(torch.tensor([ids])).logits[0].numpy()


def write_gguf(directory: Path, path: Path, quantisation: str = "F32", **metadata: Any) -> Path:
    """Converts a directory of `make_llama` to GGUF as llama.cpp's converter does; returns `path`.

    Matrices whose rows the quantisation's blocks divide are stored in it, all else as F32. K-quants, which the gguf
    package cannot make, are random bits of the right size. `metadata` are more uint32, float or string keys (`__`
    stands for the dot), added last. No tokenizer.
    """
    import gguf
    import numpy as np
    from safetensors import safe_open

    config = json.loads((directory / "config.json").read_text())
    rope = config["rope_parameters"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(config["vocab_size"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    for key, value in metadata.items():
        add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string, bool: writer.add_bool}
        add[type(value)](key.replace("__", "."), value)

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    kind = gguf.GGMLQuantizationType[quantisation]
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    random = np.random.default_rng(0)
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                values = tensors.get_tensor(name).float().numpy()
                if config["tie_word_embeddings"] and name == "lm_head.weight":
                    continue
                for part, n in (("q_proj", heads), ("k_proj", kv_heads)):
                    if part in name:
                        values = (
                            values.reshape(n, 2, values.shape[0] // n // 2, *values.shape[1:])
                            .swapaxes(1, 2)
                            .reshape(values.shape)
                        )
                stem, suffix = name.rsplit(".", 1)
                stored = f"{names.get_name(stem)}.{suffix}"
                if values.ndim < 2 or values.shape[-1] % block:
                    writer.add_tensor(stored, np.ascontiguousarray(values))
                    continue
                try:
                    data = gguf.quants.quantize(values, kind)
                except NotImplementedError:
                    data = random.integers(0, 256, (values.shape[0], values.shape[1] // block, block_bytes), np.uint8)
                    for at in {"Q4_K": (0, 2), "Q6_K": (208,)}[quantisation]:  # the float16 scales: small and finite
                        scale = random.normal(0, 0.01, data.shape[:2]).astype(np.float16)
                        data[:, :, at : at + 2] = scale[..., None].view(np.uint8)
                    data = data.reshape(values.shape[0], -1)
                writer.add_tensor(stored, data, raw_dtype=kind)
    if rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_factors(rope, head_dim))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _llama3_factors(rope: dict[str, Any], head_dim: int) -> Any:
    """What llama.cpp's converter stores for llama3 scaling (`generate_extra_tensors` of its LlamaModel)."""
    import math

    import numpy as np

    factors: list[float] = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / head_dim)
        if wavelength < rope["original_max_position_embeddings"] / rope["high_freq_factor"]:
            factors.append(1.0)
        elif wavelength > rope["original_max_position_embeddings"] / rope["low_freq_factor"]:
            factors.append(rope["factor"])
        else:
            smooth = (rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]) / (
                rope["high_freq_factor"] - rope["low_freq_factor"]
            )
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(factors, np.float32)


PLAIN_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 37,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


def plain_tensors(config: dict[str, Any] = PLAIN_CONFIG, seed: int = 0) -> dict[str, Any]:
    """Random float32 arrays of a Llama model without biases, by Hugging Face name."""
    import numpy as np

    hidden, wide, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    rows, kv_rows = (config[f"num_{n}_heads"] * config["head_dim"] for n in ("attention", "key_value"))
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "self_attn.q_proj.weight": (rows, hidden),
            prefix + "self_attn.k_proj.weight": (kv_rows, hidden),
            prefix + "self_attn.v_proj.weight": (kv_rows, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, rows),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "mlp.gate_proj.weight": (wide, hidden),
            prefix + "mlp.up_proj.weight": (wide, hidden),
            prefix + "mlp.down_proj.weight": (hidden, wide),
        }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    random = np.random.default_rng(seed)
    return {name: random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}


def make_plain_llama(
    directory: Path, tensors: dict[str, Any] | None = None, remove: tuple[str, ...] = (), **changes: Any
) -> Path:
    """Like `make_llama`, but without torch: one tiny model, whose config and tensors a test may spoil."""
    from safetensors.numpy import save_file

    directory.mkdir(parents=True, exist_ok=True)
    config = {**PLAIN_CONFIG, **changes}
    (directory / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in remove}))
    save_file(plain_tensors() if tensors is None else tensors, directory / "model.safetensors")
    return directory
