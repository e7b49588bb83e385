"""JSON files of a model directory, read with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..amk_ir.errors import AmkError
from .one_line import one_line


def parse_json_object(text: str | bytes, source: str, error: type[AmkError]) -> dict[str, Any]:
    """The JSON object in `text`; `source` names it in messages, and `error` is what is raised.

    A duplicate key is an error: which of the two counts would be a guess.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise error(f"{source}: key '{one_line(key)}' appears twice")
            result[key] = value
        return result

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as e:
        raise error(f"{source}: not valid JSON ({e}); download it again") from e
    if not isinstance(value, dict):
        raise error(f"{source}: expected a JSON object, found {type(value).__name__}")
    return value


def read_json_object(path: Path, error: type[AmkError]) -> dict[str, Any]:
    """The JSON object in the file `path`."""
    try:
        data = path.read_bytes()
    except OSError as e:
        raise error(f"{path}: cannot be read: {e.strerror or e}") from e
    return parse_json_object(data, str(path), error)
