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
    op_of,
)
from .coordinates import Address, Coordinates, Segment, address_of
from .source import SourceWriter
from .storage import BufferStorage, packed_offset

if TYPE_CHECKING:
    from .context import EmitContext

CONSUMERS = 256
"""Consumer threads of a block; as in device/types.cuh."""
PLAIN_UNROLL = 16
"""Loads that a thread issues together where it does little else."""

Given = Callable[[Coordinates], str]


@dataclass(frozen=True)
class Leaf:
    """One load of a pointwise program: read ahead into an array `name`, one element for each unrolled iteration."""

    name: str
    pointer: str
    address: Address
    tagged: bool
    operation: int


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
            case _:
                name = "a block argument" if op is None else f"'{op.name}'"
                raise CompileError(f"family @{self.task.name}: the CUDA backend cannot emit {name} here")

    def _rope(self, op: RopeOp, at: Coordinates) -> str:
        axis = len(at.shape) - 2
        half = at.dims[axis]
        frequency = self.value(op.frequencies, at.select([axis + 1]))
        own, partner = self.value(op.x, at), self.value(op.x, at.with_dim(axis, f"1 - ({half})"))
        row = at.dims[0]
        angle = self._name(f"static_cast<float>(pos + {row}) * {frequency}")
        sine, cosine = f"s{len(self.lines)}", f"c{len(self.lines)}"
        self.lines.append(f"float {sine}, {cosine};\nsincosf({angle}, &{sine}, &{cosine});")
        return self._name(f"{own} * {cosine} + (({half}) == 0 ? -{partner} : {partner}) * {sine}")

    def _name(self, expression: str) -> str:
        name = f"v{len(self.lines)}"
        self.lines.append(f"const float {name} = {expression};")
        return name

    def storage(self, access: Access) -> BufferStorage:
        return self.context.buffers[access.buffer]

    def address(self, access: Access, at: Coordinates) -> Address:
        """Where an element of a tile lies in its buffer."""
        return address_of(access.substitute(self.task.bound), self.storage(access).shape, at, self.task.own)

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
        row = f"clamp_row(p.{self.storage(ids.region).parameter}[{id_at.offset}], {op.region.dims[0].extent})"
        rest = at.select(range(1, len(at.shape)))
        packed = self.context.packed_rows(storage.name)
        if packed is None:
            self.context.use_buffer(storage.name)
            whole = Coordinates((Segment(row, (op.region.dims[0].extent,)), *rest.segments))
            address, pointer = self.address(op.region, whole), f"p.{storage.parameter}"
        else:
            stream, rows, first_row = packed
            columns = Access(op.region.buffer, op.region.dims[1:]).substitute(self.task.bound)
            column = address_of(columns, storage.shape[1:], rest, self.task.own)
            address = Address(packed_offset(stream, rows, first_row, row, column.offset), column.inside)
            pointer = f"reinterpret_cast<const u16*>(p.{stream.parameter})"
        return self._leaf(pointer, address, storage, op.region)

    def _leaf(self, pointer: str, address: Address, storage: BufferStorage, access: Access) -> str:
        for leaf in self.leaves:
            if (leaf.pointer, leaf.address) == (pointer, address):
                return f"{leaf.name}[u]"
        # without the family's name: runs that read the same tile share the text that reads it
        operation = self.context.operation(f"the read of {access}", access.buffer) if storage.tagged else 0
        leaf = Leaf(f"{self.prefix}{len(self.leaves)}", pointer, address, storage.tagged, operation)
        self.leaves.append(leaf)
        return f"{leaf.name}[u]"

    def store(self, op: StoreOp, at: Coordinates) -> None:
        """Statements that compute the stored value at `at` and write it."""
        value = self.value(op.value, at)
        storage = self.storage(op.region)
        self.context.use_buffer(storage.name)
        address = self.address(op.region, at)
        target = f"p.{storage.parameter} + ({address.offset})"
        write = f"store_tagged({target}, {value}, p.epoch);" if storage.tagged else f"store_value({target}, {value});"
        self.lines.append(f"if ({address.inside}) {write}" if address.inside else write)


def unroll_for(total: int, most: int) -> int:
    """How many elements, up to `most`, a thread handles together when the consumers share `total`."""
    per_thread = -(-total // CONSUMERS)
    return -(-per_thread // -(-per_thread // most))


def write_pointwise_loop(
    source: SourceWriter, values: ValueWriter, total: str, unroll: int, prelude: Sequence[str] = ()
) -> None:
    """A loop of the consumers over elements i < `total` that loads all leaves, then executes the lines.

    `prelude` defines what the coordinates use besides i. All loads of a thread are issued before the first is used.
    """
    step = f"CONSUMERS * {unroll}" if unroll > 1 else "CONSUMERS"
    with source.block(f"for (int base = threadIdx.x; base < {total}; base += {step})"):
        write_loads(source, values, total, unroll, prelude)
        write_elements(source, total, unroll, prelude, values.lines)


def write_elements(source: SourceWriter, total: str, unroll: int, prelude: Sequence[str], lines: Sequence[str]) -> None:
    """Executes `lines` for this thread's elements from `base` on."""
    source.unrolled(unroll)
    with source.block(f"for (int u = 0; u < {unroll}; ++u)"):
        source.line("const int i = base + u * CONSUMERS;")
        with source.block(f"if (i < {total})"):
            source.lines(prelude)
            source.lines(lines)


def write_loads(
    source: SourceWriter, values: ValueWriter, total: str, unroll: int, prelude: Sequence[str] = ()
) -> None:
    """Loads the leaves of this thread's elements from `base` on."""
    # plain loads first: they are under way while tagged words are polled
    for leaf in sorted(values.leaves, key=lambda leaf: leaf.tagged):
        name, offset = leaf.name, leaf.address.offset
        inside = f"if ({leaf.address.inside}) " if leaf.address.inside else ""
        if not leaf.tagged:
            source.line(f"float {name}[{unroll}] = {{}};")
            load = f"{inside}{name}[u] = load_value({leaf.pointer} + ({offset}));"
            write_elements(source, total, unroll, prelude, [load])
            continue
        source.line(f"float {name}[{unroll}];\nu32 {name}_at[{unroll}] = {{}};\nu32 {name}_wanted = 0;")
        want = f"{name}_at[u] = {offset}, {name}_wanted |= 1u << u;"
        write_elements(source, total, unroll, prelude, [f"{inside}{want}"])
        source.line(f"load_tagged({name}, {leaf.pointer}, {name}_at, {name}_wanted, p.epoch, watch, {leaf.operation});")
