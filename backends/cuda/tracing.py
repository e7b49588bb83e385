"""A traced kernel beside the untraced one, over the same memory: what each block did in a step, and when."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ...amk_ir.errors import CompileError, DeviceError
from .compile import CompiledKernel
from .driver import LoadedKernel, Variant, load_function
from .driver_api import check
from .emit import ENTRY
from .plan import KernelPlan
from .trace_points import TRACE_HEADER

MAX_EVENTS = 1 << 22
"""Of a row: its bytes must stay below 2^32."""


@dataclass(frozen=True)
class TraceRow:
    """What one warp of a block noted, in order.

    clocks: u32 [n], of the SM, modulo 2^32. codes: u32 [n], point and index. dropped: events that had no room.
    """

    clocks: NDArray[np.uint32]
    codes: NDArray[np.uint32]
    dropped: int


@dataclass(frozen=True)
class BlockTrace:
    """A block's rows, and its SM's clock (modulo 2^32) at two times of the GPU's timer (ns): near the start, and at its end
    when the timer had just changed, by `tick_ns`. align_ns is 0 if the block was never there."""

    consumers: TraceRow
    producer: TraceRow
    begin_ns: int
    begin_clock: int
    align_ns: int
    align_clock: int
    tick_ns: int


def rows_bytes(grid: int, events: int) -> int:
    """Bytes of the rows of `grid` blocks with room for `events` events each."""
    return 8 * grid * 2 * (TRACE_HEADER + events)


def read_rows(data: NDArray[np.uint8], grid: int, events: int) -> list[BlockTrace]:
    """The blocks' traces in memory that a traced kernel has written, of `rows_bytes(grid, events)` bytes."""
    words = data.view(np.uint64).reshape(grid, 2, TRACE_HEADER + events)
    return [_block(block, events) for block in words]


def _block(block: NDArray[np.uint64], events: int) -> BlockTrace:
    rows: list[TraceRow] = []
    for row in block:
        reached = int(row[0])
        kept = row[TRACE_HEADER : TRACE_HEADER + min(reached, events)]
        clocks, codes = (kept & np.uint64(0xFFFFFFFF)).astype(np.uint32), (kept >> np.uint64(32)).astype(np.uint32)
        rows.append(TraceRow(clocks, codes, max(0, reached - events)))
    _, begin_ns, align_ns, clocks, tick_ns = (int(word) for word in block[1][:TRACE_HEADER])
    return BlockTrace(rows[0], rows[1], begin_ns, clocks & 0xFFFFFFFF, align_ns, clocks >> 32, tick_ns)


def comparable(plan: KernelPlan) -> KernelPlan:
    """What a traced and an untraced plan of one schedule have in common."""
    return replace(plan, trace=None, trace_points=(), dynamic_shared=0, threads=0)


class TracedKernel:
    """The traced kernel `compiled`, which runs in the memory of `loaded`, made from the same schedule.

    events: how many a row has room for. Steps of both kernels may follow each other in any order.
    """

    def __init__(self, loaded: LoadedKernel, compiled: CompiledKernel, events: int):
        """Raises CompileError (not traced, or another plan) and DeviceError (no memory)."""
        plan = compiled.plan
        if plan.trace is None or comparable(plan) != comparable(loaded.plan):
            raise CompileError(f"kernel @{plan.name} is no traced form of the loaded kernel @{loaded.plan.name}")
        if not 0 < events <= MAX_EVENTS:
            raise DeviceError(f"kernel @{plan.name}: room for 1 to {MAX_EVENTS} events a row, found {events}")
        self.plan, self.events, self.loaded = plan, events, loaded
        self._driver = loaded.activate()
        self._module, function = load_function(self._driver, loaded.info, plan, compiled.image, ENTRY)
        self._memory = None
        try:
            self._bytes = rows_bytes(plan.grid, events)
            self._memory = check(
                self._driver.cuMemAlloc(self._bytes), f"allocating {self._bytes >> 20} MiB for {events} events a row"
            )
            check(self._driver.cuMemsetD8(self._memory, 0, self._bytes), "clearing the trace")
        except BaseException:
            self.close()
            raise
        self.variant = Variant(function, plan.threads, plan.dynamic_shared, (int(self._memory), events))

    def step(self, pos: int) -> list[BlockTrace]:
        """Runs the step at `pos` with the inputs written before, and returns what the blocks noted, by block.

        Raises StuckWaitError and DeviceError as `LoadedKernel.finish`.
        """
        self.loaded.activate()
        self.loaded.launch(pos, variant=self.variant)
        self.loaded.finish()
        data = np.zeros(self._bytes, np.uint8)
        check(self._driver.cuMemcpyDtoH(data.ctypes.data, self._memory, data.nbytes), "copying the trace")
        return read_rows(data, self.plan.grid, self.events)

    def time_turns(self, pos: int, repeats: int, rounds: int = 10) -> tuple[list[float], list[float]]:
        """Microseconds of at least `repeats` launches of the untraced and of the traced kernel, by turns."""
        untraced: list[float] = []
        traced: list[float] = []
        for _ in range(rounds):
            for times, variant in ((untraced, None), (traced, self.variant)):
                each = self.loaded.time_steps(pos, -(-repeats // rounds), variant=variant)
                times += [milliseconds * 1e3 for milliseconds in each]
        return untraced, traced

    def close(self) -> None:
        """Frees the trace's memory and the kernel. May be called twice, and before `loaded` is closed."""
        if self._module is None:
            return
        self.loaded.activate()
        self._driver.cuCtxSynchronize()
        if self._memory is not None:
            self._driver.cuMemFree(self._memory)
        self._driver.cuModuleUnload(self._module)
        self._memory = self._module = None
