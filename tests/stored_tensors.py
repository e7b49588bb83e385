"""safetensors files as raw arrays of any type, to be changed by a test. Without torch, which NumPy's bfloat16 would need."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_NUMPY = {
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I8": "i1",
    "U8": "u1",
    "F8_E4M3": "u1",
}


@dataclass
class Stored:
    """A tensor: its type in the file, and an array of that type, or of bit patterns."""

    dtype: str
    values: Any


Tensors = dict[str, Stored]


def read_tensors(path: Path) -> Tensors:
    """All tensors of a file, writable."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    result: Tensors = {}
    for name, entry in header.items():
        begin, end = (8 + size + offset for offset in entry["data_offsets"])
        values = np.frombuffer(data[begin:end], _NUMPY[entry["dtype"]]).reshape(entry["shape"])
        result[name] = Stored(entry["dtype"], values.copy())
    return result


def write_tensors(path: Path, tensors: Tensors) -> None:
    """A file with these tensors."""
    header: dict[str, Any] = {}
    data = b""
    for name, stored in tensors.items():
        part = np.asarray(stored.values, _NUMPY[stored.dtype]).tobytes()
        shape = list(np.shape(stored.values))
        header[name] = {"dtype": stored.dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def changed_copy(
    source: Path,
    target: Path,
    change_config: Callable[[dict[str, Any]], object] = lambda config: None,
    change_tensors: Callable[[Tensors], object] = lambda tensors: None,
) -> Path:
    """A copy of a model directory whose config.json and tensors were changed in place by the two functions."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    config = json.loads((target / "config.json").read_text())
    change_config(config)
    (target / "config.json").write_text(json.dumps(config))
    tensors = read_tensors(target / "model.safetensors")
    change_tensors(tensors)
    write_tensors(target / "model.safetensors", tensors)
    return target
