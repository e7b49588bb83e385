"""Tile values as C++ scalars: the value of any pointwise chain at one coordinate, and the loops that evaluate it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdsl.ir import SSAValue

from ...amk_ir.access import Access
from ...amk_ir.errors import CompileError
from ...amk_ir.linear import Linear
from ...dialects.task import (
    AddOp,
    BiasAddOp,
    FamilyOp,
    GatherOp,
    LoadOp,
    RopeOp,
    SiluMulOp,
    StoreOp,
    SumPartsOp,
    op_of,
    shape_of,
)
from .coordinates import Address, Coordinates, Segment, address_of, index_texts, inside_text, row_major_strides
from .quantized_text import constant_rows_type, packed_rows_type
from .source import SourceWriter
from .storage import BufferStorage, packed_offset
from .trace_points import PointKind

if TYPE_CHECKING:
    from .context import EmitContext

CONSUMERS = 256
"""Consumer threads of a block; as in device/types.cuh."""
PLAIN_UNROLL = 16
"""Loads that a thread issues together where it does little else."""

VECTOR = 4
"""Words that a thread loads together where it can."""
MOST_PARTS = 32
"""Parts of an element that are summed: loads of tagged words are numbered by the bits of a word."""

Given = Callable[[Coordinates], str]


@dataclass(frozen=True)
class Leaf:
    """One load of a pointwise program: read ahead into an array `name`, one element for each unrolled iteration.

    With several `parts`, `stride` elements apart, each is read of each of them.
    """

    name: str
    pointer: str
    address: Address
    tagged: bool
    is_f32: bool
    operation: int
    parts: int = 1
    stride: int = 0

    @property
    def is_run(self) -> bool:
        """Whether neighbours may be read together."""
        return self.address.vectors == "i" and self.stride % VECTOR == 0


@dataclass
class TaskText:
    """How the indices of a task appear in the text: bound ones as expressions of loop indices, others by name."""

    family: FamilyOp
    bound: Mapping[str, Linear]

    @property
    def own(self) -> frozenset[str]:
        """The indices that the run does not bind."""
        return frozenset(n for n in self.family.domain.names if n not in self.bound)

    @property
    def name(self) -> str:
        return self.family.sym_name.data


@dataclass
class ValueWriter:
    """Writes the statements that compute tile values at coordinates, collecting the loads that they need.

    `given` says how to read values that are computed elsewhere (products, attention results, norms). `prefix` begins
    the names of the arrays of loaded values.
    """

    context: EmitContext
    task: TaskText
    given: Mapping[SSAValue, Given]
    prefix: str = "load"
    leaves: list[Leaf] = field(default_factory=list[Leaf])
    lines: list[str] = field(default_factory=list[str])
    _known: dict[tuple[SSAValue, Coordinates], str] = field(default_factory=dict[tuple[SSAValue, Coordinates], str])

    @property
    def has_words(self) -> bool:
        """Whether tagged words are among what is loaded."""
        return any(leaf.tagged for leaf in self.leaves)

    def value(self, value: SSAValue, at: Coordinates) -> str:
        """An expression for `value` at `at`, valid after `lines`."""
        key = (value, at)
        if key not in self._known:
            self._known[key] = self._compute(value, at)
        return self._known[key]

    def _compute(self, value: SSAValue, at: Coordinates) -> str:
        if (given := self.given.get(value)) is not None:
            return self._name(given(at))
        op = op_of(value)
        match op:
            case LoadOp():
                return self._load(op, at)
            case GatherOp():
                return self._gather(op, at)
            case AddOp():
                return self._name(f"{self.value(op.lhs, at)} + {self.value(op.rhs, at)}")
            case SiluMulOp():
                return self._name(f"silu({self.value(op.lhs, at)}) * {self.value(op.rhs, at)}")
            case BiasAddOp():
                bias = self.value(op.bias, at.select(range(1, len(at.shape))))
                return self._name(f"{self.value(op.x, at)} + {bias}")
            case RopeOp():
                return self._rope(op, at)
            case SumPartsOp():
                return self._sum_parts(op, at)
            case _:
                name = "a block argument" if op is None else f"'{op.name}'"
                raise CompileError(f"family @{self.task.name}: the CUDA backend cannot emit {name} here")

    def _rope(self, op: RopeOp, at: Coordinates) -> str:
        axis = len(at.shape) - 2
        half = at.dims[axis]
        frequencies = op_of(op.frequencies)
        if not isinstance(frequencies, LoadOp) or not self.storage(frequencies.region).is_known_before_step:
            raise CompileError(
                f"family @{self.task.name}: the frequencies of a task.rope must be loaded from a weight or an input"
            )
        storage = self.storage(frequencies.region)
        self.context.use_buffer(storage.name)
        frequency = self.address(frequencies.region, at.select([axis + 1]))
        own, partner = self.value(op.x, at), self.value(op.x, at.with_dim(axis, f"1 - ({half})"))
        turn = f"turn{len(self.lines)}"
        where = f"({at.dims[0]}) * {storage.elements} + {frequency.offset}"
        self.lines.append(f"const float2 {turn} = {self.context.turns_name(storage)}[{where}];")
        return self._name(f"{own} * {turn}.x + (({half}) == 0 ? -{partner} : {partner}) * {turn}.y")

    def _sum_parts(self, op: SumPartsOp, at: Coordinates) -> str:
        load, parts = op_of(op.x), shape_of(op.x)[1]
        if not isinstance(load, LoadOp):
            raise CompileError(
                f"family @{self.task.name}: the CUDA backend sums parts that are loaded, found {op.x.owner}"
            )
        if parts > MOST_PARTS:
            raise CompileError(
                f"family @{self.task.name}: at most {MOST_PARTS} parts are summed at once, found {parts}"
            )
        storage = self.storage(load.region)
        self.context.use_buffer(storage.name)
        axis = [number for number, dim in enumerate(load.region.dims) if dim.kept][1]
        rest = at.select(range(1, len(at.shape)))
        first = Coordinates((*at.select([0]).segments, Segment("0", (parts,)), *rest.segments))
        leaf = self._new_leaf(
            f"p.{storage.parameter}",
            self.address(load.region, first),
            storage,
            load.region,
            (parts, row_major_strides(storage.shape)[axis]),
        )
        if parts == 1:
            return f"{leaf.name}[u]"
        return self._name(f"sum_of_parts<{parts}, {leaf.name}_vector>({leaf.name}, u)")

    def _name(self, expression: str) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"const float {name} = {expression};")
        return name

    def storage(self, access: Access) -> BufferStorage:
        return self.context.buffers[access.buffer]

    def address(self, access: Access, at: Coordinates) -> Address:
        """Where an element of a tile lies in its buffer."""
        storage, access = self.storage(access), access.substitute(self.task.bound)
        if storage.cache is not None:
            where = index_texts(access, at, self.task.own)
            return Address(storage.cache.offset_text(where), inside_text(access, at, self.task.own))
        return address_of(access, storage.shape, at, self.task.own)

    def _load(self, op: LoadOp, at: Coordinates) -> str:
        storage = self.storage(op.region)
        if storage.element == "i32":
            raise CompileError(f"family @{self.task.name}: integers of @{storage.name} cannot be used as numbers")
        self.context.use_buffer(storage.name)
        return self._leaf(f"p.{storage.parameter}", self.address(op.region, at), storage, op.region)

    def _gather(self, op: GatherOp, at: Coordinates) -> str:
        ids = op_of(op.ids)
        if not isinstance(ids, LoadOp) or self.storage(ids.region).element != "i32":
            raise CompileError(f"family @{self.task.name}: the ids of a gather must be a loaded i32 tile")
        self.context.use_buffer(ids.region.buffer)
        storage = self.storage(op.region)
        id_at = self.address(ids.region, at.select([0]))
        row = f"clamp_row({self.context.pointer(self.storage(ids.region))}[{id_at.offset}], {op.region.dims[0].extent})"
        rest = at.select(range(1, len(at.shape)))
        packed = self.context.packed_rows(storage.name)
        if packed is None:
            self.context.use_buffer(storage.name)
            whole = Coordinates((Segment(row, (op.region.dims[0].extent,)), *rest.segments))
            address, pointer = self.address(op.region, whole), f"p.{storage.parameter}"
            if storage.quantized is not None:
                pointer = f"{constant_rows_type(storage)}{{p.{storage.parameter}}}"
        else:
            stream, rows, first_row = packed
            columns = Access(op.region.buffer, op.region.dims[1:]).substitute(self.task.bound)
            column = address_of(columns, storage.shape[1:], rest, self.task.own)
            if storage.quantized is None:
                address = Address(packed_offset(stream, rows, first_row, row, column.offset), column.inside)
                pointer = f"reinterpret_cast<const u16*>(p.{stream.parameter})"
            else:
                pointer = f"{packed_rows_type(stream, rows, first_row)}{{p.{stream.parameter}}}"
                address = Address(f"(long long)({row}) * {stream.layout.k} + {column.offset}", column.inside)
        return self._leaf(pointer, address, storage, op.region)

    def _leaf(self, pointer: str, address: Address, storage: BufferStorage, access: Access) -> str:
        return f"{self._new_leaf(pointer, address, storage, access).name}[u]"

    def _new_leaf(
        self,
        pointer: str,
        address: Address,
        storage: BufferStorage,
        access: Access,
        parts: tuple[int, int] = (1, 0),
    ) -> Leaf:
        for leaf in self.leaves:
            if (leaf.pointer, leaf.address, leaf.parts, leaf.stride) == (pointer, address, *parts):
                return leaf
        # without the family's name: runs that read the same tile share the text that reads it
        operation = self.context.operation(f"the read of {access}", access.buffer) if storage.tagged else 0
        name, is_f32 = f"{self.prefix}{len(self.leaves)}", storage.element == "f32"
        self.leaves.append(Leaf(name, pointer, address, storage.tagged, is_f32, operation, *parts))
        return self.leaves[-1]

    def store(self, op: StoreOp, at: Coordinates) -> None:
        """Statements that compute the stored value at `at` and write it."""
        value = self.value(op.value, at)
        storage = self.storage(op.region)
        self.context.use_buffer(storage.name)
        address = self.address(op.region, at)
        target = f"p.{storage.parameter} + ({address.offset})"
        write = f"store_tagged({target}, {value}, epoch);" if storage.tagged else f"store_value({target}, {value});"
        self.lines.append(f"if ({address.inside}) {write}" if address.inside else write)


@dataclass(frozen=True)
class ElementLoop:
    """How the consumers share the elements i < `total` (C++): in a round, each of them takes `unroll` vectors.

    vector: neighbours of a vector. most: what `total` is at most.
    """

    total: str
    most: int
    unroll: int
    vector: int = 1

    @staticmethod
    def of(values: ValueWriter, total: str, most: int, unroll: int) -> ElementLoop:
        """The loop in which `values` are computed; vectors where all its tagged words can be loaded so.

        `unroll`: vectors that a thread may load together.
        """
        tagged = [leaf for leaf in values.leaves if leaf.tagged]
        whole = total == str(most) and most % VECTOR == 0
        vector = VECTOR if tagged and whole and all(leaf.is_run for leaf in tagged) else 1
        per_thread = -(-most // vector // CONSUMERS)
        unroll = max(1, min(unroll, MOST_PARTS) // max((leaf.parts for leaf in values.leaves), default=1))
        rounds = -(-per_thread // unroll)
        return ElementLoop(total, most, max(1, -(-per_thread // rounds)) if rounds else 1, vector)

    @property
    def is_single(self) -> bool:
        """Whether one round is enough, so that its loads can be written apart from the rest."""
        return self.most <= CONSUMERS * self.unroll * self.vector

    def write(self, source: SourceWriter, values: ValueWriter, prelude: Sequence[str] = ()) -> None:
        """All rounds: loads all leaves, then executes the lines.

        `prelude` defines what the coordinates use besides i. All loads of a thread are issued before the first is used.
        """
        with self.rounds(source):
            self.write_loads(source, values, prelude)
            self.write_elements(source, values.lines, prelude)
            write_finished(source, [values])

    def rounds(self, source: SourceWriter):
        """The loop over rounds; `base` is this thread's first vector of one. Who has none goes along with its warp, or what
        follows would find the warp divided, and sums over it would take long."""
        is_known = self.vector > 1 or self.total == str(self.most)
        count = str(-(-self.most // self.vector // 32) * 32) if is_known else f"({self.total} + 31) / 32 * 32"
        step = f"CONSUMERS * {self.unroll}" if self.unroll > 1 else "CONSUMERS"
        return source.block(f"for (int base = threadIdx.x; base < {count}; base += {step})")

    def write_rows(self, source: SourceWriter, values: ValueWriter, put: str) -> None:
        """As `write_elements` of the lines of `values`, which set `row[i % vector]`; `put` then stores a vector of `row`."""
        source.unrolled(self.unroll)
        with source.block(f"for (int n = 0; n < {self.unroll}; ++n)"):
            source.line(f"const int first = (base + n * CONSUMERS) * {self.vector};")
            with source.block(f"if (first < {self.total})"):
                source.line(f"float row[{self.vector}];")
                source.unrolled(self.vector)
                with source.block(f"for (int v = 0; v < {self.vector}; ++v)"):
                    source.line(f"const int i = first + v, u = n * {self.vector} + v;")
                    source.lines(values.lines)
                source.line(put)

    def write_elements(self, source: SourceWriter, lines: Sequence[str], prelude: Sequence[str] = ()) -> None:
        """Executes `lines` for this thread's elements of the round that begins at `base`; `u` numbers them."""
        element = "base + u * CONSUMERS"
        if self.vector > 1:
            element = f"(base + u / {self.vector} * CONSUMERS) * {self.vector} + u % {self.vector}"
        self._loop(source, self.unroll * self.vector, element, [*prelude, *lines])

    def write_loads(self, source: SourceWriter, values: ValueWriter, prelude: Sequence[str] = ()) -> None:
        """Loads the leaves of this thread's elements of the round that begins at `base`."""
        self.write_issue(source, values, prelude)
        write_finish(source, [values])

    def write_issue(self, source: SourceWriter, values: ValueWriter, prelude: Sequence[str] = ()) -> None:
        """Starts all loads, tagged ones last."""
        for leaf in sorted(values.leaves, key=lambda leaf: leaf.tagged):
            name, vector, parts = leaf.name, self._vector(leaf), leaf.parts
            inside = f"if ({leaf.address.inside}) " if leaf.address.inside else ""
            count, number, offset, each = self.unroll * self.vector * parts, "u", leaf.address.offset, ""
            if parts > 1:
                source.line(f"constexpr int {name}_vector = {vector};")
                number, offset = f"(u * {parts} + part)", f"{offset} + part * {leaf.stride}"
                each = f"for (int part = 0; part < {parts}; ++part) "
            source.line(f"float {name}[{count}]{' = {}' if not leaf.tagged else ''};")
            element = f"(base + u * CONSUMERS) * {vector}" if vector > 1 else "base + u * CONSUMERS"
            if leaf.tagged:
                source.line(f"u32 {name}_at[{self.unroll * parts}] = {{}};\nu32 {name}_wanted = 0;")
                want = f"{name}_at[{number}] = {offset}, {name}_wanted |= 1u << {number};"
                self._loop(source, self.unroll, element, [*prelude, f"{inside}{each}{want}"])
                source.line(
                    f"TaggedLoads<{vector}, {self.unroll * parts}> "
                    f"{name}_loads({leaf.pointer}, {name}_at, {name}_wanted, epoch, {leaf.operation});"
                )
            elif vector > 1:
                load = f"{each}load_values({name} + {number} * {vector}, {leaf.pointer} + ({offset}));"
                self._loop(source, self.unroll, element, [*prelude, load])
            else:
                load = f"{inside}{each}{name}[{number}] = load_value({leaf.pointer} + ({offset}));"
                self.write_elements(source, [load], prelude)

    def _vector(self, leaf: Leaf) -> int:
        return self.vector if leaf.is_run and (leaf.tagged or leaf.is_f32) else 1

    def _loop(self, source: SourceWriter, count: int, element: str, lines: Sequence[str]) -> None:
        source.unrolled(count)
        with source.block(f"for (int u = 0; u < {count}; ++u)"):
            source.line(f"const int i = {element};")
            with source.block(f"if (i < {self.total})"):
                source.lines(lines)


