"""Reading `quantization_config`, so that no setting of it is silently dropped."""

from __future__ import annotations

import re
from typing import Any

from ..config_accounting import ConfigReader

MAX_GROUP = 1 << 20


def group_size(config: ConfigReader, key: str = "group_size") -> int:
    """A group size, 0 for one scale a row (which tools write as -1)."""
    value = config.take(key)
    if value is None or value == -1:
        return 0
    if type(value) is not int or not 1 <= value <= MAX_GROUP:
        config.fail(f"expected -1 (one group a row) or the number of inputs in a group, found {value!r}", key)
    return value


def names(config: ConfigReader, key: str) -> tuple[str, ...] | None:
    """A list of module names; None if it is missing or null."""
    value = config.take(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        config.fail(f"expected a list of module names, found {value!r}", key)
    return tuple(value)


def block_size(config: ConfigReader, key: str) -> tuple[int, int] | None:
    """Rows and columns of a block; None if it is missing or null."""
    value: Any = config.take(key)
    match value:
        case None:
            return None
        case [int(rows), int(columns)] if 1 <= rows <= MAX_GROUP and 1 <= columns <= MAX_GROUP:
            return rows, columns
        case _:
            config.fail(f"expected rows and columns of a block, found {value!r}", key)


def excluded_by(module: str, patterns: tuple[str, ...]) -> bool:
    """Whether transformers would leave `module` unquantised: a pattern names it, an enclosing module, or its end.

    A pattern may be a regular expression; one that is not valid counts as a plain name.
    """
    for pattern in patterns:
        if module.endswith(pattern) or module == pattern or module.startswith(f"{pattern}."):
            return True
        try:
            if re.match(rf"(?:{pattern})(?:(?<=\.)|(?=\.|$))", module):
                return True
        except re.error:
            continue
    return False
