"""The one argument of an emitted kernel, in bytes: `struct Parameters`, as emit.py and device/token_loop.cuh declare it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ...amk_ir.errors import UsageError
from .plan import KernelPlan

MAX_STOPS = 32
"""Tokens that can end a launch of several steps; as in device/token_loop.cuh."""


@dataclass(frozen=True)
class Launch:
    """What one launch is asked for: `steps` steps from position `pos`, the first of which has number `epoch`.

    stops: tokens after which no further step is run. arrived: signals that ends of steps have given before (modulo 2^32).
    """

    pos: int
    epoch: int
    steps: int = 1
    stops: tuple[int, ...] = ()
    arrived: int = 0

    def check(self, plan: KernelPlan) -> None:
        """UsageError for what the kernel cannot do."""
        if self.steps < 1:
            raise UsageError(f"a launch runs one step or more, found {self.steps}")
        if self.steps > 1 and plan.token_loop is None:
            raise UsageError(
                f"kernel @{plan.name} runs one step a launch: only kernels from one token id to one can run several"
            )
        if not 0 <= self.pos <= plan.max_seq - plan.tokens - self.steps + 1:
            raise UsageError(
                f"a launch of {self.steps} steps can start at positions 0 to "
                f"{plan.max_seq - plan.tokens - self.steps + 1}, found {self.pos}"
            )
        if len(self.stops) > MAX_STOPS:
            raise UsageError(
                f"a launch of several steps takes at most {MAX_STOPS} stop tokens, found {len(self.stops)}"
            )


def parameter_bytes(
    plan: KernelPlan, pointers: Sequence[int], limit_s: float, launch: Launch, loop: tuple[int, int]
) -> bytes:
    """The struct: `pointers` in the order of `KernelPlan`, then numbers. loop: addresses of `arrivals` and `sent`."""
    numbers = struct.pack(f"<{len(pointers)}QQiI", *pointers, int(limit_s * 1e9), launch.pos, launch.epoch & 0xFFFFFFFF)
    if plan.token_loop is None:
        return numbers
    stops = (*launch.stops, *(-1 for _ in range(MAX_STOPS - len(launch.stops))))
    return numbers + struct.pack(
        f"<QQIii{MAX_STOPS}i4x", *loop, launch.arrived & 0xFFFFFFFF, launch.steps, len(launch.stops), *stops
    )
