"""The layout that `quantization_config` in config.json names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...amk_ir.errors import ConfigError
from ..config_accounting import ConfigReader
from ..one_line import one_line
from .layout import QuantizationLayout

KEY = "quantization_config"


def get_all_layouts() -> dict[str, Callable[[], type[QuantizationLayout]]]:
    """The layouts by `quant_method`, alphabetically; nothing is imported before a checkpoint has one."""

    def get_awq():
        from .awq import AwqLayout

        return AwqLayout

    def get_compressed_tensors():
        from .compressed_tensors import CompressedTensorsLayout

        return CompressedTensorsLayout

    def get_fp8():
        from .fp8_blocks import Fp8BlocksLayout

        return Fp8BlocksLayout

    def get_gptq():
        from .gptq import GptqLayout

        return GptqLayout

    return {
        "awq": get_awq,
        "compressed-tensors": get_compressed_tensors,
        "fp8": get_fp8,
        "gptq": get_gptq,
    }


def read_layout(config: Mapping[str, Any], source: str) -> QuantizationLayout | None:
    """The layout of a model directory with this config.json; None if its weights are not quantised.

    Raises:
        ConfigError: an unknown method, or settings that are not supported.
    """
    settings = config.get(KEY)
    if settings is None:
        return None
    where = f"{source}: '{KEY}'"
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}: expected an object, found {one_line(repr(settings)[:80])}")
    layouts = get_all_layouts()
    method = settings.get("quant_method")
    if not isinstance(method, str) or method not in layouts:
        raise ConfigError(
            f"{where}: 'quant_method': expected {' or '.join(layouts)}, found {one_line(repr(method)[:80])}"
        )
    return layouts[method]()(ConfigReader(settings, where))
