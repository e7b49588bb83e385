"""The `queue` dialect: who runs what, when, and what it waits for.

A kernel for one target: buffers and families (the `task` dialect's), counters, and in-order programs for ranges of SMs.
It models the instruction queues of persistent megakernels. A program has two regions: the *stream*, the order in which
constant tiles enter the SM's weight ring (never waits for anything but room), and the *body*, the order of execution.

Compact form: one program for many SMs, tasks placed by a formula, loops over layers. Explicit form: one program an SM,
every run, wait and signal spelled out. They are the same ops and mean the same; `expand-queues` turns the one into the
other. The meaning of a schedule is defined in docs/semantics.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar, Self

from xdsl.dialects.builtin import (
    I64,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    i64,
)
from xdsl.ir import Dialect, Operation, Region
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    opt_prop_def,
    prop_def,
    region_def,
    traits_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import (
    EffectInstance,
    HasParent,
    MemoryEffect,
    MemoryEffectKind,
    NoTerminator,
    Resource,
    SymbolOpInterface,
    SymbolTable,
)
from xdsl.utils.exceptions import VerifyException

from ..amk_ir.attrs import (
    MAX_EXTENT,
    IndicesAttr,
    LinearAttr,
    Placement,
    PlacementAttr,
    Ring,
    RingAttr,
    parse_count,
    parse_placement,
)
from ..amk_ir.linear import Linear
from ..amk_ir.syntax import format_linear_list, parse_linear, parse_linear_list
from ..amk_ir.targets import TARGETS
from .outside_in import OutsideIn
from .symbols import find_symbol
from .task import (
    BufferOp,
    FamilyOp,
    ForOp,
    HoldsBuffers,
    enclosing_indices,
    find_family,
    loop_bounds,
    parse_block,
    print_block,
    verify_leading_indices,
)


@dataclass(frozen=True)
class Synchronization(Resource):
    """The counters and the ring: what waits, signals, fetches and runs read and change."""

    def name(self) -> str:
        return "amk.synchronization"


@dataclass(frozen=True)
class SynchronizationEffect(MemoryEffect):
    """Reads and writes the synchronization state: the op is an event that no pass may merge, move or remove."""

    _EFFECTS: ClassVar = frozenset(
        EffectInstance(kind, resource=Synchronization()) for kind in (MemoryEffectKind.READ, MemoryEffectKind.WRITE)
    )

    @classmethod
    def get_effects(cls, op: Operation) -> frozenset[EffectInstance]:
        return cls._EFFECTS


# ---- structure ----------------------------------------------------------------------------------------------------

MAX_SMS = 1024
"""More than any machine has; what the SMs know of each other is a square of them."""
MAX_COUNTERS = 2**22
"""The greatest number of counter elements of a kernel."""
MAX_EVENTS = 2**23
"""The greatest number of events (fetches included) of a kernel when its loops are unrolled: a few words must not stand for
more than a machine can prove. Llama-3.1-70B on 132 SMs has 1.7 million."""
MAX_STEPS = 2**18
"""The greatest number of ops of a kernel when its loops are unrolled, each counted once for all SMs."""


@irdl_op_definition
class KernelOp(HoldsBuffers):
    """A persistent kernel: `sms` blocks, one an SM, all resident at once; one launch runs one step.

    `ring` is absent before `plan-stream`.

    ```mlir
    queue.kernel @tiny target "sm_90a" sms 132 max_seq 2048 tokens 1 ring #amk.ring<stages = 10, bytes = 16384, in_flight = 3> { ... }
    ```
    """

    name = "queue.kernel"

    target = prop_def(StringAttr)
    sms = prop_def(IntegerAttr[I64])
    ring = opt_prop_def(RingAttr)
    body = region_def("single_block")

    traits = traits_def(SymbolOpInterface(), SymbolTable(), NoTerminator())

    def __init__(
        self, name: str, target: str, sms: int, max_seq: int, tokens: int, body: Region, ring: Ring | None = None
    ):
        super().__init__(
            properties={
                "sym_name": StringAttr(name),
                "target": StringAttr(target),
                "sms": IntegerAttr(sms, i64),
                "max_seq": IntegerAttr(max_seq, i64),
                "tokens": IntegerAttr(tokens, i64),
                "ring": None if ring is None else RingAttr(ring),
            },
            regions=[body],
        )

    @property
    def num_sms(self) -> int:
        return self.sms.value.data

    @property
    def counters(self) -> dict[str, CounterOp]:
        """Counters by name, in textual order."""
        return {op.sym_name.data: op for op in self.body.block.ops if isinstance(op, CounterOp)}

    @property
    def programs(self) -> tuple[ProgramOp, ...]:
        return tuple(op for op in self.body.block.ops if isinstance(op, ProgramOp))

    @classmethod
    def parse(cls, parser: Parser) -> KernelOp:
        name = parser.parse_symbol_name().data
        parser.parse_keyword("target")
        target = parser.parse_str_literal()
        numbers: dict[str, int] = {}
        for keyword, most in (("sms", MAX_SMS), ("max_seq", MAX_EXTENT), ("tokens", MAX_EXTENT)):
            parser.parse_keyword(keyword)
            numbers[keyword] = parse_count(parser, keyword, most)
        ring = parser.parse_attribute() if parser.parse_optional_keyword("ring") is not None else None
        if ring is not None and not isinstance(ring, RingAttr):
            parser.raise_error("expected #amk.ring<...>")
        attributes = parser.parse_optional_attr_dict_with_keyword()
        op = KernelOp(
            name,
            target,
            numbers["sms"],
            numbers["max_seq"],
            numbers["tokens"],
            parse_block(parser),
            None if ring is None else ring.data,
        )
        if attributes is not None:
            op.attributes |= attributes.data
        return op

    def print(self, printer: Printer) -> None:
        printer.print_string(" ")
        printer.print_symbol_name(self.sym_name.data)
        printer.print_string(" target ")
        printer.print_string_literal(self.target.data)
        printer.print_string(f" sms {self.num_sms} max_seq {self.max_seq.value.data}")
        printer.print_string(f" tokens {self.tokens.value.data} ")
        if self.ring is not None:
            printer.print_string("ring ")
            printer.print_attribute(self.ring)
            printer.print_string(" ")
        if self.attributes:
            printer.print_op_attributes(self.attributes, print_keyword=True)
            printer.print_string(" ")
        print_block(printer, self.body)

    def verify_(self) -> None:
        self.verify_limits()
        if self.target.data not in TARGETS:
            raise VerifyException(f"unknown target '{self.target.data}', expected one of {', '.join(TARGETS)}")
        if self.num_sms < 1:
            raise VerifyException(f"sms must be at least 1, found {self.num_sms}")
        if self.num_sms > MAX_SMS:
            raise VerifyException(f"sms must be at most {MAX_SMS}, found {self.num_sms}")
        for op in self.body.block.ops:
            if not isinstance(op, BufferOp | FamilyOp | CounterOp | ProgramOp):
                raise VerifyException(f"a kernel holds buffers, families, counters and programs, found '{op.name}'")
        owner: dict[int, int] = {}
        for number, program in enumerate(self.programs):
            for sm in program.sms:
                if sm >= self.num_sms:
                    raise VerifyException(f"program {number} is for SM {sm}, the kernel has {self.num_sms}")
                if sm in owner:
                    raise VerifyException(f"SM {sm} has two programs, {owner[sm]} and {number}")
                owner[sm] = number
        if self.ring is not None:
            ring = self.ring.data
            if ring.stages < 1 or not 1 <= ring.in_flight <= ring.stages:
                raise VerifyException(f"a ring has 1 <= in_flight <= stages, found {self.ring}")
            if ring.stage_bytes < 512 or ring.stage_bytes % 512:
                raise VerifyException(f"ring stages hold a positive multiple of 512 bytes, found {ring.stage_bytes}")
        if (elements := sum(c.size.value.data for c in self.counters.values())) > MAX_COUNTERS:
            raise VerifyException(f"a kernel has at most {MAX_COUNTERS} counter elements, found {elements}")
        self.verify_size()

    def verify_size(self) -> None:
        """VerifyException if the loops stand for more than MAX_EVENTS or MAX_STEPS."""
        size, families = _Size(), self.families
        for program in self.programs:
            for region in (program.stream, program.body):
                size += _size(region, families, len(program.sms))
        if size.events > MAX_EVENTS:
            raise VerifyException(
                f"a kernel has at most {MAX_EVENTS} events, found at least {size.events} in all loops and SMs"
            )
        if size.steps > MAX_STEPS:
            raise VerifyException(
                f"a kernel has at most {MAX_STEPS} ops when it is unrolled, found at least {size.steps}"
            )


@irdl_op_definition
class CounterOp(OutsideIn):
    """An array of counters that only rise, zero before the first step.

    ```mlir
    queue.counter @qkv_done[30]
    ```
    """

    name = "queue.counter"

    sym_name = prop_def(SymbolNameConstraint())
    size = prop_def(IntegerAttr[I64])

    traits = traits_def(SymbolOpInterface(), HasParent(KernelOp))

    def __init__(self, name: str, size: int):
        super().__init__(properties={"sym_name": StringAttr(name), "size": IntegerAttr(size, i64)})

    @classmethod
    def parse(cls, parser: Parser) -> CounterOp:
        name = parser.parse_symbol_name().data
        with parser.in_square_brackets():
            size = parse_count(parser, "the size of a counter", MAX_COUNTERS)
        return CounterOp(name, size)

    def print(self, printer: Printer) -> None:
        printer.print_string(f" @{self.sym_name.data}[{self.size.value.data}]")

    def verify_(self) -> None:
        if self.size.value.data < 1:
            raise VerifyException(f"counter @{self.sym_name.data} needs at least one element")
        if self.size.value.data > MAX_COUNTERS:
            raise VerifyException(
                f"counter @{self.sym_name.data} has at most {MAX_COUNTERS} elements, found {self.size.value.data}"
            )


@irdl_op_definition
class ProgramOp(OutsideIn):
    """The stream and the body of the SMs `[first, last)`: every one of them executes this program in order.

    ```mlir
    queue.program sms 0 to 132 stream { ... } body { ... }
    ```
    """

    name = "queue.program"

    first = prop_def(IntegerAttr[I64])
    last = prop_def(IntegerAttr[I64])
    stream = region_def("single_block")
    body = region_def("single_block")

    traits = traits_def(HasParent(KernelOp), NoTerminator())

    def __init__(self, first: int, last: int, stream: Region, body: Region):
        super().__init__(
            properties={"first": IntegerAttr(first, i64), "last": IntegerAttr(last, i64)}, regions=[stream, body]
        )

    @property
    def sms(self) -> range:
        return range(self.first.value.data, self.last.value.data)

    @classmethod
    def parse(cls, parser: Parser) -> ProgramOp:
        parser.parse_keyword("sms")
        first = parse_count(parser, "an SM", MAX_SMS)
        parser.parse_keyword("to")
        last = parse_count(parser, "an SM", MAX_SMS)
        parser.parse_keyword("stream")
        stream = parse_block(parser)
        parser.parse_keyword("body")
        return ProgramOp(first, last, stream, parse_block(parser))

    def print(self, printer: Printer) -> None:
        printer.print_string(f" sms {self.sms.start} to {self.sms.stop} stream ")
        print_block(printer, self.stream)
        printer.print_string(" body ")
        print_block(printer, self.body)

    def verify_(self) -> None:
        if not 0 <= self.sms.start < self.sms.stop:
            raise VerifyException(f"a program is for SMs [first, last), found [{self.sms.start}, {self.sms.stop})")
        _verify_children(self.stream, (ForOp, FetchOp), "a stream holds loops and fetches")
        _verify_children(self.body, (ForOp, PhaseOp, RunOp, WaitOp, SignalOp), "a body holds loops, phases and events")


@dataclass(frozen=True)
class _Size:
    """How large something is when it is unrolled; at most, as a phase counts waits and signals on all SMs."""

    events: int = 0
    steps: int = 0

    def __add__(self, other: _Size) -> _Size:
        return _Size(self.events + other.events, self.steps + other.steps)

    def __mul__(self, times: int) -> _Size:
        return _Size(min(self.events * times, _ENDLESS), min(self.steps * times, _ENDLESS))


_ENDLESS = 2**63
"""Loops in loops multiply; nobody needs more digits."""


def _size(region: Region, families: Mapping[str, FamilyOp], sms: int) -> _Size:
    size = _Size()
    for op in region.block.ops:
        if isinstance(op, ForOp):
            size += (_size(op.body, families, sms) + _Size(steps=1)) * len(op.range)
        elif isinstance(op, PhaseOp):
            size += _size(op.body, families, sms) + _Size(steps=1)
        elif isinstance(op, PlacedOp):
            unbound = families[op.family_name].domain.shape[len(op.indices.data) :]
            size += _Size(prod(unbound), 1)
        else:
            size += _Size(sms, 1)
    return size


def _verify_children(region: Region, allowed: tuple[type[Operation], ...], what: str) -> None:
    for op in region.block.ops:
        if not isinstance(op, allowed):
            raise VerifyException(f"{what}, found '{op.name}'")
        if isinstance(op, ForOp):
            _verify_children(op.body, allowed, what)


@irdl_op_definition
class PhaseOp(OutsideIn):
    """Runs with their waits and signals; an SM that owns no task of any of its runs skips the whole phase.

    ```mlir
    queue.phase { queue.wait @x_done[layer] all queue.run @q[layer] on cyclic 0 queue.signal @q_done[layer] }
    ```
    """

    name = "queue.phase"

    body = region_def("single_block")

    traits = traits_def(NoTerminator())

    assembly_format = "$body attr-dict"

    def __init__(self, body: Region):
        super().__init__(regions=[body])

    @property
    def runs(self) -> tuple[RunOp, ...]:
        return tuple(op for op in self.body.block.ops if isinstance(op, RunOp))

    def verify_(self) -> None:
        _verify_in_program(self)
        for op in self.body.block.ops:
            if not isinstance(op, RunOp | WaitOp | SignalOp):
                raise VerifyException(f"a phase holds runs, waits and signals, found '{op.name}'")
        if not self.runs:
            raise VerifyException("a phase without runs never executes")


def enclosing_program(op: Operation) -> ProgramOp | None:
    """The program around `op`, None if it is not in one."""
    parent = op.parent_op()
    while parent is not None and not isinstance(parent, ProgramOp):
        parent = parent.parent_op()
    return parent


def _verify_in_program(op: Operation) -> None:
    if enclosing_program(op) is None:
        raise VerifyException(f"'{op.name}' must be in a queue.program")


# ---- events -------------------------------------------------------------------------------------------------------


class PlacedOp(IRDLOperation):
    """Base of run and fetch: `op @family[indices] placement`.

    The leading domain indices are bound; the remaining ones are flattened, row-major, to task numbers that the
    placement distributes over the program's SMs. Without a placement, all indices are bound: one task on every SM of
    the program (so that the program must be for one SM).
    """

    family = prop_def(SymbolRefAttr)
    indices = prop_def(IndicesAttr)
    placement = opt_prop_def(PlacementAttr)

    def __init__(
        self, family: str | SymbolRefAttr, indices: Sequence[Linear | int], placement: Placement | None = None
    ):
        super().__init__(
            properties={
                "family": SymbolRefAttr(family) if isinstance(family, str) else family,
                "indices": IndicesAttr(tuple(Linear.of(i) for i in indices)),
                "placement": None if placement is None else PlacementAttr(placement),
            }
        )

    @property
    def family_name(self) -> str:
        return self.family.string_value()

    @classmethod
    def parse(cls, parser: Parser) -> Self:
        name = parser.parse_symbol_name().data
        indices = parse_linear_list(parser)
        placed = parser.parse_optional_keyword("on") is not None
        return cls(name, indices, parse_placement(parser) if placed else None)

    def print(self, printer: Printer) -> None:
        printer.print_string(f" @{self.family_name}{format_linear_list(self.indices.data)}")
        if self.placement is not None:
            printer.print_string(f" on {self.placement.data}")

    def verify_(self) -> None:
        _verify_in_program(self)
        family = find_family(self, self.family)
        indices = self.indices.data
        verify_leading_indices(self, family, indices)
        if self.placement is not None:
            unbound = sorted(self.placement.data.offset.names - enclosing_indices(self).keys())
            if unbound:
                raise VerifyException(f"placement of '{self.name}' uses index '{unbound[0]}', which no loop defines")
            return
        program = enclosing_program(self)
        assert program is not None
        # the program's own verifier comes later: a range of any size
        sms = program.last.value.data - program.first.value.data
        if len(indices) != len(family.domain.data) or sms != 1:
            raise VerifyException(
                f"'{self.name}' of @{self.family_name} without a placement must bind all "
                f"{len(family.domain.data)} indices in a program for one SM"
            )


@irdl_op_definition
class RunOp(PlacedOp):
    """Executes this SM's tasks of a family, in task order.

    ```mlir
    queue.run @q[layer] on cyclic 0
    queue.run @q[3, 2, 1]
    ```
    """

    name = "queue.run"

    traits = traits_def(SynchronizationEffect())


@irdl_op_definition
class FetchOp(PlacedOp):
    """Brings the constant tiles of this SM's tasks of a family into the ring, in task and then body order.

    ```mlir
    queue.fetch @q[layer] on cyclic 0
    ```
    """

    name = "queue.fetch"

    traits = traits_def(SynchronizationEffect())

    def verify_(self) -> None:
        super().verify_()
        if not find_family(self, self.family).streams:
            raise VerifyException(f"family @{self.family_name} streams nothing to fetch")


class _CounterEventOp(IRDLOperation):
    """Base of wait and signal: an event on one element of a counter."""

    counter = prop_def(SymbolRefAttr)
    index = prop_def(LinearAttr)

    @property
    def counter_name(self) -> str:
        return self.counter.string_value()

    def verify_(self) -> None:
        _verify_in_program(self)
        counter = find_symbol(self, self.counter)
        if not isinstance(counter, CounterOp):
            raise VerifyException(f"'{self.name}' refers to @{self.counter_name}, which is not a counter")
        low, high = loop_bounds(self, self.index.data)
        if low < 0 or high >= counter.size.value.data:
            raise VerifyException(
                f"'{self.name}' reaches @{self.counter_name}[{low}..{high}], it has {counter.size.value.data} elements"
            )


@irdl_op_definition
class WaitOp(_CounterEventOp):
    """Blocks until the counter has had at least `threshold` signals in this step; `all`: every signal of the step.

    ```mlir
    queue.wait @q_done[layer] all
    queue.wait @q_done[layer] >= 12
    ```
    """

    name = "queue.wait"

    threshold = opt_prop_def(LinearAttr)

    traits = traits_def(SynchronizationEffect())

    def __init__(self, counter: str, index: Linear | int, threshold: Linear | int | None = None):
        super().__init__(
            properties={
                "counter": SymbolRefAttr(counter),
                "index": LinearAttr(Linear.of(index)),
                "threshold": None if threshold is None else LinearAttr(Linear.of(threshold)),
            }
        )

    @classmethod
    def parse(cls, parser: Parser) -> WaitOp:
        counter = parser.parse_symbol_name().data
        with parser.in_square_brackets():
            index = parse_linear(parser)
        if parser.parse_optional_keyword("all") is not None:
            return WaitOp(counter, index)
        parser.parse_punctuation(">", " or 'all' in a wait")
        parser.parse_punctuation("=")
        return WaitOp(counter, index, parse_linear(parser))

    def print(self, printer: Printer) -> None:
        condition = "all" if self.threshold is None else f">= {self.threshold.data}"
        printer.print_string(f" @{self.counter_name}[{self.index.data}] {condition}")

    def verify_(self) -> None:
        super().verify_()
        if self.threshold is None:
            return
        low, high = loop_bounds(self, self.threshold.data)
        if low < 1:
            raise VerifyException(f"a wait needs at least one signal, found >= {self.threshold.data}")
        if high > MAX_EVENTS:
            raise VerifyException(f"a wait is for at most {MAX_EVENTS} signals, found >= {self.threshold.data}")


@irdl_op_definition
class SignalOp(_CounterEventOp):
    """Adds one to a counter, after everything before it on this SM has completed.

    ```mlir
    queue.signal @q_done[layer]
    ```
    """

    name = "queue.signal"

    traits = traits_def(SynchronizationEffect())

    def __init__(self, counter: str, index: Linear | int):
        super().__init__(properties={"counter": SymbolRefAttr(counter), "index": LinearAttr(Linear.of(index))})

    @classmethod
    def parse(cls, parser: Parser) -> SignalOp:
        counter = parser.parse_symbol_name().data
        with parser.in_square_brackets():
            return SignalOp(counter, parse_linear(parser))

    def print(self, printer: Printer) -> None:
        printer.print_string(f" @{self.counter_name}[{self.index.data}]")


Queue = Dialect(
    "queue",
    [
        CounterOp,
        FetchOp,
        KernelOp,
        PhaseOp,
        ProgramOp,
        RunOp,
        SignalOp,
        WaitOp,
    ],
)
