"""The GPU as a measurement sees it: what it is, how much of its memory is taken, how fast it reads."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

from ...amk_ir.errors import DeviceError
from ...amk_ir.targets import Target
from ...backends.cuda.driver import device_info
from ...backends.cuda.driver_api import check
from .read_peak import read_peak


class Device(Protocol):
    """A GPU. name: the driver's."""

    @property
    def name(self) -> str: ...

    @property
    def target(self) -> Target: ...

    def used_bytes(self) -> int:
        """Bytes of its memory that are taken, by whomever."""
        ...

    def read_peak(self) -> float:
        """Bytes per second of a kernel that only reads."""
        ...


class CudaDevice:
    """This machine's first GPU. Its context stays open, so that it is not counted as the memory of what comes later."""

    def __init__(self) -> None:
        """Raises DeviceError: no GPU, no driver, or an architecture that AMK does not know."""
        try:
            info = device_info()
        except DeviceError as e:
            reason = str(e).removesuffix(": use the reference backend")
            raise DeviceError(f"no GPU to measure on: {reason}") from e
        self.name, self.target = info.name, info.target
        self._driver: Any = import_module("cuda.bindings.driver")
        device = check(self._driver.cuDeviceGet(info.ordinal), "opening the GPU")
        self._context = check(self._driver.cuDevicePrimaryCtxRetain(device), "opening a context")

    def used_bytes(self) -> int:
        check(self._driver.cuCtxSetCurrent(self._context), "selecting the GPU")
        free, total = check(self._driver.cuMemGetInfo(), "asking for free memory")
        return int(total) - int(free)

    def read_peak(self) -> float:
        check(self._driver.cuCtxSetCurrent(self._context), "selecting the GPU")
        return read_peak(self.target)
