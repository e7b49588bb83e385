"""Holds back a stream while the host enqueues what is to be timed, so that none of the host's time counts."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from threading import Timer
from typing import Any

from ...amk_ir.errors import DeviceError
from .driver_api import check

OPENS_AFTER_S = 1.0
"""Seconds after which a gate opens by itself: where a tool makes launches wait for their end, nobody else would open it."""


class LaunchGate:
    """A word of host memory that a stream of the current context waits for; a context manager, which opens it at last.

    What waits behind it should have been launched before: the driver may load a function at its first launch, and waits for the
    device then.
    """

    def __init__(self, driver: Any, stream: int = 0):
        """driver: the bindings. stream: the driver's handle; 0 is the default stream. DeviceError: no host memory."""
        self._driver, self._stream = driver, stream
        flags = driver.CU_MEMHOSTALLOC_DEVICEMAP | driver.CU_MEMHOSTALLOC_PORTABLE
        self._address = int(check(driver.cuMemHostAlloc(4, flags), "allocating host memory"))
        self._word = ctypes.c_uint32.from_address(self._address)
        try:
            self._on_device = int(check(driver.cuMemHostGetDevicePointer(self._address, 0), "mapping host memory"))
        except DeviceError:
            driver.cuMemFreeHost(self._address)
            raise
        self._timer: Timer | None = None
        self._has_given_up = False

    def close(self) -> None:
        """Holds back everything that is enqueued from now on; DeviceError where the device cannot."""
        assert self._timer is None, "a gate is opened before it is closed again"
        self._word.value, self._has_given_up = 0, False
        wanted = self._driver.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_EQ
        (status,) = self._driver.cuStreamWaitValue32(self._stream, self._on_device, 1, wanted)
        if int(status) != 0:
            raise DeviceError(
                f"this GPU cannot hold back a stream ({status.name}), so a launch cannot be timed without the host's part in it"
            )
        self._timer = Timer(OPENS_AFTER_S, self._give_up)
        self._timer.daemon = True
        self._timer.start()

    def open(self) -> None:
        """Lets the stream go on. Raises DeviceError if it has not been held back until now."""
        self._let_go()
        if self._has_given_up:
            raise DeviceError(
                f"a launch did not return for {OPENS_AFTER_S:g} s, so it cannot be timed: some tools, and CUDA_LAUNCH_BLOCKING, make "
                "launches wait for their end"
            )

    def _let_go(self) -> None:
        self._word.value = 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()  # it must not touch the word when that is no more
            self._timer = None

    def _give_up(self) -> None:
        self._has_given_up = True
        self._word.value = 1

    def __enter__(self) -> LaunchGate:
        return self

    def __exit__(self, *_: object) -> None:
        self._let_go()
        self._driver.cuStreamSynchronize(self._stream)
        self._driver.cuMemFreeHost(self._address)


def time_launches(driver: Any, launch: Callable[[], None], finish: Callable[[], object], repeats: int) -> list[float]:
    """Milliseconds of each of `repeats` launches on the default stream, after one that is not counted, by events around each;
    `finish` waits for the end of one. The GPU is idle before, and has both events and the launch when it begins, so nothing that
    the host does counts.

    Raises what `launch` and `finish` do; DeviceError where a tool
    makes launches wait for their end.
    """
    launch()
    finish()
    events: list[Any] = []
    times: list[float] = []
    try:
        events += [check(driver.cuEventCreate(0), "timing") for _ in range(2)]
        with LaunchGate(driver) as gate:
            for _ in range(repeats):
                gate.close()
                check(driver.cuEventRecord(events[0], 0), "timing")
                launch()
                check(driver.cuEventRecord(events[1], 0), "timing")
                gate.open()
                finish()
                times.append(float(check(driver.cuEventElapsedTime(events[0], events[1]), "timing")))
    finally:
        for event in events:
            driver.cuEventDestroy(event)
    return times
