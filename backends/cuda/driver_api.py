"""The CUDA driver API through cuda-bindings."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from ...amk_ir.errors import DeviceError


@cache
def driver_bindings() -> Any:
    """The driver bindings, initialised; DeviceError without them or without a driver."""
    try:
        driver = import_module("cuda.bindings.driver")
    except ImportError as error:
        raise DeviceError(
            f"CUDA's Python bindings cannot be imported ({error}): "
            'install them with `pip install "cuda-bindings>=13,<14" "nvidia-cuda-nvrtc>=13,<14"`, or '
            "`pip install -e '.[cuda]'` in a checkout of AMK"
        ) from None
    try:
        (status,) = driver.cuInit(0)
    except Exception as error:  # the bindings raise RuntimeError when libcuda is not found
        raise DeviceError(
            f"no NVIDIA driver is installed ({str(error).splitlines()[0]}): use the reference backend"
        ) from None
    if int(status) != 0:
        raise DeviceError(f"the NVIDIA driver finds no usable GPU ({status.name}): use the reference backend")
    return driver


def check(result: tuple[Any, ...], doing: str) -> Any:
    """The value of a driver call; DeviceError, which says what failed, if it did."""
    status, *values = result
    if int(status) != 0:
        name = getattr(status, "name", str(status))
        if name == "CUDA_ERROR_OUT_OF_MEMORY":
            raise DeviceError(f"out of device memory while {doing}: use a smaller model or max_seq")
        raise DeviceError(f"{name} while {doing}")
    return values[0] if len(values) == 1 else values
