"""AWQ, the `gemm` layout of AutoAWQ (https://github.com/casper-hansen/AutoAWQ): 4 bits, groups along the inputs.

A module has qweight int32 [K, N / 8], qzeros int32 [K / group, N / 8] and scales [K / group, N]. A word holds eight
outputs, in the order 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits. value = (code - zero) * scale.
"""

from __future__ import annotations

from ...amk_ir.quantization import QuantizedFormat, QuantizedTensor
from ..config_accounting import ConfigReader
from .layout import Matrix, Module, QuantizationLayout, Read, check_shape, floats, require_rank, scale_type
from .settings import excluded_by, group_size, names
from .unpack import from_unsigned, unpack_columns

_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_HARMLESS = ("quant_method", "method", "meta", "backend", "do_fuse", "fuse_max_seq_len", "exllama_config", "lm_head")


class AwqLayout(QuantizationLayout):
    """The settings of an AWQ checkpoint."""

    name = "AWQ"
    code_part = "qweight"
    parts = frozenset({"qweight", "qzeros", "scales"})

    def __init__(self, config: ConfigReader):
        """Raises ConfigError for settings that are not understood."""
        config.require("bits", (4,))
        for key in ("version", "format", "checkpoint_format"):  # the same by its names in three tools
            if isinstance(version := config.take(key, "gemm"), str) and version.lower() == "gemm":
                continue
            config.fail(f"only the layout 'gemm' is supported, found {version!r}", key)
        config.require("pack_dtype", ("int32", None), None)
        config.require("desc_act", (False, None), None)
        config.require("dynamic", ({}, None), None)
        self.group = group_size(config)
        self.zero_points = config.boolean("zero_point", True)
        if (symmetric := config.take("sym")) is not None and symmetric == self.zero_points:
            config.fail(f"found {symmetric!r}, which contradicts 'zero_point'", "sym")
        self._excluded = names(config, "modules_to_not_convert") or ()
        config.ignore(_HARMLESS)
        config.finish()

    def excludes(self, module: str) -> bool:
        return excluded_by(module, self._excluded)

    def matrix(self, module: Module) -> Matrix:
        qweight, qzeros = module.part("qweight", "I32"), module.part("qzeros", "I32")
        scales = module.part("scales")
        require_rank(qweight, 2)
        columns, packed = qweight.shape
        format = QuantizedFormat("int4", self.group, zero_points=self.zero_points, scale_dtype=scale_type(scales))
        groups = format.scales_shape((1, columns))[1]
        why = f"{columns} inputs in groups of {self.group}" if self.group else f"one group of {columns} inputs"
        check_shape(qzeros, (groups, packed), why)
        check_shape(scales, (groups, packed * 8), why)
        return Matrix(format, (packed * 8, columns))

    def read(self, module: Module, matrix: Matrix, read: Read) -> QuantizedTensor:
        rows = matrix.shape[0]
        codes = unpack_columns(read(module.parts["qweight"]), 4, rows, _ORDER).T
        zeros = unpack_columns(read(module.parts["qzeros"]), 4, rows, _ORDER).T
        return from_unsigned(matrix, codes, zeros, floats(module.parts["scales"], read).T, module.parts["qzeros"])
