"""The structure of the `task` dialect: programs, buffers, families, order, and the ops that access buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, cast

from xdsl.dialects.builtin import (
    I64,
    AnyFloat,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    TensorType,
    UnitAttr,
    f32,
    i64,
)
from xdsl.ir import Attribute, Operation, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    base,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import (
    HasParent,
    IsolatedFromAbove,
    MemoryReadEffect,
    MemoryWriteEffect,
    NoTerminator,
    OpTrait,
    SymbolOpInterface,
    SymbolTable,
)
from xdsl.utils.exceptions import VerifyException

from ...amk_ir.access import Access, check_access
from ...amk_ir.attrs import (
    MAX_EXTENT,
    MAX_TASKS,
    AccessAttr,
    BufferKind,
    BufferKindAttr,
    CheckpointAttr,
    DomainAttr,
    IndicesAttr,
    RopeFrequenciesAttr,
    bounded_product,
    parse_count,
    size_problem,
)
from ...amk_ir.linear import POSITION, Linear
from ...amk_ir.quantized_type import QuantizedType, columns_problem, rows_problem
from ...amk_ir.syntax import format_domain, format_linear_list, parse_access, parse_domain, parse_linear_list
from ..outside_in import OutsideIn
from ..symbols import find_symbol
from .tiles import (
    F32,
    IDS,
    AnyTensor,
    parse_block,
    print_block,
    shape_of,
)


def _parse_tensor(parser: Parser, what: str) -> AnyTensor:
    """The type of a `what`, which is a tensor."""
    start = parser.pos
    found = parser.parse_type()
    if not isinstance(found, TensorType):
        parser.raise_error(f"a {what} is a tensor, found {found}", start)
    return cast(AnyTensor, found)


class HoldsBuffers(OutsideIn):
    """Base of the ops that hold buffers and families: `task.program` and `queue.kernel`."""

    sym_name = prop_def(SymbolNameConstraint())
    max_seq = prop_def(IntegerAttr[I64])
    tokens = prop_def(IntegerAttr[I64])

    @property
    def max_pos(self) -> int:
        """The greatest position at which a step may start."""
        return self.max_seq.value.data - self.tokens.value.data

    @property
    def buffers(self) -> dict[str, BufferOp]:
        """Buffers by name, in textual order."""
        return {op.sym_name.data: op for op in self.regions[0].block.ops if isinstance(op, BufferOp)}

    @property
    def families(self) -> dict[str, FamilyOp]:
        """Families by name, in textual order."""
        return {op.sym_name.data: op for op in self.regions[0].block.ops if isinstance(op, FamilyOp)}

    def verify_limits(self) -> None:
        """Checks 1 <= tokens <= max_seq <= `MAX_EXTENT`."""
        tokens, max_seq = self.tokens.value.data, self.max_seq.value.data
        if max_seq > MAX_EXTENT:
            raise VerifyException(f"max_seq must be at most {MAX_EXTENT}, found {max_seq}")
        if not 1 <= tokens <= max_seq:
            raise VerifyException(f"tokens must lie in [1, max_seq = {max_seq}], found {tokens}")


@dataclass(frozen=True)
class HasHolder(OpTrait):
    """The op stands in a program or kernel. `HasParent` would need a name of their base class."""

    def verify(self, op: Operation) -> None:
        parent = op.parent_op()
        if parent is not None and not isinstance(parent, HoldsBuffers):
            raise VerifyException(
                f"'{op.name}' expects parent op 'task.program' or 'queue.kernel', found '{parent.name}'"
            )


@irdl_op_definition
class ProgramOp(HoldsBuffers):
    """A step as families of tasks: buffers, families, and one `task.order` that gives its sequential meaning.

    A step handles `tokens` tokens from position `pos` in [0, max_seq - tokens].

    ```mlir
    task.program @tiny max_seq 64 tokens 1 { ... }
    ```
    """

    name = "task.program"

    body = region_def("single_block")

    traits = traits_def(SymbolOpInterface(), SymbolTable(), NoTerminator())

    def __init__(self, name: str, max_seq: int, tokens: int, body: Region):
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "max_seq": IntegerAttr(max_seq, i64),
                "tokens": IntegerAttr(tokens, i64),
            },
            regions=[body],
        )

    @property
    def order(self) -> OrderOp:
        return next(op for op in self.body.block.ops if isinstance(op, OrderOp))

    @classmethod
    def parse(cls, parser: Parser) -> ProgramOp:
        name = parser.parse_symbol_name().data
        parser.parse_keyword("max_seq")
        max_seq = parse_count(parser, "max_seq", MAX_EXTENT)
        parser.parse_keyword("tokens")
        tokens = parse_count(parser, "tokens", MAX_EXTENT)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = ProgramOp(name, max_seq, tokens, parse_block(parser))
        if attributes is not None:
            op.attributes |= attributes.data
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(f" max_seq {self.max_seq.value.data} tokens {self.tokens.value.data} ")
        if self.attributes:
            printer.print_op_attributes(self.attributes, print_keyword=True)
            printer.print_string(" ")
        print_block(printer, self.body)

    def verify_(self) -> None:
        self.verify_limits()
        orders = sum(isinstance(op, OrderOp) for op in self.body.block.ops)
        if orders != 1:
            raise VerifyException(f"a program has exactly one task.order, found {orders}")
        for op in self.body.block.ops:
            if not isinstance(op, BufferOp | FamilyOp | OrderOp):
                raise VerifyException(f"a program holds buffers, families and one order, found '{op.name}'")


@irdl_op_definition
class BufferOp(OutsideIn):
    """A named tensor in device memory, row-major. Only weights have a source; `{layer}` in it is the first dimension.

    `tagged` (scratch float32 only): every word carries the epoch that wrote it, and a reader polls the words
    themselves instead of waiting on a counter.

    ```mlir
    task.buffer @q_proj weight from #amk.checkpoint<"model.layers.{layer}.self_attn.q_proj.weight"> : tensor<30x9x2x32x576xbf16>
    task.buffer @x scratch tagged : tensor<31x1x576xf32>
    ```
    """

    name = "task.buffer"

    sym_name = prop_def(SymbolNameConstraint())
    kind = prop_def(BufferKindAttr)
    tagged = opt_prop_def(UnitAttr)
    source = opt_prop_def(base(CheckpointAttr) | base(RopeFrequenciesAttr))
    type = prop_def(TensorType[Attribute])

    traits = traits_def(SymbolOpInterface(), HasHolder())

    def __init__(
        self,
        name: str,
        kind: BufferKind,
        type: AnyTensor,
        source: CheckpointAttr | RopeFrequenciesAttr | None = None,
        tagged: bool = False,
    ):
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "kind": BufferKindAttr(kind),
                "tagged": UnitAttr() if tagged else None,
                "source": source,
                "type": type,
            }
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.type.get_shape()

    @property
    def is_layered(self) -> bool:
        """Whether the first dimension numbers the layers of a per-layer checkpoint entry."""
        return isinstance(self.source, CheckpointAttr) and "{layer}" in self.source.data

    @classmethod
    def parse(cls, parser: Parser) -> BufferOp:
        name = parser.parse_symbol_name().data
        kind = parser.parse_str_enum(BufferKind)
        tagged = parser.parse_optional_keyword("tagged") is not None
        source = parser.parse_attribute() if parser.parse_optional_keyword("from") is not None else None
        if source is not None and not isinstance(source, CheckpointAttr | RopeFrequenciesAttr):
            parser.raise_error("a weight's source is #amk.checkpoint or #amk.rope_frequencies")
        parser.parse_punctuation(":")
        op = BufferOp(name, kind, _parse_tensor(parser, "buffer"), source, tagged)
        op.attributes |= parser.parse_optional_attr_dict()
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(f" {self.kind.data.value}")
        if self.tagged is not None:
            printer.print_string(" tagged")
        if self.source is not None:
            printer.print_string(" from ")
            printer.print_attribute(self.source)
        printer.print_string(" : ")
        printer.print_attribute(self.type)
        printer.print_op_attributes(self.attributes)

    def verify_(self) -> None:
        if any(d < 1 for d in self.shape):
            raise VerifyException(f"buffer shape must be static and positive, found {self.type}")
        if problem := size_problem(self.shape):
            raise VerifyException(problem)
        if (self.source is not None) != (self.kind.data is BufferKind.WEIGHT):
            raise VerifyException(f"exactly the weights have a source, found a {self.kind.data.value} buffer")
        if self.tagged is not None and (
            self.kind.data is not BufferKind.SCRATCH or self.type.get_element_type() != f32
        ):
            raise VerifyException(
                f"only scratch float32 buffers can be tagged, found {self.kind.data.value} {self.type}"
            )
        element = self.type.get_element_type()
        if isinstance(element, QuantizedType) and not isinstance(self.source, CheckpointAttr):
            raise VerifyException(
                f"only weights of a checkpoint can be quantised, found {self.kind.data.value} {self.type}"
            )
        if problem := rows_problem(self.shape, element):
            raise VerifyException(problem)
        if isinstance(self.source, RopeFrequenciesAttr):
            half = self.source.data.head_dim // 2
            if self.shape != (half,):
                raise VerifyException(f"rope frequencies of head_dim {2 * half} are {half} elements, found {self.type}")


@irdl_op_definition
class FamilyOp(OutsideIn):
    """Equal tasks over an iteration domain; the body is one task, with the indices bound.

    ```mlir
    task.family @down (layer = 30, tile = 72) { ... task.store %y, @x[layer + 1, 0 : 1, tile*8 : 8] : tensor<1x8xf32> }
    ```
    """

    name = "task.family"

    sym_name = prop_def(SymbolNameConstraint())
    domain = prop_def(DomainAttr)
    body = region_def("single_block")

    traits = traits_def(SymbolOpInterface(), HasHolder(), IsolatedFromAbove(), NoTerminator())

    def __init__(self, name: str, domain: Sequence[tuple[str, int]], body: Region):
        super().__init__(properties={"sym_name": StringAttr(name), "domain": DomainAttr(tuple(domain))}, regions=[body])

    @classmethod
    def parse(cls, parser: Parser) -> FamilyOp:
        name = parser.parse_symbol_name().data
        domain = parse_domain(parser, parser.Delimiter.PAREN)
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = FamilyOp(name, domain, parse_block(parser))
        if attributes is not None:
            op.attributes |= attributes.data
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(f" ({format_domain(self.domain.data)}) ")
        if self.attributes:
            printer.print_op_attributes(self.attributes, print_keyword=True)
            printer.print_string(" ")
        print_block(printer, self.body)

    @property
    def loads(self) -> tuple[LoadOp | StreamOp | GatherOp, ...]:
        """The ops that read buffers, in body order."""
        return tuple(op for op in self.body.block.ops if isinstance(op, LoadOp | StreamOp | GatherOp))

    @property
    def streams(self) -> tuple[StreamOp, ...]:
        """The tiles that a task takes from the ring, in body order."""
        return tuple(op for op in self.body.block.ops if isinstance(op, StreamOp))

    @property
    def stores(self) -> tuple[StoreOp, ...]:
        """The ops that write buffers, in body order."""
        return tuple(op for op in self.body.block.ops if isinstance(op, StoreOp))

    def verify_(self) -> None:
        names = self.domain.names
        if len(set(names)) != len(names):
            raise VerifyException(f"indices of a domain must differ, found ({', '.join(names)})")
        if POSITION in names:
            raise VerifyException(f"'{POSITION}' is reserved for the position and cannot name a domain index")
        for name, extent in self.domain.data:
            if extent < 1:
                raise VerifyException(f"extent of domain index '{name}' must be at least 1, found {extent}")
        if (size := bounded_product(self.domain.shape, MAX_TASKS)) > MAX_TASKS:
            raise VerifyException(f"a family has at most {MAX_TASKS} tasks, @{self.sym_name.data} has {size} or more")
        if not self.stores:
            raise VerifyException(f"family @{self.sym_name.data} stores nothing")


@irdl_op_definition
class OrderOp(IRDLOperation):
    """The sequential meaning of a program: its calls one after the other, the tasks of one call in any order.

    ```mlir
    task.order { task.call @embed[] task.for layer = 0 to 30 { task.call @qkv[layer] } }
    ```
    """

    name = "task.order"

    body = region_def("single_block")

    traits = traits_def(HasParent(ProgramOp), NoTerminator())

    def __init__(self, body: Region):
        super().__init__(regions=[body])

    @classmethod
    def parse(cls, parser: Parser) -> OrderOp:
        return OrderOp(parse_block(parser))

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        print_block(printer, self.body)

    def verify_(self) -> None:
        for op in self.walk():
            if not isinstance(op, OrderOp | ForOp | CallOp):
                raise VerifyException(f"an order holds loops and calls, found '{op.name}'")


@irdl_op_definition
class ForOp(OutsideIn):
    """A loop over an index that calls, runs, waits and signals may use; also in `queue` programs.

    ```mlir
    task.for layer = 0 to 30 { ... }
    ```
    """

    name = "task.for"

    index = prop_def(StringAttr)
    start = prop_def(IntegerAttr[I64])
    stop = prop_def(IntegerAttr[I64])
    body = region_def("single_block")

    traits = traits_def(NoTerminator())

    def __init__(self, index: str, start: int, stop: int, body: Region):
        super().__init__(
            properties={
                "index": StringAttr(index),
                "start": IntegerAttr(start, i64),
                "stop": IntegerAttr(stop, i64),
            },
            regions=[body],
        )

    @property
    def range(self) -> range:
        return range(self.start.value.data, self.stop.value.data)

    @classmethod
    def parse(cls, parser: Parser) -> ForOp:
        index = parser.parse_identifier(" as the loop index")
        parser.parse_punctuation("=")
        start = parse_count(parser, "a loop's bound", MAX_EXTENT)
        parser.parse_keyword("to")
        stop = parse_count(parser, "a loop's bound", MAX_EXTENT)
        op = ForOp(index, start, stop, parse_block(parser))
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {self.index.data} = {self.start.value.data} to {self.stop.value.data} ")
        print_block(printer, self.body)

    def verify_(self) -> None:
        for bound in (self.start.value.data, self.stop.value.data):
            if abs(bound) > MAX_EXTENT:
                raise VerifyException(f"a loop's bounds lie in [-{MAX_EXTENT}, {MAX_EXTENT}], found {bound}")
        if self.stop.value.data <= self.start.value.data:
            raise VerifyException(
                f"loop over '{self.index.data}' from {self.start.value.data} to {self.stop.value.data} is empty"
            )
        if self.index.data in enclosing_indices(self) or self.index.data == POSITION:
            raise VerifyException(f"loop index '{self.index.data}' is already in use")


def enclosing_indices(op: Operation) -> dict[str, tuple[int, int]]:
    """Inclusive ranges of the loop indices in scope at `op`, outermost first."""
    found: list[tuple[str, tuple[int, int]]] = []
    parent = op.parent_op()
    while parent is not None:
        if isinstance(parent, ForOp):
            found.append((parent.index.data, (parent.range.start, parent.range.stop - 1)))
        parent = parent.parent_op()
    return dict(reversed(found))


def loop_bounds(op: Operation, value: Linear) -> tuple[int, int]:
    """The least and greatest value of `value` at `op`; VerifyException if it uses an index that no loop around defines."""
    scope = enclosing_indices(op)
    if unbound := sorted(value.names - scope.keys()):
        raise VerifyException(f"'{op.name}' uses index '{unbound[0]}', which no enclosing loop defines")
    return value.bounds(scope)


def find_family(op: Operation, name: SymbolRefAttr) -> FamilyOp:
    """The family `name` of the enclosing program or kernel, or a VerifyException."""
    family = find_symbol(op, name)
    if not isinstance(family, FamilyOp):
        raise VerifyException(f"'{op.name}' refers to @{name.string_value()}, which is not a family")
    return family


def verify_leading_indices(op: Operation, family: FamilyOp, indices: Sequence[Linear]) -> None:
    """Checks that `indices` bind leading domain indices of `family` within their extents, for every loop iteration."""
    domain = family.domain.data
    if len(indices) > len(domain):
        raise VerifyException(f"'{op.name}' binds {len(indices)} indices, @{family.sym_name.data} has {len(domain)}")
    for value, (name, extent) in zip(indices, domain, strict=False):
        low, high = loop_bounds(op, value)
        if low < 0 or high >= extent:
            raise VerifyException(
                f"'{op.name}' binds '{name}' of @{family.sym_name.data} to [{low}, {high}], its extent is {extent}"
            )


@irdl_op_definition
class CallOp(IRDLOperation):
    """All tasks of a family whose leading indices have the given values, in any order.

    ```mlir
    task.call @qkv[layer]
    ```
    """

    name = "task.call"

    family = prop_def(SymbolRefAttr)
    indices = prop_def(IndicesAttr)

    # Tasks write buffers: a call is an event, never merged or removed.
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(self, family: str | SymbolRefAttr, indices: Sequence[Linear]):
        super().__init__(
            properties={
                "family": SymbolRefAttr(family) if isinstance(family, str) else family,
                "indices": IndicesAttr(tuple(indices)),
            }
        )

    @classmethod
    def parse(cls, parser: Parser) -> CallOp:
        return CallOp(parser.parse_symbol_name().data, parse_linear_list(parser))

    def print(self, printer: Printer) -> None:
        printer.print_string(f" @{self.family.string_value()}{format_linear_list(self.indices.data)}")

    def verify_(self) -> None:
        parent = self.parent_op()
        if parent is not None and not isinstance(parent, OrderOp | ForOp):
            raise VerifyException(f"expects parent op 'task.order' or 'task.for', found '{parent.name}'")
        verify_leading_indices(self, find_family(self, self.family), self.indices.data)


# ---- access -----------------------------------------------------------------------------------------------------


def _holder(op: Operation) -> HoldsBuffers | None:
    parent = op.parent_op()
    while parent is not None and not isinstance(parent, HoldsBuffers):
        parent = parent.parent_op()
    return parent


def verify_access(op: Operation, access: Access) -> BufferOp:
    """The buffer of `access`; checks that the region lies inside it for every task and position."""
    buffer = find_symbol(op, access.buffer)
    if not isinstance(buffer, BufferOp):
        raise VerifyException(f"'{op.name}' accesses @{access.buffer}, which is not a buffer")
    family, holder = op.parent_op(), _holder(op)
    assert isinstance(family, FamilyOp) and holder is not None
    if problem := check_access(access, buffer.shape, family.domain.extents, holder.max_pos):
        raise VerifyException(f"'{op.name}' in @{family.sym_name.data}: {problem}")
    return buffer


class _AccessOp(IRDLOperation):
    """Base of the ops that name a region of a buffer."""

    access = prop_def(AccessAttr)

    @property
    def region(self) -> Access:
        """The accessed region."""
        return self.access.data


class _ReadOp(_AccessOp):
    """Base of load and stream: `op @buffer[region] : type`."""

    result = result_def(TensorType[Attribute])

    def __init__(self, access: Access, element_type: Attribute):
        super().__init__(
            properties={"access": AccessAttr(access)}, result_types=[TensorType(element_type, access.tile_shape)]
        )

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        access = parse_access(parser)
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        result_type = _parse_tensor(parser, "tile")
        op = cls(access, result_type.get_element_type())
        if op.result.type != result_type:
            parser.raise_error(f"{access} is a tile of type {op.result.type}, found {result_type}")
        op.attributes |= attributes
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(f" {self.region}")
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.result.type)

    def verify_(self) -> None:
        buffer = verify_access(self, self.region)
        _verify_tile(self, self.region.tile_shape, buffer.type.get_element_type(), self.result)


def _verify_tile(op: Operation, shape: tuple[int, ...], element_type: Attribute, value: SSAValue) -> None:
    expected = TensorType(element_type, shape)
    if value.type != expected:
        raise VerifyException(f"'{op.name}' accesses a tile of type {expected}, found {value.type}")


@irdl_op_definition
class LoadOp(_ReadOp):
    """A tile of a buffer. Elements beyond a limit read as zero.

    ```mlir
    %x = task.load @x[layer, 0 : 1, 0 : 576] : tensor<1x576xf32>
    ```
    """

    name = "task.load"

    traits = traits_def(MemoryReadEffect(), HasParent(FamilyOp))

    def verify_(self) -> None:
        super().verify_()
        if isinstance(self.result.type.get_element_type(), QuantizedType):
            raise VerifyException(
                f"a quantised weight is streamed or gathered, '{self.name}' loads @{self.region.buffer}"
            )


@irdl_op_definition
class StreamOp(_ReadOp):
    """A tile of a weight or of state, taken from the SM's ring. Elements beyond a limit are zero.

    Tiles enter the ring ahead of time, whatever the SM waits for: what a task streams from state is written by earlier
    steps, or in this step after the task.

    Of a quantised weight, whole rows or whole groups of their columns: scales, zero points and minimums are part of the tile.

    ```mlir
    %w = task.stream @down[layer, tile*8 : 8, 0 : 1536] : tensor<8x1536xbf16>
    %q = task.stream @up[layer, tile*8 : 8, 0 : 576] : tensor<8x576x!amk.quantized<"int8", columns = 576>>
    %k = task.stream @k_cache[layer, 0 : pos, head : 1, 0 : 2, 0 : 32] : tensor<?x1x2x32xbf16>
    ```
    """

    name = "task.stream"

    # Taking a tile from the ring is an event: merging or removing one would shift all that follow.
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect(), HasParent(FamilyOp))

    def verify_(self) -> None:
        super().verify_()
        buffer = find_symbol(self, self.region.buffer)
        assert isinstance(buffer, BufferOp)
        kind = buffer.kind.data
        if kind not in (BufferKind.WEIGHT, BufferKind.STATE):
            raise VerifyException(f"only weights and state are streamed, @{self.region.buffer} is {kind.value}")
        if kind is BufferKind.WEIGHT and POSITION in self.region.names:
            raise VerifyException(f"a streamed tile of a weight is constant, {self.region} depends on '{POSITION}'")
        element = buffer.type.get_element_type()
        if isinstance(element, QuantizedType) and (problem := columns_problem(self.region.dims, buffer.shape, element)):
            raise VerifyException(f"a tile of a quantised weight {problem} in {self.region}")


@irdl_op_definition
class GatherOp(_AccessOp):
    """Rows of a buffer chosen by ids, in float32: the first dimension of the access is the range of valid ids.

    ids [T], access [rows, *dims] -> [T, *dims].

    ```mlir
    %x = task.gather %ids, @embed[0 : 49152, tile*64 : 64] : (tensor<1xi32>) -> tensor<1x64xf32>
    ```
    """

    name = "task.gather"

    ids = operand_def(IDS)
    result = result_def(F32)

    traits = traits_def(MemoryReadEffect(), HasParent(FamilyOp))

    def __init__(self, ids: SSAValue, access: Access):
        shape = (*shape_of(ids), *access.tile_shape[1:])
        super().__init__(
            operands=[ids], properties={"access": AccessAttr(access)}, result_types=[TensorType(f32, shape)]
        )

    @classmethod
    def parse(cls, parser: Parser) -> GatherOp:
        ids = parser.parse_unresolved_operand()
        parser.parse_punctuation(",")
        access = parse_access(parser)
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        with parser.in_parens():
            ids_type = _parse_tensor(parser, "tile")
        parser.parse_punctuation("->")
        result_type = _parse_tensor(parser, "tile")
        op = GatherOp(parser.resolve_operand(ids, ids_type), access)
        if op.result.type != result_type:
            parser.raise_error(f"the gathered rows are of type {op.result.type}, found {result_type}")
        op.attributes |= attributes
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.ids)
        printer.print_string(f", {self.region}")
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : (")
        printer.print_attribute(self.ids.type)
        printer.print_string(") -> ")
        printer.print_attribute(self.result.type)

    def verify_(self) -> None:
        buffer = verify_access(self, self.region)
        if not self.region.dims:
            raise VerifyException(
                f"a gather takes rows of a buffer of rank 1 or more, @{self.region.buffer} is a scalar"
            )
        first = self.region.dims[0]
        if not first.kept or first.start != Linear() or not first.size.is_constant or first.limit is not None:
            raise VerifyException(f"the first dimension of a gather is a constant range '0 : rows', found {first}")
        if not isinstance(buffer.type.get_element_type(), AnyFloat | QuantizedType):
            raise VerifyException(f"a gather takes rows of floats, @{self.region.buffer} is {buffer.type}")
        _verify_tile(self, (*shape_of(self.ids), *self.region.tile_shape[1:]), f32, self.result)


@irdl_op_definition
class StoreOp(_AccessOp):
    """Writes a tile to a buffer, float32 rounded to nearest even if the buffer is narrower; nothing beyond a limit.

    ```mlir
    task.store %y, @k_cache[layer, pos : 1, head, 0 : 2, part*4 : 4] : tensor<1x2x4xf32>
    ```
    """

    name = "task.store"

    value = operand_def(TensorType[Attribute])

    traits = traits_def(MemoryWriteEffect(), HasParent(FamilyOp))

    def __init__(self, value: SSAValue, access: Access):
        super().__init__(operands=[value], properties={"access": AccessAttr(access)})

    @classmethod
    def parse(cls, parser: Parser) -> StoreOp:
        value = parser.parse_unresolved_operand()
        parser.parse_punctuation(",")
        access = parse_access(parser)
        attributes = parser.parse_optional_attr_dict()
        parser.parse_punctuation(":")
        op = StoreOp(parser.resolve_operand(value, _parse_tensor(parser, "tile")), access)
        op.attributes |= attributes
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_ssa_value(self.value)
        printer.print_string(f", {self.region}")
        printer.print_op_attributes(self.attributes)
        printer.print_string(" : ")
        printer.print_attribute(self.value.type)

    def verify_(self) -> None:
        buffer = verify_access(self, self.region)
        if buffer.kind.data in (BufferKind.WEIGHT, BufferKind.INPUT):
            raise VerifyException(f"a task cannot write @{self.region.buffer}, a {buffer.kind.data.value} buffer")
        element = buffer.type.get_element_type()
        # float32 results may be stored narrower; everything else is stored as it is
        stored = f32 if isinstance(element, AnyFloat) else element
        _verify_tile(self, self.region.tile_shape, stored, self.value)