# ---- waits for tagged words --------------------------------------------------------------------------------------------


def write_finish(source: SourceWriter, writers: Sequence[ValueWriter], *, is_late: bool = False) -> None:
    """Waits for all tagged words that loops over `writers` have issued loads of: once, for all of them together."""
    leaves = [leaf for values in writers for leaf in values.leaves if leaf.tagged]
    if leaves:
        loads = ", ".join(f"{leaf.name}_loads" for leaf in leaves)
        source.line(f"await_words(epoch, watch, {loads});")
    for leaf in leaves:
        source.line(f"{leaf.name}_loads.get({leaf.name});")
    if is_traced(writers, is_late=is_late):
        writers[0].context.trace.read(source)


def write_finished(source: SourceWriter, writers: Sequence[ValueWriter], *, is_late: bool = False) -> None:
    """Follows what was made of the words that `write_finish` has waited for."""
    if is_traced(writers, is_late=is_late):
        context = writers[0].context
        text = ", ".join(
            context.operations[leaf.operation].text for values in writers for leaf in values.leaves if leaf.tagged
        )
        context.trace.store(source, text, kind=PointKind.WORDS)


def is_traced(writers: Sequence[ValueWriter], *, is_late: bool) -> bool:
    """Whether there is a timestamp of the wait for the tagged words of `writers`. is_late: as in `write_finish`."""
    trace = writers[0].context.trace
    has_words = any(values.has_words for values in writers)
    return trace.is_on and has_words and (trace.has_stages or not is_late)
