"""What quantised weights of a measured model mean: the values that other implementations have to compute with."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.attrs import CheckpointAttr
from ...amk_ir.quantized_type import QuantizedType
from ...amk_ir.quantized_weights import quantized_entry
from ...dialects.graph import WeightOp
from ...frontends.import_model import ImportedModel
from ...runtime.footprint import model_of


def quantized_type(model: ImportedModel, name: str) -> QuantizedType | None:
    """The type of the tensor `name` in the graph of `model`, None if it is not quantised."""
    if model.quantization.is_nothing:
        return None
    for op in model_of(model.module).body.block.ops:
        if not isinstance(op, WeightOp) or not isinstance(op.source, CheckpointAttr):
            continue
        layers = [None] if op.layers is None else range(op.layers.value.data)
        if any(name == op.source.data.replace("{layer}", str(layer)) for layer in layers):
            element = op.type.get_element_type()
            return element if isinstance(element, QuantizedType) else None
    return None


def dequantized(model: ImportedModel, weights: Any, name: str) -> NDArray[np.float32] | None:
    """The values of the tensor `name` as the kernel has them, in its shape; None if it is not quantised."""
    if (type := quantized_type(model, name)) is None:
        return None
    shape = weights.load(name, "bf16").shape
    return quantized_entry(weights, name, type, int(np.prod(shape))).dequantize().reshape(shape)
