"""How buffers and weight streams are stored in device memory: the contract of emitter, packer and driver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from xdsl.dialects.builtin import BFloat16Type, Float32Type, IntegerType
from xdsl.ir import Attribute

from ...amk_ir.access import Access, Dim
from ...amk_ir.attrs import BufferKind, CheckpointAttr, RopeFrequenciesAttr
from ...amk_ir.errors import CompileError
from ...amk_ir.linear import Linear
from ...amk_ir.quantized_type import QuantizedType
from ...amk_ir.segments import BLOCK_K, GROUP_ROWS
from ...dialects.task import BufferOp, FamilyOp, StreamOp
from .caches import CacheLayout
from .fragments import FragmentLayout
from .quantized_fragments import QuantizedLayout

WHOLE_ROWS = 1 << 40
"""More bytes than eight rows have."""


@dataclass(frozen=True)
class BufferStorage:
    """A buffer in device memory: row-major elements, or tagged words (device/tagged.cuh), 4 bytes each.

    element: "f32", "bf16" or "i32"; "quantized" is as `quantized` says, and stored as `rows_layout`. source: where a weight
    comes from. layered: one checkpoint entry for each value of the first dimension. cache: the order of the elements of
    keys or values.
    """

    name: str
    kind: str
    element: str
    shape: tuple[int, ...]
    tagged: bool
    layered: bool = False
    source: CheckpointAttr | RopeFrequenciesAttr | None = None
    quantized: QuantizedType | None = None
    cache: CacheLayout | None = None

    @property
    def elements(self) -> int:
        return prod(self.shape) if self.cache is None else self.cache.elements

    @property
    def element_bytes(self) -> int:
        return {"f32": 4, "bf16": 2, "i32": 4}[self.element]

    @property
    def bytes(self) -> int:
        if self.quantized is not None:
            return -(-self.elements // self.quantized.columns // GROUP_ROWS) * self.rows_layout.task_bytes
        return self.elements * self.element_bytes

    @property
    def is_known_before_step(self) -> bool:
        """Whether no task writes it, so that it can be read at the begin of a step."""
        return self.kind in (BufferKind.WEIGHT.value, BufferKind.INPUT.value)

    @property
    def rows_layout(self) -> QuantizedLayout:
        """The layout of eight rows of a quantised weight that is not streamed."""
        assert self.quantized is not None
        return QuantizedLayout(GROUP_ROWS, self.quantized.columns, WHOLE_ROWS, self.quantized.format)

    @property
    def c_type(self) -> str:
        if self.quantized is not None:
            return "const u8"
        return "u32" if self.tagged else {"f32": "float", "bf16": "u16", "i32": "int"}[self.element]

    @property
    def parameter(self) -> str:
        return f"b_{self.name}"


@dataclass(frozen=True)
class StreamPart:
    """One `task.stream` of a family: the rows [first_row, first_row + rows) of every packed task."""

    access: Access
    first_row: int
    rows: int


@dataclass(frozen=True)
class StreamStorage:
    """The packed weights of a family: one block for each task, in row-major order of the domain."""

    family: str
    domain: tuple[tuple[str, int], ...]
    parts: tuple[StreamPart, ...]
    layout: FragmentLayout | QuantizedLayout

    @property
    def tasks(self) -> int:
        return prod(e for _, e in self.domain)

    @property
    def bytes(self) -> int:
        return self.tasks * self.layout.task_bytes

    @property
    def parameter(self) -> str:
        return f"s_{self.family}"

    @property
    def uncut(self) -> StreamStorage:
        """The same bytes, as tasks of whole rows, if the innermost index numbers parts of the columns of bf16 weights.

        Columns are the outermost dimension of a packed task, so its parts follow each other, packed by themselves.
        """
        layout = self.layout
        if not self.domain or not isinstance(layout, FragmentLayout) or layout.k % BLOCK_K:
            return self
        index, count = self.domain[-1]
        parts: list[StreamPart] = []
        for part in self.parts:
            if (access := _without_parts(part.access, index, count, layout.k)) is None:
                return self
            parts.append(replace(part, access=access))
        return replace(self, domain=self.domain[:-1], parts=tuple(parts), layout=replace(layout, k=layout.k * count))


def _without_parts(access: Access, index: str, count: int, k: int) -> Access | None:
    """The region of all `count` values of `index` if it numbers parts of the columns, k each; None if it does not."""
    dims = access.dims
    at = next((n for n, dim in enumerate(dims) if index in dim.start.names), len(dims) - 1)
    cut, inner = dims[at], dims[at + 1 :]
    size = cut.size
    is_part = cut == Dim(Linear.of(index) * size.constant, size) and all(d == Dim(Linear(), d.size) for d in inner)
    if not is_part or size.constant * prod(d.size.constant for d in inner) != k:
        return None
    return Access(access.buffer, (*dims[:at], Dim(Linear(), size * count), *inner))


def element_name(type: Attribute, what: str) -> str:
    """The name of an element type: f32, bf16, i32 or quantized; CompileError for any other, of the buffer called `what`."""
    if isinstance(type, QuantizedType):
        return "quantized"
    if isinstance(type, Float32Type):
        return "f32"
    if isinstance(type, BFloat16Type):
        return "bf16"
    if isinstance(type, IntegerType) and type.width.data == 32:
        return "i32"
    raise CompileError(
        f"buffer @{what} has elements of type {type}; the CUDA backend stores f32, bf16, i32 and quantised"
    )


def buffer_storage(op: BufferOp, cache: CacheLayout | None = None) -> BufferStorage:
    """The storage of a buffer, of keys or values with the layout `cache`."""
    element = op.type.get_element_type()
    return BufferStorage(
        name=op.sym_name.data,
        kind=op.kind.data.value,
        element=element_name(element, op.sym_name.data),
        shape=tuple(op.shape),
        tagged=op.tagged is not None,
        layered=op.kind.data is BufferKind.WEIGHT and op.is_layered,
        source=op.source,
        cache=cache,
        quantized=element if isinstance(element, QuantizedType) else None,
    )


def stream_storage(family: FamilyOp, streams: Sequence[tuple[StreamOp, int]], stage_bytes: int) -> StreamStorage:
    """The packing of a family's `streams`, each with the number of its trailing dimensions that are its k."""
    name = family.sym_name.data
    parts: list[StreamPart] = []
    row, lengths, elements = 0, set[int](), set[Attribute]()
    for op, inner in streams:
        shape = op.region.tile_shape
        rows, k = prod(shape[: len(shape) - inner]), prod(shape[len(shape) - inner :])
        parts.append(StreamPart(op.region, row, rows))
        lengths.add(k)
        elements.add(op.result.type.get_element_type())
        row += rows
    if len(lengths) != 1:
        raise CompileError(f"family @{name} streams tiles of different row lengths {sorted(lengths)}: split it")
    if len(elements) != 1:
        kinds = " and ".join(sorted(map(str, elements)))
        raise CompileError(f"family @{name} streams tiles of different types {kinds}: split it")
    element = elements.pop()
    if isinstance(element, QuantizedType):
        quantized = QuantizedLayout(row, lengths.pop(), stage_bytes, element.format)
        if quantized.problem is not None:
            raise CompileError(f"family @{name}, format {element.format}: {quantized.problem}")
        return StreamStorage(name, family.domain.data, tuple(parts), quantized)
    layout = FragmentLayout(row, lengths.pop(), stage_bytes)
    if layout.chunk_blocks == 0:
        raise CompileError(
            f"family @{name} streams {layout.rows} rows a task: one block of {BLOCK_K} columns does not fit a ring "
            f"stage of {stage_bytes} bytes; use smaller tiles or larger stages"
        )
    return StreamStorage(name, family.domain.data, tuple(parts), layout)


