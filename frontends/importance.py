"""How much the inputs of each matrix count when it is quantised: a file of vectors beside a checkpoint.

A safetensors file with a vector of float32 for each matrix [N, K] of the checkpoint, by its name: K mean squares of
what the matrix is multiplied by, over the tokens of some text. `amk calibrate` writes it; other tools may.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..amk_ir.errors import CheckpointError
from ..amk_ir.quantization import QuantizedTensor
from .checkpoint import Checkpoint, TensorInfo, map_file, native_values
from .safetensors_checkpoint import read_header


class ImportanceCheckpoint(Checkpoint):
    """A checkpoint with the importance of inputs from `file`; its tensors are those of `checkpoint`, unchanged."""

    def __init__(self, checkpoint: Checkpoint, file: Path):
        """Reads and checks all of `file`, which is small.

        Raises:
            CheckpointError: not a safetensors file, a vector for what is no matrix of the checkpoint, or of another
                type or length, one that is negative or not finite, or none at all.
        """
        self.path, self.files, self.tensors = checkpoint.path, checkpoint.files, checkpoint.tensors
        self.importance_file = file
        self._checkpoint = checkpoint
        infos = read_header(file)
        if not infos:
            raise CheckpointError(f"{file}: expected a vector for each matrix of {checkpoint.path}, found none")
        data = map_file(file)
        self._importance = {name: _vector(info, checkpoint, data) for name, info in infos.items()}

    def importance(self, name: str) -> NDArray[np.float32] | None:
        self.info(name)
        return self._importance.get(name)

    def quantized(self, name: str) -> QuantizedTensor | None:
        return self._checkpoint.quantized(name)

    def load(self, name: str, dtype: Any = "f32") -> NDArray[Any]:
        return self._checkpoint.load(name, dtype)

    def _read(self, info: TensorInfo) -> NDArray[Any]:
        raise NotImplementedError("load is that of the checkpoint")


def _vector(info: TensorInfo, checkpoint: Checkpoint, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    matrix = checkpoint.tensors.get(info.name)
    if matrix is None:
        raise CheckpointError(
            f"{info}: {checkpoint.path} has no matrix of this name: was it calibrated with another model?"
        )
    if len(matrix.shape) != 2:
        raise CheckpointError(f"{info}: that of {checkpoint.path} is no matrix, but of shape {list(matrix.shape)}")
    if info.dtype != "F32" or info.shape != matrix.shape[1:]:
        raise CheckpointError(
            f"{info}: expected F32 of shape {list(matrix.shape[1:])}, one number for each input of the matrix "
            f"{list(matrix.shape)}, found {info.dtype} of shape {list(info.shape)}"
        )
    vector = native_values(data, info)
    if not (good := np.isfinite(vector) & (vector >= 0)).all():
        at = int(np.argmin(good))
        raise CheckpointError(f"{info}: element {at}: expected a mean square, 0 or more, found {vector[at]:g}")
    return vector


def importance_file(vectors: Mapping[str, NDArray[np.float32]], metadata: Mapping[str, str]) -> bytes:
    """The content of the file with `vectors`, by the names of their matrices. metadata: how they were measured."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, vector in vectors.items():
        start, end = end, end + 4 * vector.size
        header[name] = {"dtype": "F32", "shape": list(vector.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the data are aligned
    parts = [np.ascontiguousarray(vector, "<f4").tobytes() for vector in vectors.values()]
    return b"".join((len(text).to_bytes(8, "little"), text, *parts))
