"""What the emission of a kernel accumulates: the buffers it uses, its packed streams, operations, shared memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...amk_ir.attrs import BufferKind, Ring
from ...amk_ir.errors import CompileError
from ...dialects.queue import KernelOp
from ...dialects.task import FamilyOp, MatmulOp, StreamOp, op_of, shape_of
from .plan import Operation
from .source import SourceWriter
from .storage import BufferStorage, StreamStorage, buffer_storage, packed_row_layout, stream_storage


@dataclass(frozen=True)
class Loads:
    """Loads that a thread issues together: enough to cover their latency, few enough for the registers.

    elements: vectors of up to 16 bytes in loops over elements. attention: 16 bytes each, of keys and values.
    """

    elements: int
    attention: int


@dataclass
class EmitContext:
    """State of one emission.

    loads: how many a thread issues together. partial_bytes: wanted for the partial sums of one batch of tasks.
    started: numbers of the runs whose first loads are issued before their waits; asked: those whose queries, too, are
    ready before.
    """

    kernel: KernelOp
    ring: Ring
    buffers: dict[str, BufferStorage]
    streams: dict[str, StreamStorage]
    loads: Loads
    partial_bytes: int
    is_traced: bool = False
    points: list[str] = field(default_factory=lambda: ["wait for the ring", "products of a stage"])
    used: set[str] = field(default_factory=set[str])
    operations: list[Operation] = field(default_factory=list[Operation])
    started: set[int] = field(default_factory=set[int])
    asked: set[int] = field(default_factory=set[int])
    work_bytes: int = 0
    partial_floats: int = 0

    @staticmethod
    def of(kernel: KernelOp, loads: Loads, partial_bytes: int, is_traced: bool = False) -> EmitContext:
        """The context of `kernel`; CompileError if it has no ring or a family that cannot be packed."""
        if kernel.ring is None:
            raise CompileError(
                f"kernel @{kernel.sym_name.data} has no ring: run the pass plan-stream before emitting CUDA"
            )
        ring = kernel.ring.data
        streams = {
            name: stream_storage(family, contracted_dimensions(family), ring.stage_bytes)
            for name, family in kernel.families.items()
            if family.streams
        }
        buffers = {name: buffer_storage(op) for name, op in kernel.buffers.items()}
        for stream in streams.values():
            for part in stream.parts:
                if (element := buffers[part.access.buffer].element) not in ("bf16", "quantized"):
                    raise CompileError(
                        f"weight @{part.access.buffer} of family @{stream.family} is {element}, the CUDA backend streams "
                        "bf16 and quantised weights: import the model with bf16 weights"
                    )
        context = EmitContext(kernel, ring, buffers, streams, loads, partial_bytes, is_traced)
        for storage in buffers.values():
            if storage.kind in (BufferKind.INPUT.value, BufferKind.OUTPUT.value, BufferKind.STATE.value):
                context.used.add(storage.name)
        return context

    @property
    def tokens(self) -> int:
        return self.kernel.tokens.value.data

    def use_buffer(self, name: str) -> None:
        """Notes that the kernel accesses a buffer directly: weights that are only streamed are not stored twice."""
        self.used.add(name)

    def operation(self, text: str, buffer: str = "") -> int:
        """The number under which stuck records name an operation; `buffer`: the tagged one that it reads."""
        operation = Operation(text, buffer)
        if operation not in self.operations:
            self.operations.append(operation)
        return self.operations.index(operation)

    def packed_rows(self, buffer: str) -> tuple[StreamStorage, int, int] | None:
        """(stream, rows a task, first row) where whole rows of a weight can be read from a packed stream."""
        for stream in self.streams.values():
            if any(part.access.buffer == buffer for part in stream.parts):
                layout = packed_row_layout(stream, buffer, self.buffers[buffer].shape)
                if layout is not None:
                    return stream, *layout
        return None

    def mark(self, source: SourceWriter, text: str) -> None:
        """Writes a timestamp of what ends here into a traced kernel."""
        if not self.is_traced:
            return
        if text not in self.points:
            self.points.append(text)
        source.line(f"watch.trace.mark({self.points.index(text)});")

    def need_work(self, size: int) -> None:
        """Asks for `size` bytes of the work area, which one run uses at a time."""
        self.work_bytes = max(self.work_bytes, size)


def contracted_dimensions(family: FamilyOp) -> list[int]:
    """For each stream of a family, the number of its trailing dimensions that its matmul sums over.

    CompileError if a stream is not the weight of exactly one matmul.
    """
    result: list[int] = []
    for stream in family.streams:
        uses = [use.operation for use in stream.result.uses]
        match uses:
            case [MatmulOp() as matmul] if matmul.w is stream.result and op_of(matmul.x) is not stream:
                result.append(len(shape_of(matmul.x)) - 1)
            case _:
                raise CompileError(
                    f"family @{family.sym_name.data}: {stream_text(stream)} must be the weight of exactly one "
                    f"task.matmul, found {len(uses)} uses"
                )
    return result


def stream_text(op: StreamOp) -> str:
    """The op as IR writes it, without its type."""
    return f"{op.name} {op.region}"
