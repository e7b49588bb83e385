"""The metadata of a GGUF file as the configuration dictionary that a recipe reads.

llama.cpp reads what changes the mathematics from keys that begin with the architecture (`llama.block_count`); each of
these is translated here or refused by name. All other keys describe the file or its tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..amk_ir.errors import ConfigError
from .config_accounting import ConfigReader
from .gguf_checkpoint import ROPE_FACTORS, GgufLayout
from .gguf_file import GgufFile
from .recipe import DecoderConfig, Recipe

_KEYS = {
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
}
"""Keys below the architecture that say the same as a transformers key."""

_ALWAYS = (
    "attention.head_count",
    "attention.layer_norm_rms_epsilon",
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
)
"""Keys without which llama.cpp reads no model; transformers has defaults for some of them, which would be guesses."""

_REQUIRED: Mapping[str, tuple[Any, ...]] = {
    "attention.causal": (True, None),
    "attention.sliding_window": (0, None),
    "expert_count": (0, None),
    "expert_used_count": (0, None),
    "use_parallel_residual": (False, None),
}
_HARMLESS = ("rope.scaling.finetuned",)


def gguf_architecture(file: GgufFile) -> str:
    """The architecture that the file declares.

    Raises:
        ConfigError: it declares none, or the file is not a whole model.
    """
    reader = ConfigReader(file.metadata, str(file.path))
    reader.require("general.type", ("model", None), None)
    reader.require("split.count", (0, 1, None), None)
    architecture = file.metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ConfigError(f"{file.path}: 'general.architecture': expected a name, found {architecture!r}")
    return architecture


def stored_keys(architecture: str) -> dict[str, str]:
    """GGUF key of each configuration key, for messages."""
    return {ours: f"{architecture}.{stored}" for stored, ours in _KEYS.items()}


def read_gguf_config(file: GgufFile, recipe: Recipe) -> dict[str, Any]:
    """The configuration of the model in `file`, with the keys of transformers.

    Raises:
        ConfigError: a key that is not understood, or that has an unsupported value.
    """
    prefix = f"{gguf_architecture(file)}."
    stored = {key.removeprefix(prefix): v for key, v in file.metadata.items() if key.startswith(prefix)}
    layers = stored.get("block_count")
    values = {key: _plain(v, layers) for key, v in stored.items()}
    reader = ConfigReader(values, str(file.path), {key: prefix + key for key in (*values, *_KEYS)})
    for key, supported in _REQUIRED.items():
        reader.require(key, supported, None)
    reader.ignore(_HARMLESS)
    for key in _ALWAYS:
        if key not in reader:
            reader.fail("missing: a GGUF file always has it; convert the model again", key)
    for key in _KEYS:
        if isinstance(array := stored.get(key), np.ndarray) and len(array) != layers:
            reader.fail(f"has {len(array)} values, one for each layer, but 'block_count' is {layers}", key)
    config = {ours: reader.take(key) for key, ours in _KEYS.items() if key in reader}
    if "vocab_size" not in config and (embedding := file.tensors.get("token_embd.weight")):
        config["vocab_size"] = embedding.shape[0]
    heads, hidden = config.get("num_attention_heads"), config.get("hidden_size")
    if isinstance(heads, int) and isinstance(hidden, int) and heads > 0:
        # Rotating a part of a head, or values of another size than keys, would be another model.
        head_dim = config.get("head_dim", hidden // heads)
        reader.require("attention.value_length", (head_dim, None), None)
        reader.require("rope.dimension_count", (head_dim, None), None)
    _read_scaling(reader, file, config)
    reader.finish()

    config["architectures"] = list(recipe.architectures[:1])
    # What GGUF says only by the presence of tensors:
    present = {w.when for w in recipe.weights if w.when and w.gguf.replace("{layer}", "0") in file.tensors}
    config["tie_word_embeddings"] = "untied" not in present
    config |= dict.fromkeys(sorted(present - {"untied"}), True)
    return config


def _read_scaling(reader: ConfigReader, file: GgufFile, config: dict[str, Any]) -> None:
    reader.require("rope.scaling.type", ("none", "linear", None), None)
    if reader.take("rope.scaling.type") == "linear":
        if ROPE_FACTORS in file.tensors:
            reader.fail(f"linear scaling contradicts the tensor '{ROPE_FACTORS}'", "rope.scaling.type")
        config["rope_scaling"] = {"rope_type": "linear", "factor": reader.number("rope.scaling.factor")}
    else:
        reader.require("rope.scaling.factor", (0.0, 1.0, None), None)


def _plain(value: Any, layers: Any) -> Any:
    """Metadata as JSON would have it: one number for an array that repeats it for each of the layers."""
    if isinstance(value, np.ndarray):
        values = value.tolist()
        same = len(values) == layers and values.count(values[0]) == len(values)
        return _plain(values[0], layers) if same else values
    if type(value) is float:
        # Stored as float32. The shortest decimal that rounds to it is what the original configuration had.
        return float(str(np.float32(value)))
    return value


def gguf_layout(recipe: Recipe, config: DecoderConfig) -> GgufLayout:
    """How the tensors of this model are stored in a GGUF file."""
    return GgufLayout(
        names={w.gguf: w.name for w in recipe.weights},
        rotary_heads={w.gguf: getattr(config, w.gguf_rotary) for w in recipe.weights if w.gguf_rotary},
    )
