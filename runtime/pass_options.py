"""The options of the pipeline from a model to a kernel: those of graph-to-queue, besides what the target decides."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

from ..amk_ir.errors import UsageError
from ..passes.graph_to_queue import GraphToQueuePass

PassOptions: TypeAlias = Mapping[str, Any]
"""Values by field of `GraphToQueuePass`; those that are not named have their defaults."""

_DECIDED = ("name", "target", "sms", "outputs", "weights", "head", "embedding")
"""Fields that have arguments and flags of their own."""


def option_types() -> dict[str, Any]:
    """The type of each option: int, bool, str or a `Literal`."""
    hints = get_type_hints(GraphToQueuePass)
    return {f.name: hints[f.name] for f in dataclasses.fields(GraphToQueuePass) if f.name not in _DECIDED}


def option_defaults() -> dict[str, Any]:
    """The default of each option."""
    return {f.name: f.default for f in dataclasses.fields(GraphToQueuePass) if f.name not in _DECIDED}


def check_options(options: PassOptions, source: str) -> dict[str, Any]:
    """`options` if the pipeline has them and they are of their types; what equals a default is left out.

    Raises UsageError, which names `source` (a flag or a file). Whether a value makes sense is for the passes to say.
    """
    types, defaults = option_types(), option_defaults()
    for name, value in options.items():
        if name not in types:
            raise UsageError(f"{source}: no pass option '{spelled(name)}'; expected one of {_known()}")
        expected = types[name]
        if get_origin(expected) is Literal:
            good, wanted = value in get_args(expected), " or ".join(map(str, get_args(expected)))
        else:
            good, wanted = type(value) is expected, {int: "an integer", bool: "true or false"}.get(expected, "a text")
        if not good:
            raise UsageError(f"{source}: {spelled(name)}: expected {wanted}, found {value!r}")
    return {name: value for name, value in options.items() if value != defaults[name]}


def parse_options(texts: Iterable[str], source: str) -> dict[str, Any]:
    """Options from texts such as `in-flight=4`; UsageError as `check_options`, and for one that is given twice."""
    types = option_types()
    result: dict[str, Any] = {}
    for text in texts:
        spelling, equals, value = text.partition("=")
        name = spelling.strip().replace("-", "_")
        if not equals:
            raise UsageError(f"{source}: expected OPTION=VALUE, found '{text}'; the options are {_known()}")
        if name in result:
            raise UsageError(f"{source}: {spelled(name)} is given twice")
        result[name] = _parsed(types.get(name), value.strip())
    check_options(result, source)
    return result


def _parsed(expected: Any, text: str) -> Any:
    """The value that `text` stands for; the text itself if it is none of the expected type."""
    if expected is bool and text in ("true", "false"):
        return text == "true"
    if expected is int:
        try:
            return int(text)
        except ValueError:
            return text
    return text


def spelled(name: str) -> str:
    """An option as command lines and pipelines write it."""
    return name.replace("_", "-")


def options_text(options: PassOptions) -> str:
    """Options as `--set` takes them, separated by spaces; "defaults" for none."""
    return " ".join(f"{spelled(n)}={_value_text(v)}" for n, v in sorted(options.items())) or "defaults"


def _value_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _known() -> str:
    return ", ".join(spelled(name) for name in option_types())
