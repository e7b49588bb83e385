"""The plan of an emitted kernel: what the packer and the driver have to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from ...amk_ir.attrs import BufferKind, Ring
from .storage import BufferStorage, StreamStorage
from .trace_points import TraceDetail, TracePoint

ALIGNMENT = 256
"""Bytes; every buffer starts at a multiple."""
COUNTER_STRIDE = 8
"""Words from one counter to the next; as in device/counters.cuh."""


def aligned(size: int) -> int:
    """`size` rounded up to a multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True)
class CounterStorage:
    """An array of counters, `offset` counters into the kernel's counter memory. totals: signals per step of each."""

    name: str
    offset: int
    totals: tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """An operation that waits, as IR text; `buffer`: the tagged buffer that it reads, "" for others."""

    text: str
    buffer: str = ""


@dataclass(frozen=True)
class TokenLoop:
    """The buffers that make several steps of a launch follow each other: the input `token` and the output `chosen`.

    Each has one element. In device memory, `chosen` has two: steps of a launch write them in turn, so that no step
    overwrites what another SM has still to read.
    """

    token: str
    chosen: str


@dataclass(frozen=True)
class Region:
    """`size` bytes at `offset` of the packed weights, for the kernel parameter `parameter`."""

    parameter: str
    offset: int
    size: int


@dataclass(frozen=True)
class KernelPlan:
    """Everything beside the cubin.

    buffers: those that the kernel accesses directly. weights: all weights, also those that are only streamed.

    Kernel parameters, one struct: a pointer for each of `pointers`, then the pointers to counters, stuck records and
    abort flag, then u64 time limit in ns, i32 position, u32 epoch, and, with `token_loop`, the struct TokenLoop of
    device/token_loop.cuh. `operations[i]` is the operation that a
    stuck record calls i. trace: what a traced kernel notes; then a pointer to its rows and the u64 number of
    events that a row has room for follow the pointer to the abort flag. `trace_points[i]` is what ends at a timestamp of
    point i.
    """

    name: str
    target: str
    grid: int
    threads: int
    max_seq: int
    tokens: int
    ring: Ring
    dynamic_shared: int
    buffers: tuple[BufferStorage, ...]
    weights: tuple[BufferStorage, ...]
    streams: tuple[StreamStorage, ...]
    counters: tuple[CounterStorage, ...]
    operations: tuple[Operation, ...]
    trace: TraceDetail | None = None
    trace_points: tuple[TracePoint, ...] = ()
    token_loop: TokenLoop | None = None

    def stored_bytes(self, buffer: BufferStorage) -> int:
        """Device memory of a buffer."""
        is_chosen = self.token_loop is not None and buffer.name == self.token_loop.chosen
        return 2 * buffer.bytes if is_chosen else buffer.bytes

    @property
    def pointers(self) -> tuple[str, ...]:
        """The names of the pointer parameters, in order."""
        return (*(b.parameter for b in self.buffers), *(s.parameter for s in self.streams))

    @property
    def constants(self) -> tuple[BufferStorage, ...]:
        """The weights that the kernel reads directly, besides those that it streams."""
        return tuple(b for b in self.buffers if b.kind == BufferKind.WEIGHT.value)

    @property
    def weight_regions(self) -> tuple[Region, ...]:
        """The packed weights: constants, then streams, each at a multiple of ALIGNMENT bytes."""
        regions: list[Region] = []
        offset = 0
        for item in (*self.constants, *self.streams):
            regions.append(Region(item.parameter, offset, item.bytes))
            offset += aligned(item.bytes)
        return tuple(regions)

    @property
    def weight_bytes(self) -> int:
        """Size of the packed weights."""
        return sum(aligned(region.size) for region in self.weight_regions)

    @property
    def counter_words(self) -> int:
        return max(1, sum(len(c.totals) for c in self.counters)) * COUNTER_STRIDE

    def counter_of(self, index: int) -> str:
        """The counter with number `index` in counter memory, as IR writes it: `@done[3]`."""
        for counter in self.counters:
            if counter.offset <= index < counter.offset + len(counter.totals):
                return f"@{counter.name}[{index - counter.offset}]"
        return f"counter {index}"

    def counter_total(self, index: int) -> int:
        """Signals per step of the counter with number `index` in counter memory."""
        totals = [total for counter in self.counters for total in counter.totals]
        return totals[index] if index < len(totals) else 0
