"""Reading a model configuration so that nothing in it is silently dropped.

A recipe asks a `ConfigReader` for every key that changes the mathematics, names the keys that must have one value, and
lists the ones known to be harmless. `finish` then refuses whatever is left.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from ..amk_ir.errors import ConfigError
from .one_line import one_line

HARMLESS_KEYS: Mapping[str, str] = {
    **dict.fromkeys(
        ("architectures", "model_type", "_name_or_path", "transformers_version", "is_llama_config"),
        "identity",
    ),
    **dict.fromkeys(
        ("bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "unk_token_id", "decoder_start_token_id"),
        "token ids: used by the tokenizer",
    ),
    **dict.fromkeys(
        ("torch_dtype", "dtype", "use_bfloat16", "torchscript"), "how the checkpoint was saved, not what is computed"
    ),
    **dict.fromkeys(
        ("use_cache", "return_dict", "output_attentions", "output_hidden_states", "chunk_size_feed_forward"),
        "what a forward call returns or keeps",
    ),
    **dict.fromkeys(
        ("initializer_range", "attention_dropout", "hidden_dropout", "resid_dropout", "embd_dropout", "dropout"),
        "training only",
    ),
    **dict.fromkeys(
        ("id2label", "label2id", "num_labels", "problem_type", "finetuning_task", "task_specific_params"),
        "classification heads, which AMK does not import",
    ),
    **dict.fromkeys(
        (
            "attn_implementation",
            "_attn_implementation",
            "_attn_implementation_autoset",
            "_experts_implementation",
            "experts_implementation",
            "tokenizer_class",
            "prefix",
            "is_decoder",
            "tf_legacy_loss",
            "transformers.js_config",
            "unsloth_fixed",
            "unsloth_version",
        ),
        "choices of other tools",
    ),
    "quantization_config": "how the matrices are stored; `quantized.registry` reads and checks it",
    **dict.fromkeys(
        (
            "bad_words_ids",
            "begin_suppress_tokens",
            "diversity_penalty",
            "do_sample",
            "early_stopping",
            "encoder_no_repeat_ngram_size",
            "exponential_decay_length_penalty",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "length_penalty",
            "max_length",
            "min_length",
            "no_repeat_ngram_size",
            "num_beam_groups",
            "num_beams",
            "num_return_sequences",
            "output_scores",
            "remove_invalid_values",
            "repetition_penalty",
            "return_dict_in_generate",
            "suppress_tokens",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
        ),
        "sampling defaults: the caller chooses",
    ),
}
"""Keys that do not change the mathematics of a decoder, each with the reason."""

REQUIRED_VALUES: Mapping[str, tuple[Any, ...]] = {
    "add_cross_attention": (False, None),
    "auto_map": (None,),  # code of its own, which may compute anything
    "cross_attention_hidden_size": (None,),
    "is_encoder_decoder": (False, None),
    "per_layer_config": (None,),
    "pruned_heads": ({}, None),
    "sparsify": (None,),
    "tie_encoder_decoder": (False, None),
}
"""Keys of any transformers config that AMK supports with these values only."""

_MISSING = object()


class ConfigReader:
    """A configuration dictionary that remembers which of its keys were read."""

    def __init__(self, config: Mapping[str, Any], source: str, stored_keys: Mapping[str, str] | None = None):
        """`source` names the file in messages; `stored_keys` says which keys the file has under another name."""
        self.source = source
        self._config = config
        self._stored_keys = stored_keys or {}
        self._read: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._config

    def take(self, key: str, default: Any = None) -> Any:
        """The raw value of `key`, now accounted for."""
        self._read.add(key)
        return self._config.get(key, default)

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive integer; a missing or null key takes `default`, or is an error without one."""
        value = self.take(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not 0 < value < 2**31:
            self.fail(f"expected a positive integer, found {self._shown(key)}", key)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive, finite number; a missing or null key takes `default`, or is an error without one."""
        value = self.take(key)
        if value is None and default is not None:
            return default
        # within float32; false for NaN
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e30:
            self.fail(f"expected a positive number, found {self._shown(key)}", key)
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        """true or false; a missing key takes `default`. Null is refused, as transformers does."""
        value = self.take(key, default)
        if type(value) is not bool:
            self.fail(f"expected true or false, found {self._shown(key)}", key)
        return value

    def require(self, key: str, supported: Collection[Any], default: Any = _MISSING) -> None:
        """Refuses the model unless `key` has one of the `supported` values; a missing key counts as `default`."""
        value = self.take(key, default)
        if not any(type(value) is type(s) and value == s for s in supported):
            wanted = " or ".join(_json(s) for s in supported if s is not None) or "no such setting"
            self.fail(f"only {wanted} is supported, found {self._shown(key)}", key)

    def ignore(self, keys: Collection[str]) -> None:
        """Accounts for keys that do not change the mathematics."""
        self._read.update(keys)

    def finish(self) -> None:
        """Refuses the model if a key was neither read nor known to be harmless."""
        for key in self._config:
            if key not in self._read:
                self.fail(
                    f"unknown setting {self._shown(key)}: it may change what the model computes; "
                    f"remove it if it does not",
                    key,
                )

    def fail(self, message: str, key: str) -> NoReturn:
        """Raises the ConfigError of `key`."""
        raise ConfigError(one_line(f"{self.source}: '{self._stored_keys.get(key, key)}': {message}"))

    def _shown(self, key: str) -> str:
        return _json(self._config[key]) if key in self._config else "nothing"


def _json(value: Any) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 120 else text[:117] + "..."