def packed_row_layout(stream: StreamStorage, buffer: str, shape: Sequence[int]) -> tuple[int, int] | None:
    """How whole rows of a streamed `buffer` of `shape` can be found in the packed stream, or None.

    (rows a task holds, first row of the part): row v of the buffer is row `first + v % rows` of task `v // rows`. Holds
    when the buffer's first dimension is cut into equal tiles numbered by the only index of the domain, and all other
    dimensions are the task's k. Then an embedding that is also the head needs no second copy.
    """
    if len(stream.domain) != 1:
        return None
    index = stream.domain[0][0]
    for part in stream.parts:
        if part.access.buffer != buffer:
            continue
        first, *others = part.access.dims
        whole = all(d.kept and d.start.is_constant and d.start.constant == 0 for d in others) and [
            d.extent for d in others
        ] == list(shape[1:])
        rows = first.extent
        cut = first.start.coefficient(index) == rows and first.start.constant == 0 and len(first.start.terms) == 1
        if whole and first.kept and cut and part.rows == rows and prod(shape[1:]) == stream.layout.k:
            return rows, part.first_row
    return None


def packed_offset(stream: StreamStorage, rows: int, first_row: int, row: str, column: str) -> str:
    """C++ element number of `row`, `column` (expressions) of a buffer with that `packed_row_layout`."""
    layout = stream.layout
    block = GROUP_ROWS * BLOCK_K
    in_task = f"(({row}) % {rows} + {first_row})"
    return (
        f"(long long)(({row}) / {rows}) * {layout.task_bytes // 2}"
        f" + ((({column}) / {BLOCK_K}) * {layout.groups} + {in_task} / {GROUP_ROWS}) * {block}"
        f" + ({in_task} % {GROUP_ROWS}) * {BLOCK_K} + ({column}) % {BLOCK_K}"
    )
