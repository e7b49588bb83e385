"""The fp8 format of DeepSeek-V3, of transformers' FineGrainedFP8Config and of AutoFP8 (`quant_method: fp8`).

A module has weight float8_e4m3fn [N, K] and weight_scale_inv, in spite of its name the scale itself: one for each block
of `weight_block_size` outputs x inputs, or one for the matrix, which AutoFP8 calls weight_scale. value = code * scale.
Activations stay in floating point here, whatever `activation_scheme` says.
"""

from __future__ import annotations

import numpy as np

from ...amk_ir.errors import CheckpointError
from ...amk_ir.quantization import QuantizedFormat, QuantizedTensor
from ..checkpoint import TensorInfo
from ..config_accounting import ConfigReader
from .layout import Matrix, Module, QuantizationLayout, Read, check_shape, floats, require_rank, scale_type
from .settings import block_size, excluded_by, names

_SCALES = ("weight_scale_inv", "weight_scale")


class Fp8BlocksLayout(QuantizationLayout):
    """The settings of an fp8 checkpoint."""

    name = "fp8"
    code_part = "weight"
    parts = frozenset({"weight", *_SCALES})
    unused = {"activation_scale": "activations are not quantised", "input_scale": "activations are not quantised"}

    def __init__(self, config: ConfigReader):
        """Raises ConfigError for settings that are not understood."""
        config.require("fmt", ("e4m3", "float8_e4m3fn", None), None)
        config.require("scale_fmt", ("float", None), None)
        config.require("modules_to_convert", ([], None), None)
        config.require("activation_scheme", ("dynamic", "static", None), None)
        self.block = block_size(config, "weight_block_size")
        excluded = names(config, "modules_to_not_convert")
        self._excluded = (names(config, "ignored_layers") if excluded is None else excluded) or ()
        config.ignore(("quant_method", "dequantize", "expert_dtype", "ignored_layers"))
        config.finish()

    def is_quantized(self, module: Module) -> bool:
        return any(part in module.parts for part in _SCALES)

    def excludes(self, module: str) -> bool:
        return excluded_by(module, self._excluded)

    def matrix(self, module: Module) -> Matrix:
        weight, scale = module.part("weight", "F8_E4M3"), self._scale(module)
        require_rank(weight, 2)
        block_rows, group = self.block or (1, 0)
        format = QuantizedFormat("fp8_e4m3", group, block_rows, scale_dtype=scale_type(scale))
        shape = weight.shape[0], weight.shape[1]
        if self.block is not None:
            check_shape(scale, format.scales_shape(shape), f"blocks of {block_rows} x {group}")
        elif scale.shape not in ((), (1,), (1, 1)):
            check_shape(scale, (1,), "one scale for the whole matrix")
        return Matrix(format, shape)

    def read(self, module: Module, matrix: Matrix, read: Read) -> QuantizedTensor:
        scales = floats(self._scale(module), read)
        scales = np.ascontiguousarray(np.broadcast_to(scales, matrix.format.scales_shape(matrix.shape)))
        return QuantizedTensor(matrix.format, matrix.shape, read(module.parts["weight"]), scales)

    def _scale(self, module: Module) -> TensorInfo:
        """The tensor of scales; blocks have only one name for it."""
        found = [part for part in _SCALES if part in module.parts]
        if len(found) > 1:
            raise CheckpointError(
                f"{module.parts[found[1]]}: module '{module.name}' has '{found[0]}' too: expected one"
            )
        return module.part(_SCALES[0] if self.block else found[0])
