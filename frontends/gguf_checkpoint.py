"""The tensors of a GGUF file under their Hugging Face names and in the Hugging Face layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from ..amk_ir.attrs import RopeFrequencies
from ..amk_ir.errors import CheckpointError
from ..amk_ir.quantization import QuantizedTensor
from ..amk_ir.rope import inverse_frequencies
from .checkpoint import Checkpoint, TensorInfo, native_values
from .gguf_file import GgufFile
from .one_line import one_line
from .quantized.gguf_blocks import FORMATS, from_blocks

ROPE_FACTORS = "rope_freqs.weight"
"""llama.cpp's rope scaling: what each rotary frequency is to be divided by (converted from llama3 scaling)."""
INV_FREQ = "model.rotary_emb.inv_freq"
"""The scaled frequencies, [head_dim / 2], as the canonical tensor that `GgufCheckpoint` offers in their place."""

_DEQUANTISED_AT_ONCE = 1 << 17  # elements


@dataclass(frozen=True)
class GgufLayout:
    """How the tensors of one GGUF architecture correspond to a Hugging Face checkpoint.

    names: canonical name template of each stored name template; `{layer}` stands for the layer in both.
    rotary_heads: number of heads of each stored template whose rows llama.cpp stores with rotation pairs interleaved
    (2i, 2i+1), where Hugging Face has (i, i + head_dim/2).
    """

    names: Mapping[str, str]
    rotary_heads: Mapping[str, int]


class GgufCheckpoint(Checkpoint):
    """The weights of a GGUF file."""

    def __init__(self, file: GgufFile, layout: GgufLayout, rope: RopeFrequencies | None = None):
        """`rope`: the unscaled frequencies that a `rope_freqs.weight` tensor scales, if the file has one.

        Raises:
            CheckpointError: a tensor that `layout` does not name, or two with one canonical name.
        """
        self.path = file.path
        self.files = (file.path,)
        self._file = file
        self._rope = rope
        self._heads: dict[str, int] = {}
        tensors: dict[str, TensorInfo] = {}
        for tensor in file.tensors.values():
            template, layer = _split_layer(tensor.name)
            if tensor.name == ROPE_FACTORS and rope is not None:
                name = INV_FREQ
            elif template in layout.names and "{layer}" not in tensor.name:
                name = layout.names[template].replace("{layer}", layer)
            else:
                # also if it has a canonical name: nothing says how such a tensor would be laid out
                raise CheckpointError(
                    f"{file.path}: tensor '{one_line(tensor.name)}': unexpected: GGUF files of such a model have no tensor "
                    f"of this name, and it may change the result"
                )
            if name in tensors:
                raise CheckpointError(f"{file.path}: both '{tensors[name].stored_name}' and '{tensor.name}' are {name}")
            if heads := layout.rotary_heads.get(template):
                self._heads[name] = heads
            kind = tensor.type.name
            tensors[name] = TensorInfo(
                name,
                tensor.name,
                tensor.shape,
                kind,
                file.path,
                tensor.offset,
                tensor.nbytes,
                FORMATS.get(kind) if len(tensor.shape) == 2 else None,
            )
        self.tensors = tensors

    def _read(self, info: TensorInfo) -> NDArray[Any]:
        if info.dtype in ("F32", "F16", "BF16"):
            values = native_values(self._file.data, info)
        else:
            values = self._dequantised(info)
        if heads := self._heads.get(info.name):
            values = _halves_from_pairs(values, heads, info)
        if info.stored_name == ROPE_FACTORS and self._rope is not None:
            values = self._scaled_frequencies(values, info)
        return values

    def _read_quantized(self, info: TensorInfo) -> QuantizedTensor:
        rows, columns = info.shape
        tensor = from_blocks(info.dtype, self._blocks(info), (rows, columns))
        if heads := self._heads.get(info.name):
            # a row keeps its scales and minimums
            parts = (tensor.codes, tensor.scales, tensor.minimums)
            codes, scales, minimums = (None if p is None else _halves_from_pairs(p, heads, info) for p in parts)
            assert codes is not None and scales is not None
            tensor = replace(tensor, codes=codes, scales=scales, minimums=minimums)
        return tensor

    def _blocks(self, info: TensorInfo) -> NDArray[np.uint8]:
        """The bytes of a quantised tensor, [blocks, bytes of a block]."""
        block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[info.dtype]][1]
        return self._file.data[info.offset : info.offset + info.nbytes].reshape(-1, block_bytes)

    def _dequantised(self, info: TensorInfo) -> NDArray[np.float32]:
        kind = GGMLQuantizationType[info.dtype]
        block = GGML_QUANT_SIZES[kind][0]
        data = self._blocks(info)
        result = np.empty((len(data), block), np.float32)
        # The package's dequantiser takes 16 rows at a time, most of it overhead; blocks do not depend on each other,
        # so give it long rows that still fit a cache.
        step = _DEQUANTISED_AT_ONCE // block
        for start in range(0, len(data), step):
            part = data[start : start + step]
            values = dequantize(part.reshape(1, -1), kind).reshape(-1, block)
            if not np.isfinite(values).all():
                at = int(np.argwhere(~np.isfinite(values))[0][0])
                raise CheckpointError(
                    f"{info}: {info.dtype} block {start + at}: expected finite scales, found values that are not: the "
                    f"file is damaged"
                )
            result[start : start + step] = values
        return result.reshape(info.shape)

    def _scaled_frequencies(self, factors: NDArray[Any], info: TensorInfo) -> NDArray[np.float32]:
        assert self._rope is not None
        frequencies = inverse_frequencies(self._rope)
        if factors.shape != frequencies.shape:
            raise CheckpointError(f"{info}: expected shape {list(frequencies.shape)}, found {list(factors.shape)}")
        factors = factors.astype(np.float32)
        if not (np.isfinite(factors).all() and (factors > 0).all()):
            raise CheckpointError(f"{info}: rope factors must be finite and positive")
        return np.divide(frequencies, factors, dtype=np.float32)


def _split_layer(name: str) -> tuple[str, str]:
    """The template and the layer of a stored name: `blk.3.attn_q.weight` is (`blk.{layer}.attn_q.weight`, `3`)."""
    match = re.fullmatch(r"blk\.(0|[1-9][0-9]*)\.(.+)", name)
    return (f"blk.{{layer}}.{match[2]}", match[1]) if match else (name, "")


def _halves_from_pairs(values: NDArray[Any], heads: int, info: TensorInfo) -> NDArray[Any]:
    """Undoes llama.cpp's permutation of q and k rows, `reshape(heads, 2, half, ...).swapaxes(1, 2)`."""
    if values.shape[0] % (2 * heads):
        raise CheckpointError(f"{info}: {heads} heads with rotation pairs do not divide {values.shape[0]} rows")
    paired = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(paired.swapaxes(1, 2)).reshape(values.shape)
