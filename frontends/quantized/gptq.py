"""GPTQ, the layouts `gptq` and `gptq_v2` of AutoGPTQ and GPTQModel (https://github.com/ModelCloud/GPTQModel).

A module has qweight int32 [K * bits / 32, N] with K along the words, qzeros int32 [groups, N * bits / 32], scales
[groups, N], and often g_idx int32 [K], the group of each input, which is out of order after quantising by activation
order (`desc_act`). value = (code - zero) * scale; `gptq` stores zero - 1, `gptq_v2` the zero itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.errors import CheckpointError
from ...amk_ir.quantization import QuantizedFormat, QuantizedTensor
from ..checkpoint import TensorInfo
from ..config_accounting import ConfigReader
from .layout import Matrix, Module, QuantizationLayout, Read, check_shape, floats, require_rank, scale_type
from .settings import excluded_by, group_size, names
from .unpack import from_unsigned, input_permutation, unpack_columns, unpack_rows

_HARMLESS = (
    "quant_method", "method", "meta", "quantizer", "uri", "damp_percent", "damp_auto_increment", "true_sequential", "static_groups",
    "act_group_aware", "mse", "model_name_or_path", "model_file_base_name", "dataset", "tokenizer",
    "model_seqlen", "block_name_to_quantize", "module_name_preceding_first_block", "modules_in_block_to_quantize",
    "batch_size", "pad_token_id", "max_input_length", "cache_block_outputs", "use_exllama", "disable_exllama",
    "exllama_config", "use_cuda_fp16", "backend", "lm_head",
)  # fmt: skip
"""How the tool found the codes, or with which kernels others run them."""


class GptqLayout(QuantizationLayout):
    """The settings of a GPTQ checkpoint."""

    name = "GPTQ"
    code_part = "qweight"
    parts = frozenset({"qweight", "qzeros", "scales", "g_idx"})

    def __init__(self, config: ConfigReader):
        """Raises ConfigError for settings that are not understood."""
        config.require("bits", (4, 8))
        self.bits: int = config.take("bits")
        for key in ("format", "checkpoint_format"):
            config.require(key, ("gptq", "gptq_v2", None), None)
        stored = {config.take("format"), config.take("checkpoint_format")} - {None}
        if len(stored) > 1:
            config.fail("contradicts 'format'", "checkpoint_format")
        self.zero_offset = 0 if stored == {"gptq_v2"} else 1
        config.require("is_marlin_format", (False, None), None)
        config.require("pack_dtype", ("int32", None), None)
        for key in ("dynamic", "adapter", "rotation"):
            config.require(key, ({}, "", None), None)
        self.group = group_size(config)
        self.is_reordered = config.boolean("desc_act", False) and self.group > 0
        self.zero_points = not config.boolean("sym", True)
        self._excluded = names(config, "modules_to_not_convert") or ()
        config.ignore(_HARMLESS)
        config.finish()

    def excludes(self, module: str) -> bool:
        return excluded_by(module, self._excluded)

    def matrix(self, module: Module) -> Matrix:
        qweight, qzeros = module.part("qweight", "I32"), module.part("qzeros", "I32")
        scales = module.part("scales")
        require_rank(qweight, 2)
        fields = 32 // self.bits
        columns, rows = qweight.shape[0] * fields, qweight.shape[1]
        format = QuantizedFormat(
            "int4" if self.bits == 4 else "int8",
            self.group,
            zero_points=self.zero_points,
            scale_dtype=scale_type(scales),
        )
        groups = format.scales_shape((1, columns))[1]
        why = f"{columns} inputs in groups of {self.group}" if self.group else f"one group of {columns} inputs"
        check_shape(qzeros, (groups, -(-rows // fields)), why)
        check_shape(scales, (groups, rows), why)
        if self.is_reordered or "g_idx" in module.parts:
            check_shape(module.part("g_idx", "I32"), (columns,))
        return Matrix(format, (rows, columns))

    def read(self, module: Module, matrix: Matrix, read: Read) -> QuantizedTensor:
        rows, columns = matrix.shape
        codes = unpack_rows(read(module.parts["qweight"]), self.bits, columns).T
        permutation = None
        if g_idx := module.parts.get("g_idx"):
            permutation = input_permutation(read(g_idx), matrix.format.group or columns, g_idx)
        if permutation is not None:
            codes = codes[:, permutation]
        return from_unsigned(
            matrix,
            codes,
            self._zeros(module.parts["qzeros"], rows, read),
            floats(module.parts["scales"], read).T,
            module.parts["qzeros"],
            permutation,
        )

    def _zeros(self, info: TensorInfo, rows: int, read: Read) -> NDArray[np.uint8]:
        """Zero points [N, groups]."""
        stored = unpack_columns(read(info), self.bits, rows).T
        largest = (1 << self.bits) - 1
        if self.zero_offset and (is_largest := stored == largest).any():
            row, group = np.argwhere(is_largest)[0]
            raise CheckpointError(
                f"{info}: the stored zero point {largest} of output {row}, group {group}, means {largest + 1} to some "
                f"readers of the layout 'gptq' and 0 to others; convert the checkpoint to 'gptq_v2'"
            )
        return stored + np.uint8(self.zero_offset)
