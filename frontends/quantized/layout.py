"""What a layout of quantised matrices has to say: which tensors make up a matrix, its format, and how to read it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.dtypes import f32_from_bf16
from ...amk_ir.errors import CheckpointError
from ...amk_ir.quantization import QuantizedFormat, QuantizedTensor, ScaleType
from ..checkpoint import TensorInfo
from ..config_accounting import ConfigReader

SCALE_TYPES: Mapping[str, ScaleType] = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
"""The scale type of each storage type that scales may have."""

Read: TypeAlias = Callable[[TensorInfo], NDArray[Any]]
"""Gives the stored elements of a tensor: BF16 as uint16, F8_E4M3 as uint8 bit patterns, others as NumPy has them."""


@dataclass(frozen=True)
class Module:
    """The stored tensors of one module (such as `model.layers.0.mlp.up_proj`) by the last part of their names."""

    name: str
    parts: Mapping[str, TensorInfo]

    def part(self, name: str, *dtypes: str) -> TensorInfo:
        """The tensor `name` of the module.

        Raises:
            CheckpointError: it is missing, or has none of `dtypes`.
        """
        info = self.parts.get(name)
        if info is None:
            any_part = next(iter(self.parts.values()))
            raise CheckpointError(
                f"{any_part.file}: module '{self.name}' is quantised, but its tensor '{self.name}.{name}' is missing"
            )
        if dtypes and info.dtype not in dtypes:
            raise CheckpointError(f"{info}: expected type {' or '.join(dtypes)}, found {info.dtype}")
        return info


@dataclass(frozen=True)
class Matrix:
    """A quantised matrix that was found and checked, but not read."""

    format: QuantizedFormat
    shape: tuple[int, int]


class QuantizationLayout(ABC):
    """A way to store quantised matrices, with the settings of one checkpoint."""

    name: str
    """What the format is called, in messages."""
    code_part: str
    """The tensor that has the codes of a module."""
    parts: frozenset[str]
    """All tensors that a quantised matrix may consist of."""
    unused: Mapping[str, str] = {}
    """Further tensors of a quantised module that do not change its matrix, with the reason."""

    @abstractmethod
    def __init__(self, config: ConfigReader):
        """Reads the settings of `quantization_config`; raises ConfigError for what is not understood."""

    def is_quantized(self, module: Module) -> bool:
        """Whether the matrix of the module is stored quantised."""
        return self.code_part in module.parts

    @abstractmethod
    def excludes(self, module: str) -> bool:
        """Whether the configuration says that this module was not quantised."""

    @abstractmethod
    def matrix(self, module: Module) -> Matrix:
        """Format and shape [N, K], from the parts' types and shapes.

        Raises:
            CheckpointError: a missing part, or one of another type or shape than the configuration implies.
        """

    @abstractmethod
    def read(self, module: Module, matrix: Matrix, read: Read) -> QuantizedTensor:
        """The matrix. The caller validates it."""


def check_shape(info: TensorInfo, expected: tuple[int, ...], why: str = "") -> None:
    """Refuses a tensor of another shape than `expected`; `why` ends the message."""
    if info.shape != expected:
        raise CheckpointError(
            f"{info}: expected shape {list(expected)}{f' ({why})' if why else ''}, found {list(info.shape)}"
        )


def require_rank(info: TensorInfo, rank: int) -> None:
    """Refuses a tensor that has another number of dimensions than `rank`, or no elements."""
    if len(info.shape) != rank or 0 in info.shape:
        raise CheckpointError(f"{info}: expected {rank} dimensions, none of them 0, found shape {list(info.shape)}")


def scale_type(info: TensorInfo) -> ScaleType:
    """The scale type of a tensor of scales."""
    try:
        return SCALE_TYPES[info.dtype]
    except KeyError:
        raise CheckpointError(f"{info}: expected scales of type {', '.join(SCALE_TYPES)}, found {info.dtype}") from None


def floats(info: TensorInfo, read: Read) -> NDArray[np.float32]:
    """A tensor of scales as float32."""
    stored = read(info)
    return f32_from_bf16(stored) if info.dtype == "BF16" else stored.astype(np.float32)
