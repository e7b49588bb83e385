"""Hugging Face weight files: `model.safetensors`, or shards named by `model.safetensors.index.json`.

The header is parsed here rather than by the safetensors package: its NumPy interface does not know bfloat16, and a
message about a damaged file should name the tensor. The format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from numpy.typing import NDArray

from ..amk_ir.errors import CheckpointError
from .checkpoint import Checkpoint, TensorInfo, map_file, native_values
from .json_file import parse_json_object, read_json_object
from .one_line import one_line

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_ITEM_SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
_MAX_HEADER = 100_000_000  # the limit of the reference implementation


class SafetensorsCheckpoint(Checkpoint):
    """The weights of a Hugging Face model directory."""

    def __init__(self, directory: Path):
        """Reads the headers of all weight files.

        Raises:
            CheckpointError: no weight file, a missing shard, or a file that is truncated or corrupt.
        """
        self.path = directory
        single, index = directory / SINGLE_FILE, directory / INDEX_FILE
        if single.is_file():
            self.files = (single,)
            self.tensors = read_header(single)
        elif index.is_file():
            self.tensors = _read_shards(index)
            self.files = tuple(sorted({t.file for t in self.tensors.values()}))
        else:
            found = sorted(p.name for p in directory.glob("*") if p.suffix in (".bin", ".pth", ".pt", ".safetensors"))
            what = f"found only {', '.join(found[:3])}" if found else "found no weight file"
            raise CheckpointError(f"{directory}: expected {SINGLE_FILE} or {INDEX_FILE}, {what}")
        self._data = {path: map_file(path) for path in self.files}

    def stored(self, info: TensorInfo) -> NDArray[Any]:
        """The elements of a tensor as they are in the file, of any type that quantised matrices consist of."""
        return native_values(self._data[info.file], info)

    def _read(self, info: TensorInfo) -> NDArray[Any]:
        return self.stored(info)


def _read_shards(index: Path) -> dict[str, TensorInfo]:
    """The tensors of all shards; index and shards must agree in both directions."""
    weight_map = read_json_object(index, CheckpointError).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index}: expected an object 'weight_map' of tensor names to shard files")
    tensors: dict[str, TensorInfo] = {}
    for shard in sorted({str(f) for f in weight_map.values()}):
        if PurePath(shard).name != shard or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"{index}: '{one_line(shard)}' is not the name of a safetensors file in the same directory"
            )
        path = index.parent / shard
        if not path.is_file():
            raise CheckpointError(
                f"{one_line(str(path))}: this shard is missing, but {index.name} names it; download it again"
            )
        for name, info in read_header(path).items():
            if weight_map.get(name) != shard:
                said = f"says it is in {one_line(str(weight_map[name]))}" if name in weight_map else "does not name it"
                raise CheckpointError(f"{path}: has tensor '{one_line(name)}', but {index.name} {said}")
            tensors[name] = info
    if missing := weight_map.keys() - tensors.keys():
        name = min(missing)
        raise CheckpointError(
            f"{index.parent / weight_map[name]}: tensor '{one_line(name)}' is not in it, as {index.name} says"
        )
    return tensors


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file, after checking that the header describes exactly the bytes that are there.

    Raises:
        CheckpointError: the file is truncated or corrupt.
    """
    data = map_file(path)
    if data.size < 8:
        raise CheckpointError(f"{path}: truncated: a safetensors file has 8 bytes or more, found {data.size}")
    header_size = int.from_bytes(data[:8].tobytes(), "little")
    if header_size > _MAX_HEADER:
        raise CheckpointError(f"{path}: not a safetensors file, or corrupt: its header would have {header_size} bytes")
    if 8 + header_size > data.size:
        raise CheckpointError(f"{path}: truncated: the header needs {8 + header_size} bytes, found {data.size}")
    header = parse_json_object(data[8 : 8 + header_size].tobytes(), f"{path}: header", CheckpointError)
    header.pop("__metadata__", None)
    start = 8 + header_size
    tensors = {name: _tensor_info(name, entry, path, start) for name, entry in header.items()}

    end = start
    for info in sorted(tensors.values(), key=lambda t: (t.offset, t.nbytes)):
        if info.offset != end:
            fault = "overlaps the tensor before it" if info.offset < end else "leaves a gap before it"
            raise CheckpointError(f"{info} {fault} in the file: the header is corrupt")
        end = info.offset + info.nbytes
    if end != data.size:
        fault = "truncated" if end > data.size else "corrupt"
        raise CheckpointError(f"{path}: {fault}: the tensors need {end} bytes, found {data.size}; download it again")
    return tensors


def _tensor_info(name: str, entry: Any, path: Path, start: int) -> TensorInfo:
    where = f"{path}: tensor '{one_line(name)}'"

    def is_natural(value: object) -> bool:
        return type(value) is int and value >= 0

    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [begin, end]} if all(
            is_natural(n) for n in (*shape, begin, end)
        ):
            pass
        case _:
            raise CheckpointError(f"{where}: expected dtype, shape and data_offsets, found {entry}")
    if dtype not in _ITEM_SIZES:
        raise CheckpointError(f"{where}: unknown type {one_line(dtype)}; expected F32, F16 or BF16")
    nbytes = _ITEM_SIZES[dtype]
    for extent in shape:
        nbytes *= extent
    if nbytes != end - begin:
        raise CheckpointError(
            f"{where}: {dtype} of shape {shape} has {nbytes} bytes, but the header gives it {end - begin}"
        )
    return TensorInfo(name, name, tuple(shape), dtype, path, start + begin, nbytes)
