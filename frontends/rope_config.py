"""Rotary settings of a transformers configuration, in the layout of transformers 4 and of transformers 5.

Version 4 has `rope_theta` and an optional `rope_scaling` {`rope_type` or `type`, ...} at top level, version 5 one
`rope_parameters` with everything in it. Both mean the same here, and both are read as transformers 5 reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ..amk_ir.attrs import RopeFrequencies
from .config_accounting import ConfigReader

_DEFAULT_THETA = 10000.0


def read_rope(config: ConfigReader, head_dim: int, max_position: int) -> RopeFrequencies:
    """The rotary frequencies of a model whose heads rotate as a whole.

    Raises:
        ConfigError: an unsupported rope type, a missing, wrong or unknown parameter, or two that contradict each other.
    """
    config.require("partial_rotary_factor", (1, 1.0, None), None)
    new, old = _object(config, "rope_parameters"), _object(config, "rope_scaling")
    if new and old and new != old:
        config.fail(f"contradicts 'rope_scaling': {new} and {old}; remove one of them", "rope_parameters")
    key, values = ("rope_parameters", new) if new else ("rope_scaling", old)
    rope = ConfigReader(values, f"{config.source}: {key}")

    theta = config.number("rope_theta", _DEFAULT_THETA)
    if "rope_theta" in rope and "rope_theta" in config and rope.number("rope_theta") != theta:
        config.fail(f"{theta} contradicts {rope.take('rope_theta')} in '{key}'; remove one of them", "rope_theta")
    theta = rope.number("rope_theta", theta)
    rope.require("partial_rotary_factor", (1, 1.0, None), None)

    result = _read_scaling(rope, head_dim, theta, max_position)
    rope.finish()
    return result


def _object(config: ConfigReader, key: str) -> dict[str, Any]:
    value = config.take(key)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        config.fail(f"expected an object, found {value!r}", key)
    return dict(cast(Mapping[str, Any], value))


def _read_scaling(rope: ConfigReader, head_dim: int, theta: float, max_position: int) -> RopeFrequencies:
    old_name = rope.take("type")
    scaling: Any = rope.take("rope_type", old_name)
    if old_name is not None and old_name != scaling:
        rope.fail(f"{scaling!r} contradicts 'type': {old_name!r}", "rope_type")
    match scaling:
        case None | "default":
            # transformers keeps the parameters of other types in a default dict without using them, but whoever
            # wrote a factor meant it: `finish` refuses it
            return RopeFrequencies(head_dim, theta)
        case "linear":
            return RopeFrequencies(head_dim, theta, "linear", rope.number("factor"))
        case "llama3":
            low, high = rope.number("low_freq_factor"), rope.number("high_freq_factor")
            if high <= low:
                rope.fail(f"expected more than low_freq_factor {low}, found {high}", "high_freq_factor")
            original = rope.integer("original_max_position_embeddings", max_position)
            return RopeFrequencies(head_dim, theta, "llama3", rope.number("factor"), low, high, original)
        case _:
            rope.fail(f"unsupported rope type {scaling!r}; supported types: default, linear, llama3", "rope_type")
