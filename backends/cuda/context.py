"""What the emission of a kernel accumulates: the buffers it uses, its packed streams, operations, shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from xdsl.ir import SSAValue

from ...amk_ir.attrs import BufferKind, Ring
from ...amk_ir.errors import CompileError
from ...amk_ir.rope import turns_bytes
from ...amk_ir.segments import Segments, partials_bytes, plan_segments
from ...amk_ir.targets import get_target
from ...dialects.queue import KernelOp
from ...dialects.task import AttentionOp, AttentionPartOp, FamilyOp, MatmulOp, StreamOp, op_of, shape_of
from .caches import CacheLayout
from .plan import KernelPlan, Operation, TokenLoop
from .quantized_fragments import QuantizedLayout
from .storage import BufferStorage, StreamStorage, buffer_storage, packed_row_layout, stream_storage
from .trace_points import TraceDetail, TraceWriter


@dataclass(frozen=True)
class Loads:
    """How much a thread keeps in registers: loads issued together, enough to cover their latency, few enough to fit.

    elements: vectors of up to 16 bytes in loops over elements. inline: whether products, and attentions of one token, are
    inlined; out of line, they have registers of their own. early: whether products inlined have their first weights in registers
    before their activations. weights: vectors of bf16 weights that a thread has then, if those of a stage are fewer. rows: whether
    attentions inlined have their first keys and values there before their queries.
    gathers: whether, of several tokens, an SM's first product is made while its activations are gathered. anew: whether what
    depends on the thread is computed anew in each iteration of a loop. more: whether consumers have the registers of a
    whole producer warpgroup, if the target can move them.
    """

    elements: int
    inline: bool = True
    early: bool = True
    weights: int = 0
    rows: bool = True
    gathers: bool = True
    anew: bool = False
    more: bool = False

    @property
    def is_early(self) -> bool:
        """Whether first weights come into registers by a call of their own, which only inlined products can follow."""
        return self.inline and self.early

    @property
    def has_early_rows(self) -> bool:
        """Whether first keys and values come into registers likewise."""
        return self.inline and self.rows


@dataclass
class EmitContext:
    """State of one emission.

    loads: how many a thread issues together. partial_bytes: wanted for the partial sums of one batch of tasks.
    resident: plan of the kernel whose weights and state this one will use. token_loop: what a launch of several steps
    hands on, if the kernel can do that. borrowed: streams that only the resident kernel fetches, and this one reads rows of.
    trace: writes timestamps, if any.
    """

    kernel: KernelOp
    ring: Ring
    buffers: dict[str, BufferStorage]
    streams: dict[str, StreamStorage]
    loads: Loads
    partial_bytes: int
    trace: TraceWriter = field(default_factory=TraceWriter)
    token_loop: TokenLoop | None = None
    resident: KernelPlan | None = None
    borrowed: dict[str, StreamStorage] = field(default_factory=dict[str, StreamStorage])
    used: set[str] = field(default_factory=set[str])
    operations: list[Operation] = field(default_factory=list[Operation])
    work_bytes: int = 0
    partial_floats: int = 0
    turns: dict[str, int] = field(default_factory=dict[str, int])
    """Where the turns by the frequencies of a buffer are in shared memory, in bytes from the first."""
    turns_bytes: int = 0

    @staticmethod
    def of(
        kernel: KernelOp,
        loads: Loads,
        partial_bytes: int,
        trace: TraceDetail | None = None,
        has_token_loop: bool = False,
    ) -> EmitContext:
        """The context of `kernel`.

        Raises CompileError: no ring, a family that cannot be packed, or a token loop where no token leads to the next.
        """
        if kernel.ring is None:
            raise CompileError(
                f"kernel @{kernel.sym_name.data} has no ring: run the pass plan-stream before emitting CUDA"
            )
        ring = kernel.ring.data
        streams = {
            name: stream_storage(family, weights, ring.stage_bytes)
            for name, family in kernel.families.items()
            if (weights := weight_streams(family))
        }
        caches = cache_layouts(kernel)
        buffers = {name: buffer_storage(op, caches.get(name)) for name, op in kernel.buffers.items()}
        for stream in streams.values():
            for part in stream.parts:
                if (element := buffers[part.access.buffer].element) not in ("bf16", "quantized"):
                    raise CompileError(
                        f"weight @{part.access.buffer} of family @{stream.family} is {element}, the CUDA backend streams "
                        "bf16 and quantised weights: import the model with bf16 weights"
                    )
        loop = find_token_loop(kernel.sym_name.data, kernel.tokens.value.data, buffers) if has_token_loop else None
        tokens = kernel.tokens.value.data
        if tokens > 1 and partial_bytes > 0:
            # what the sums of the largest task need can hold those of several smaller ones, with a barrier for all of them
            partial_bytes = max([partial_bytes, *(partials_bytes(tokens, s.layout.groups) for s in streams.values())])
        context = EmitContext(kernel, ring, buffers, streams, loads, partial_bytes, TraceWriter(trace), loop)
        for storage in buffers.values():
            if storage.kind in (BufferKind.INPUT.value, BufferKind.OUTPUT.value, BufferKind.STATE.value):
                context.used.add(storage.name)
        return context

    @property
    def tokens(self) -> int:
        return self.kernel.tokens.value.data

    def pointer(self, storage: BufferStorage) -> str:
        """C++ pointer to the ids of a buffer: those that a step hands to the next one are not where the others are."""
        if self.token_loop is not None and storage.name == self.token_loop.token:
            return "(&control.end.token)"
        if self.token_loop is not None and storage.name == self.token_loop.chosen:
            return f"(p.{storage.parameter} + watch.step % 2)"
        return f"p.{storage.parameter}"

    def turns_name(self, storage: BufferStorage) -> str:
        """C++ array of (cosine, sine), [row of the step][frequency], by the frequencies in a buffer."""
        if storage.name not in self.turns:
            self.turns[storage.name] = self.turns_bytes
            self.turns_bytes += turns_bytes(self.tokens, storage.elements)
        return f"turns_{storage.name}"

    def use_buffer(self, name: str) -> None:
        """Notes that the kernel accesses a buffer directly: weights that are only streamed are not stored twice."""
        self.used.add(name)

    def operation(self, text: str, buffer: str = "") -> int:
        """The number under which stuck records name an operation; `buffer`: the tagged one that it reads."""
        operation = Operation(text, buffer)
        if operation not in self.operations:
            self.operations.append(operation)
        return self.operations.index(operation)

    def segments(self, name: str, tasks: int) -> Segments | None:
        """The segments in which a run of the family `name`, up to `tasks` tasks an SM, holds activations; None if whole."""
        layout = self.streams[name].layout
        shared = get_target(self.kernel.target.data).shared_memory_per_block
        chunk, keeps_x = layout.chunk_blocks, False
        if isinstance(layout, QuantizedLayout):
            chunk, keeps_x = layout.chunk_steps, layout.keeps_x
        return plan_segments(self.tokens, layout.k_blocks, chunk, layout.groups, tasks, shared, keeps_x)

    def packed_rows(self, buffer: str) -> tuple[StreamStorage, int, int] | None:
        """(stream, rows a task, first row) where whole rows of a weight can be read from a packed stream."""
        known = dict(self.streams)
        if self.resident is not None:
            known |= {stream.family: stream for stream in self.resident.streams}
        for stream in known.values():
            if any(part.access.buffer == buffer for part in stream.parts):
                layout = packed_row_layout(stream, buffer, self.buffers[buffer].shape)
                if layout is not None:
                    if stream.family not in self.streams:
                        self.borrowed[stream.family] = stream
                    return stream, *layout
        return None

    def need_work(self, size: int) -> None:
        """Asks for `size` bytes of the work area, which one run uses at a time."""
        self.work_bytes = max(self.work_bytes, size)


def attentions_of(family: FamilyOp) -> list[AttentionOp | AttentionPartOp]:
    """The ops of a family that attend."""
    return [op for op in family.body.block.ops if isinstance(op, AttentionOp | AttentionPartOp)]


def cache_layouts(kernel: KernelOp) -> dict[str, CacheLayout]:
    """The buffers that attention streams its keys and values from; CompileError if it does not, or if one is both."""
    result: dict[str, CacheLayout] = {}
    for name, family in kernel.families.items():
        for op in attentions_of(family):
            sides: tuple[tuple[SSAValue, Literal["keys", "values"]], ...] = ((op.k, "keys"), (op.v, "values"))
            for value, kind in sides:
                stream = op_of(value)
                if not isinstance(stream, StreamOp):
                    raise CompileError(f"family @{name}: keys and values of an attention must be streamed")
                access, shape = stream.region, kernel.buffers[stream.region.buffer].shape
                *outer, positions, heads, second, element = access.dims
                kept = [d.kept for d in (positions, heads, second, element)]
                dim = 2 * shape[-1]
                if not all(kept) or any(d.kept for d in outer) or second.extent != 2 or element.extent != shape[-1]:
                    raise CompileError(
                        f"family @{name}: {access} is not [0 : pos, kv heads, 0 : 2, 0 : {shape[-1]}] of whole heads"
                    )
                layout = CacheLayout(kind, tuple(shape[: len(outer)]), shape[-4], shape[-3], dim)
                if result.setdefault(access.buffer, layout) != layout:
                    raise CompileError(f"family @{name}: @{access.buffer} holds keys, and values too")
    return result


def find_token_loop(kernel: str, tokens: int, buffers: Mapping[str, BufferStorage]) -> TokenLoop:
    """How a step's chosen token becomes the input of the next one; CompileError if a step is not from one id to one."""
    inputs = [b for b in buffers.values() if b.kind == BufferKind.INPUT.value]
    chosen = [b for b in buffers.values() if b.kind == BufferKind.OUTPUT.value and b.element == "i32"]
    ids = [b.elements for b in (*inputs, *chosen) if b.element == "i32"]
    if tokens != 1 or len(inputs) != 1 or len(chosen) != 1 or ids != [1, 1]:
        raise CompileError(
            f"kernel @{kernel} cannot run several steps a launch: that takes one i32 input and one i32 output of one "
            f"element, found {tokens} tokens a step, {len(inputs)} inputs and {len(chosen)} i32 outputs"
        )
    return TokenLoop(inputs[0].name, chosen[0].name)


def weight_streams(family: FamilyOp) -> list[tuple[StreamOp, int]]:
    """The streams of a family but those of an attention, each with the number of trailing dimensions that are summed over.

    CompileError if one is not the weight of exactly one matmul.
    """
    attended = {value for op in attentions_of(family) for value in (op.k, op.v)}
    result: list[tuple[StreamOp, int]] = []
    for stream in family.streams:
        if stream.result in attended:
            continue
        uses = [use.operation for use in stream.result.uses]
        match uses:
            case [MatmulOp() as matmul] if matmul.w is stream.result and op_of(matmul.x) is not stream:
                result.append((stream, len(shape_of(matmul.x)) - 1))
            case _:
                raise CompileError(
                    f"family @{family.sym_name.data}: {stream_text(stream)} must be the weight of exactly one "
                    f"task.matmul, found {len(uses)} uses"
                )
    return result


def stream_text(op: StreamOp) -> str:
    """The op as IR writes it, without its type."""
    return f"{op.name} {op.region}"
