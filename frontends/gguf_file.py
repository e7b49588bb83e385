"""The GGUF container: metadata and tensor table of a `.gguf` file.

The `gguf` package supplies the constants and the dequantisers. Its reader is not used: it makes an array object for
every string of the vocabulary (seconds for a small model), and a corrupt length sends it into an endless loop.
The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from ..amk_ir.errors import CheckpointError
from .checkpoint import LOADABLE_TYPES, map_file
from .one_line import one_line

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""struct codes of the scalar metadata types."""
_STRING, _ARRAY = 8, 9
_NUMPY = {0: "u1", 1: "i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8"}


@dataclass(frozen=True)
class GgufTensor:
    """An entry of the tensor table; `shape` outermost dimension first, `offset` from the start of the file."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    nbytes: int


class GgufFile:
    """A parsed GGUF file. `metadata` values are Python scalars, strings, lists of strings, or NumPy arrays."""

    def __init__(self, path: Path):
        """Reads metadata and tensor table, and checks that every tensor lies within the file.

        Raises:
            CheckpointError: the file is missing, truncated, corrupt, or of an unsupported kind.
        """
        self.path = path
        self.data: NDArray[np.uint8] = map_file(path)
        reader = _Reader(self.data, path)
        if reader.take(4) != b"GGUF":
            raise CheckpointError(f"{path}: not a GGUF file (nothing else but a model directory can be imported)")
        version = reader.scalar("I", "the version")
        if version not in (2, 3):
            kind = "a big-endian file" if version & 0xFFFF == 0 else f"version {version}"
            raise CheckpointError(f"{path}: {kind} of GGUF; expected little-endian version 2 or 3: convert it again")
        tensor_count = reader.scalar("Q", "the tensor count")
        metadata_count = reader.scalar("Q", "the metadata count")

        self.metadata: dict[str, Any] = {}
        for _ in range(metadata_count):
            key = reader.string("a metadata key")
            if key in self.metadata:
                raise CheckpointError(f"{path}: metadata key '{one_line(key)}' appears twice")
            self.metadata[key] = reader.value(key)

        alignment = self.metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise CheckpointError(f"{path}: general.alignment must be a power of two, found {alignment}")

        entries = [reader.tensor_entry() for _ in range(tensor_count)]
        start = -(-reader.position // alignment) * alignment
        self.tensors: dict[str, GgufTensor] = {}
        for name, shape, type_, offset in entries:
            if name in self.tensors:
                raise CheckpointError(f"{path}: tensor '{one_line(name)}' appears twice")
            self.tensors[name] = self._checked_tensor(name, shape, type_, offset, start, alignment)
        _check_no_overlap(self.tensors, path)

    def _checked_tensor(
        self, name: str, shape: tuple[int, ...], type_: int, offset: int, start: int, alignment: int
    ) -> GgufTensor:
        where = f"{self.path}: tensor '{one_line(name)}'"
        if not shape or min(shape) <= 0:
            raise CheckpointError(f"{where}: expected positive sizes, found shape {list(shape)}")
        try:
            kind = GGMLQuantizationType(type_)
        except ValueError:
            supported = ", ".join(LOADABLE_TYPES)
            raise CheckpointError(f"{where}: unknown type number {type_}; supported types: {supported}") from None
        block, block_bytes = GGML_QUANT_SIZES[kind]
        if shape[-1] % block:
            raise CheckpointError(
                f"{where}: {kind.name} has blocks of {block}, which do not divide rows of {shape[-1]}"
            )
        if offset % alignment:
            raise CheckpointError(f"{where}: its offset {offset} is not a multiple of the alignment {alignment}")
        nbytes = prod(shape) // block * block_bytes
        end = start + offset + nbytes
        if end > self.data.size:
            raise CheckpointError(
                f"{self.path}: truncated: tensor '{one_line(name)}' ends at byte {end}, found {self.data.size}; "
                f"download it again"
            )
        return GgufTensor(name, shape, kind, start + offset, nbytes)


def _check_no_overlap(tensors: dict[str, GgufTensor], path: Path) -> None:
    end = 0
    for tensor in sorted(tensors.values(), key=lambda t: t.offset):
        if tensor.offset < end:
            raise CheckpointError(
                f"{path}: tensor '{one_line(tensor.name)}' overlaps another: the tensor table is corrupt"
            )
        end = tensor.offset + tensor.nbytes


class _Reader:
    """A cursor over the bytes of a GGUF file; every step is checked against the end."""

    def __init__(self, data: NDArray[np.uint8], path: Path):
        self.data = memoryview(cast(Any, data))  # slices cost a tenth of NumPy's
        self.path = path
        self.position = 0

    def fail(self, what: str) -> NoReturn:
        raise CheckpointError(
            f"{self.path}: truncated or corrupt: {what} goes beyond the end of the file ({len(self.data)} bytes); "
            f"download it again"
        )

    def take(self, size: int, what: str = "the header") -> bytes:
        end = self.position + size
        if end > len(self.data):
            self.fail(what)
        result = self.data[self.position : end].tobytes()
        self.position = end
        return result

    def scalar(self, code: str, what: str) -> Any:
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code), what))[0]

    def string(self, what: str) -> str:
        data = self.take(self.scalar("Q", what), what)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as e:
            raise CheckpointError(f"{self.path}: corrupt: {what} is not valid UTF-8: {e.reason}") from e

    def value(self, key: str) -> Any:
        what = f"metadata key '{one_line(key)}'"
        kind = self.scalar("I", what)
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind], what)
        if kind == _STRING:
            return self.string(what)
        if kind != _ARRAY:
            raise CheckpointError(f"{self.path}: corrupt: {what} has the unknown type {kind}")
        kind, count = self.scalar("I", what), self.scalar("Q", what)
        if kind in _NUMPY:
            element = np.dtype(_NUMPY[kind])
            return np.frombuffer(self.take(count * element.itemsize, what), element)
        if kind != _STRING:
            raise CheckpointError(f"{self.path}: {what} is an array of the unsupported type {kind}")
        if count * 8 > len(self.data) - self.position:  # before looping over a corrupt count
            self.fail(what)
        return [self.string(what) for _ in range(count)]

    def tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape (outermost first), type number, offset within the data section."""
        name = self.string("a tensor name")
        what = f"the entry of tensor '{one_line(name)}'"
        rank = self.scalar("I", what)
        if rank > 4:
            raise CheckpointError(f"{self.path}: corrupt: {what} has {rank} dimensions, expected 4 or fewer")
        shape = struct.unpack(f"<{rank}Q", self.take(8 * rank, what))
        return name, tuple(reversed(shape)), self.scalar("I", what), self.scalar("Q", what)
