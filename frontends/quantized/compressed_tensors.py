"""compressed-tensors, the layouts of llm-compressor (https://github.com/vllm-project/compressed-tensors).

int-quantized    weight int8 [N, K]
float-quantized  weight float8_e4m3fn [N, K]
naive-quantized  either of these, with one scale a tensor
pack-quantized   weight_packed int32 [N, K * bits / 32], codes less their smallest, weight_shape int64 [2]

each with weight_scale [N, groups], or [row blocks, column blocks], or one element; without symmetry weight_zero_point,
like the scale, int8 or packed along the outputs; with activation order weight_g_idx int32 [K].
value = (code - zero) * scale. Activations stay in floating point here, whatever `input_activations` says.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ...amk_ir.errors import CheckpointError
from ...amk_ir.quantization import QuantizedFormat, QuantizedTensor, Storage
from ..config_accounting import ConfigReader
from .layout import Matrix, Module, QuantizationLayout, Read, check_shape, floats, require_rank, scale_type
from .settings import block_size, group_size, names
from .unpack import input_permutation, signed, unpack_columns, unpack_rows

_HARMLESS = ("quant_method", "version", "global_compression_ratio", "moe_sparsity_config")
_HARMLESS_WEIGHTS = ("observer", "observer_kwargs", "scale_dtype", "zp_dtype")
_FORMATS = ("int-quantized", "float-quantized", "naive-quantized", "pack-quantized")


class CompressedTensorsLayout(QuantizationLayout):
    """The settings of a compressed-tensors checkpoint with one scheme for all its matrices."""

    name = "compressed-tensors"
    unused = {
        "input_scale": "activations are not quantised",
        "input_zero_point": "activations are not quantised",
        "output_scale": "activations are not quantised",
        "output_zero_point": "activations are not quantised",
    }

    def __init__(self, config: ConfigReader):
        """Raises ConfigError for settings that are not understood."""
        config.require("quantization_status", ("compressed", "frozen", None), None)
        config.require("kv_cache_scheme", (None,), None)
        config.require("sparsity_config", ({}, None, {"format": "dense"}), None)
        config.require("transform_config", ({}, None), None)
        self._ignored = names(config, "ignore") or ()
        for pattern in self._ignored:
            try:
                re.compile(pattern[3:] if pattern.startswith("re:") else "")
            except re.error as e:
                config.fail(f"{pattern!r} is not a regular expression: {e}", "ignore")
        scheme = _only_scheme(config)
        kind, common = scheme.take("format"), config.take("format")
        kind = common if kind is None else kind
        config.ignore((*_HARMLESS, "format", "config_groups"))
        config.finish()
        if kind not in _FORMATS:
            config.fail(f"expected {' or '.join(_FORMATS)}, found {kind!r}", "format")
        if common not in (kind, "mixed-precision", None):
            scheme.fail(f"found '{kind}', but {common!r} beside the schemes", "format")
        if scheme.take("targets") != ["Linear"]:
            scheme.fail(f'expected ["Linear"], found {scheme.take("targets")!r}', "targets")
        scheme.require("output_activations", (None,), None)
        scheme.ignore(("input_activations",))
        settings = scheme.take("weights")
        if not isinstance(settings, dict):
            scheme.fail(f"expected an object, found {settings!r}", "weights")
        scheme.finish()

        weights = ConfigReader(settings, f"{scheme.source}: 'weights'")
        weights.require("type", ("int", "float"))
        is_float = weights.take("type") == "float"
        if kind in ("int-quantized", "pack-quantized") and is_float:
            weights.fail(f"expected int with the format '{kind}', found float", "type")
        if kind == "float-quantized" and not is_float:
            weights.fail(f"expected float with the format '{kind}', found int", "type")
        self.is_packed = kind == "pack-quantized"
        weights.require("num_bits", (4, 8) if self.is_packed else (8,))
        self.bits: int = weights.take("num_bits")
        self._storage: Storage = "fp8_e4m3" if is_float else "int4" if self.bits == 4 else "int8"
        self.zero_points = not weights.boolean("symmetric", True)
        if self.zero_points and is_float:
            weights.fail("float codes have no zero points, but found false", "symmetric")
        weights.require("strategy", ("tensor", "channel", "group", "block"))
        self.strategy: str = weights.take("strategy")
        self.group = group_size(weights)
        block = block_size(weights, "block_structure")
        if (self.strategy == "group") != bool(self.group):
            weights.fail(f"found {self.group} with the strategy '{self.strategy}'", "group_size")
        if (self.strategy == "block") != (block is not None):
            weights.fail(f"found {block} with the strategy '{self.strategy}'", "block_structure")
        self.block_rows, self.group = block or (1, self.group)
        weights.require("dynamic", (False, None), None)
        weights.require("actorder", (None, False, True, "weight", "static", "group", "dynamic"), None)
        self.is_reordered = self.group > 0 and weights.take("actorder") in (True, "group", "dynamic")
        weights.ignore(_HARMLESS_WEIGHTS)
        weights.finish()
        self.code_part = "weight_packed" if self.is_packed else "weight"
        parts = {self.code_part, "weight_scale", "weight_zero_point", "weight_g_idx"}
        self.parts = frozenset(parts | {"weight_shape"} if self.is_packed else parts)

    def is_quantized(self, module: Module) -> bool:
        return "weight_packed" in module.parts or "weight_scale" in module.parts

    def excludes(self, module: str) -> bool:
        return any(
            re.match(pattern[3:], module) if pattern.startswith("re:") else pattern == module
            for pattern in self._ignored
        )

    def matrix(self, module: Module) -> Matrix:
        scale = module.part("weight_scale")
        if self.is_packed:
            packed = module.part("weight_packed", "I32")
            require_rank(packed, 2)
            rows, columns = packed.shape[0], packed.shape[1] * (32 // self.bits)
            check_shape(module.part("weight_shape", "I64"), (2,))
        else:
            weight = module.part("weight", "F8_E4M3" if self._storage == "fp8_e4m3" else "I8")
            require_rank(weight, 2)
            rows, columns = weight.shape
        format = QuantizedFormat(
            self._storage, self.group, self.block_rows, zero_points=self.zero_points, scale_dtype=scale_type(scale)
        )
        why = f"{rows} outputs, {columns} inputs, {format}"
        if self.strategy == "tensor":
            if scale.shape not in ((), (1,), (1, 1)):
                check_shape(scale, (1,), "one scale for the whole matrix")
        elif not (self.strategy == "channel" and scale.shape == (rows,)):
            check_shape(scale, format.scales_shape((rows, columns)), why)
        if self.zero_points:
            expected = scale.shape
            if self.is_packed:
                expected = (-(-rows * self.bits // 32), *scale.shape[1:])
            check_shape(module.part("weight_zero_point", "I32" if self.is_packed else "I8"), expected, why)
        if self.is_reordered or "weight_g_idx" in module.parts:
            check_shape(module.part("weight_g_idx", "I32"), (columns,))
        return Matrix(format, (rows, columns))

    def read(self, module: Module, matrix: Matrix, read: Read) -> QuantizedTensor:
        rows, columns = matrix.shape
        per_scale = matrix.format.scales_shape(matrix.shape)
        codes: Any
        zeros: Any = None
        if self.is_packed:
            shape_info = module.parts["weight_shape"]
            if (stored := read(shape_info).tolist()) != [rows, columns]:
                raise CheckpointError(f"{shape_info}: expected {[rows, columns]}, found {stored}")
            codes = self._from_fields(unpack_columns(read(module.parts["weight_packed"]), self.bits, columns))
        else:
            codes = read(module.parts["weight"])
        if self.zero_points:
            zeros = read(module.parts["weight_zero_point"])
            if self.is_packed:
                zeros = self._from_fields(unpack_rows(zeros, self.bits, rows))
            zeros = np.broadcast_to(zeros.reshape(-1, per_scale[1]), per_scale)
        scales = floats(module.parts["weight_scale"], read)
        scales = np.broadcast_to(scales.reshape(-1, per_scale[1]) if scales.size > 1 else scales, per_scale)
        permutation = None
        if g_idx := module.parts.get("weight_g_idx"):
            permutation = input_permutation(read(g_idx), matrix.format.group or columns, g_idx)
            codes = codes if permutation is None else np.ascontiguousarray(codes[:, permutation])
        return QuantizedTensor(
            matrix.format,
            matrix.shape,
            codes,
            np.ascontiguousarray(scales),
            None if zeros is None else np.ascontiguousarray(zeros),
            permutation=permutation,
        )

    def _from_fields(self, fields: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
        """Packed codes or zero points: unsigned for int4 with zero points, else signed."""
        return fields.view(np.int8) if self.bits == 4 and self.zero_points else signed(fields, self.bits)


def _only_scheme(config: ConfigReader) -> ConfigReader:
    groups = config.take("config_groups")
    if not isinstance(groups, dict) or not all(isinstance(scheme, dict) for scheme in groups.values()):
        config.fail(f"expected an object of schemes, found {groups!r}", "config_groups")
    if len(groups) != 1:
        config.fail(
            f"only one scheme for all matrices is supported, found {len(groups)}: {sorted(groups)}", "config_groups"
        )
    ((name, scheme),) = groups.items()
    return ConfigReader(scheme, f"{config.source}: config_groups: '{name}'")
