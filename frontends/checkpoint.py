"""What a checkpoint is to the rest of AMK: named tensors with known shapes, read one at a time from mapped files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from ..amk_ir.dtypes import FloatType, bf16_from_f32, f32_from_bf16
from ..amk_ir.errors import CheckpointError
from ..amk_ir.quantization import QuantizedFormat, QuantizedTensor
from .one_line import one_line

LOADABLE_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K")
"""Storage types that `Checkpoint.load` reads, by their name in safetensors or GGUF."""


_ELEMENTS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I8": "i1", "F8_E4M3": "u1"}
"""NumPy's name for each type of stored elements that is read."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a checkpoint.

    `name` is its canonical (Hugging Face) name, `stored_name` its name in `file`. `shape` is outermost dimension first.
    `dtype` is the storage type: a safetensors dtype or a GGUF quantisation type, in upper case. `offset` and `nbytes`
    say where the bytes lie in `file`. `quantized` is the format in which `Checkpoint.quantized` gives it; such a tensor
    may consist of several stored ones: `stored_name` and `offset` are then those of its codes, `nbytes` is that of all.
    """

    name: str
    stored_name: str
    shape: tuple[int, ...]
    dtype: str
    file: Path
    offset: int
    nbytes: int
    quantized: QuantizedFormat | None = None

    def __str__(self) -> str:
        also = "" if self.name == self.stored_name else f" ({self.name})"
        return f"{self.file}: tensor '{one_line(self.stored_name)}'{one_line(also)}"


class Checkpoint(ABC):
    """Tensors by canonical Hugging Face name. Nothing is read until `load`, and nothing is kept after it."""

    path: Path
    """The directory or file that the user named."""
    files: tuple[Path, ...]
    """The weight files, in a stable order: what a cache has to fingerprint."""
    tensors: Mapping[str, TensorInfo]
    importance_file: Path | None = None
    """Where `importance` comes from."""

    @overload
    def load(self, name: str, dtype: Literal["f32"] = "f32") -> NDArray[np.float32]: ...
    @overload
    def load(self, name: str, dtype: Literal["bf16"]) -> NDArray[np.uint16]: ...
    @overload
    def load(self, name: str, dtype: FloatType) -> NDArray[np.float32] | NDArray[np.uint16]: ...
    def load(self, name: str, dtype: FloatType = "f32") -> NDArray[Any]:
        """The tensor `name`, dequantised: float32 values, or bf16 bit patterns (uint16) rounded to nearest even.

        The result may be a read-only view of the mapped file.

        Raises:
            CheckpointError: no such tensor, a storage type that cannot be read, or a damaged quantised tensor.
        """
        info = self.info(name)
        if info.dtype not in LOADABLE_TYPES:
            if (tensor := self.quantized(name)) is not None:
                values = tensor.dequantize()
                return values if dtype == "f32" else bf16_from_f32(values)
            raise CheckpointError(
                f"{info}: cannot read its type {info.dtype}; supported types: {', '.join(LOADABLE_TYPES)}"
            )
        stored = self._read(info)
        if info.dtype == "BF16":
            return stored if dtype == "bf16" else f32_from_bf16(stored)
        values = stored if stored.dtype == np.float32 else stored.astype(np.float32)
        return values if dtype == "f32" else bf16_from_f32(values)

    def quantized(self, name: str) -> QuantizedTensor | None:
        """The tensor `name` as it is stored, if it is in a quantised format; None if it is not (`info` says so too).

        `load` gives exactly its dequantised values.

        Raises:
            CheckpointError: no such tensor, or a damaged one: a scale that is not finite, a code out of range, ...
        """
        info = self.info(name)
        if info.quantized is None:
            return None
        tensor = self._read_quantized(info)
        tensor.validate(str(info))
        return tensor

    def importance(self, name: str) -> NDArray[np.float32] | None:
        """How much each input of the matrix `name` [N, K] counts when it is quantised: [K], None if that is not known.

        Raises:
            CheckpointError: no such tensor.
        """
        self.info(name)
        return None

    def info(self, name: str) -> TensorInfo:
        """Where and how the tensor `name` is stored.

        Raises:
            CheckpointError: no such tensor.
        """
        info = self.tensors.get(name)
        if info is None:
            raise CheckpointError(
                f"{self.path}: no tensor '{one_line(name)}' among the {len(self.tensors)} of the checkpoint"
            )
        return info

    @abstractmethod
    def _read(self, info: TensorInfo) -> NDArray[Any]:
        """The values in the canonical layout: float32, float16, or uint16 bit patterns for BF16."""

    def _read_quantized(self, info: TensorInfo) -> QuantizedTensor:
        """The tensor of an `info` that has a quantised format; it is validated after."""
        raise NotImplementedError(f"{type(self).__name__} has no quantised tensors")


def map_file(path: Path) -> NDArray[np.uint8]:
    """The bytes of a file, memory-mapped and read-only.

    Raises:
        CheckpointError: the file is missing, unreadable or empty.
    """
    try:
        if path.stat().st_size == 0:
            raise CheckpointError(f"{path}: the file is empty; download it again")
        return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)  # views of a plain array are cheaper
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror or e}") from e


def native_values(data: NDArray[np.uint8], info: TensorInfo) -> NDArray[Any]:
    """The bytes of a tensor as an array of its shape; BF16 and F8_E4M3 as bit patterns (uint16, uint8)."""
    element = _ELEMENTS[info.dtype]
    # frombuffer, unlike view, takes any alignment: safetensors promises only 8 bytes for the header as a whole
    return np.frombuffer(data, element, count=int(np.prod(info.shape)), offset=info.offset).reshape(info.shape)
