"""Real lowerings, small enough for an oracle: what the passes make of tiny models, every event spelled out.

A lowering is read off the ops of the explicit form (`expand-queues`) by code of its own, not by that of the verifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from cuda_models import llama_config, lower
from llama_kernels import LlamaShape, parse, queue_kernel
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, Region

from amk.amk_ir.access import Access
from amk.dialects.queue import CounterOp, FetchOp, KernelOp, ProgramOp, RunOp, SignalOp, WaitOp
from amk.dialects.schedule import Events, Schedule
from amk.dialects.task import BufferOp, FamilyOp, StreamOp
from amk.passes.expand_queues import ExpandQueuesPass
from amk.passes.verifier import OverlapIndex

from . import direct_oracle
from .direct_oracle import Event, Head, Side

SPARE = 8
"""Counters, the last ones of each lowering, that nobody signals or waits for: for mutants that add synchronisation."""

Task = tuple[int, int]
"""(family, row-major number)."""

_TINY = {"hidden": 16, "mlp": 24, "layers": 1, "heads": 4, "kv_heads": 2, "head_dim": 4, "vocab": 20, "max_seq": 4}

SHAPES: dict[str, dict[str, Any]] = {
    "gqa": llama_config(**_TINY),
    "mha": llama_config(**_TINY | {"kv_heads": 4}, tied=False),
    "mqa": llama_config(**_TINY | {"kv_heads": 1}, tied=False),
    "biases": llama_config(**_TINY, bias=True),
    "two layers": llama_config(**_TINY | {"layers": 2, "heads": 2, "kv_heads": 1}, tied=False),
    "three layers": llama_config(**_TINY | {"layers": 3, "heads": 2, "mlp": 8, "vocab": 9, "max_seq": 3}),
    "odd": llama_config(15, 22, 1, 3, 1, 6, 19, 5, tied=False, bias=True),
    "odder": llama_config(9, 13, 2, 3, 3, 2, 11, 3),
}
"""Configurations: grouped, multi-head and multi-query attention, tied or not, biases, layers, widths no tile divides."""

TARGETS = ("reference", "sm_80", "sm_90a", "sm_120a")

_BY_HAND = LlamaShape(vocab=12, hidden=8, wide=8, layers=2, heads=2, kv_heads=1, half=2, max_seq=4, tiles=2)


@dataclass(frozen=True)
class Source:
    """Where a lowering comes from: a shape, or "by hand" for tests/llama_kernels.py."""

    shape: str
    target: str
    handoff: str
    sms: int

    def __str__(self) -> str:
        return f"{self.shape}, {self.target}, {self.handoff}, {self.sms} SMs"


def corpus() -> list[Source]:
    """All lowerings: every shape for every target, by counters and by tags, on 2 to 6 SMs."""
    sources = [
        Source(shape, target, handoff, 2 + (s + 2 * t + (handoff == "auto")) % 5)
        for s, shape in enumerate(SHAPES)
        for t, target in enumerate(TARGETS)
        for handoff in ("auto", "counter")
    ]
    return [*sources, Source("by hand", "reference", "tagged", 3), Source("by hand", "reference", "counter", 2)]


@dataclass
class Lowering:
    """A kernel as data.

    kernel: its buffers, families and counters, without programs: `bodies` and `streams` stand for them. counters: (name,
    element) by number. families, buffers: ops by number, in textual order.
    """

    kernel: KernelOp
    families: list[FamilyOp]
    buffers: list[BufferOp]
    counters: list[tuple[str, int]]
    bodies: list[list[Event]]
    streams: list[list[Task]]

    def __post_init__(self) -> None:
        self._ops: dict[tuple[str, Event], Operation] = {}
        self._packed: list[int] = []
        self._index: list[OverlapIndex] = []
        self._domains = [f.domain for f in self.families]  # task numbers count in these, whatever becomes of the ops

    @staticmethod
    def of(kernel: KernelOp) -> Lowering:
        """Reads an explicit kernel and takes its programs away."""
        families, buffers = list(kernel.families.values()), list(kernel.buffers.values())
        number = {f.sym_name.data: i for i, f in enumerate(families)}
        counters = [(name, i) for name, op in kernel.counters.items() for i in range(op.size.value.data)]
        counter_number = {c: i for i, c in enumerate(counters)}

        def task(op: RunOp | FetchOp) -> Task:
            family = number[op.family_name]
            flat = 0
            for value, (_, extent) in zip(op.indices.data, families[family].domain.data, strict=True):
                flat = flat * extent + value.constant
            return family, flat

        def event(op: Operation) -> Event:
            match op:
                case RunOp():
                    return ("run", *task(op))
                case WaitOp():
                    threshold = None if op.threshold is None else op.threshold.data.constant
                    return ("wait", counter_number[op.counter_name, op.index.data.constant], threshold)
                case SignalOp():
                    return ("signal", counter_number[op.counter_name, op.index.data.constant])
                case _:
                    raise AssertionError(f"not explicit: '{op.name}'")

        bodies: list[list[Event]] = [[] for _ in range(kernel.num_sms)]
        streams: list[list[Task]] = [[] for _ in range(kernel.num_sms)]
        for program in kernel.programs:
            (sm,) = program.sms
            bodies[sm] = [event(op) for op in program.body.block.ops]
            streams[sm] = [task(op) for op in program.stream.block.ops if isinstance(op, FetchOp)]
            program.detach()
            program.erase()
        return Lowering(kernel, families, buffers, counters, bodies, streams)

    def with_queues(self, bodies: list[list[Event]], streams: list[list[Task]]) -> Lowering:
        """The same ops with other queues."""
        result = Lowering(self.kernel, self.families, self.buffers, self.counters, bodies, streams)
        # what only depends on the ops is shared
        result._ops, result._packed, result._index = self._ops, self._packed, self._index
        return result

    def consumed(self, body: list[Event]) -> list[Task]:
        """The tasks of a body that stream, in its order."""
        return [(e[1], e[2]) for e in body if e[0] == "run" and self.families[e[1]].streams]

    def unchanged_head(self) -> list[int]:
        """What `head` is while no op is changed, packed once."""
        if not self._packed:
            self._packed += self.head().packed()
        return self._packed

    def unchanged_index(self) -> OverlapIndex:
        """What the verifier may keep from one schedule to the next while no op is changed."""
        if not self._index:
            self._index.append(OverlapIndex(self.kernel))
        return self._index[0]

    def head(self) -> Head:
        """What the oracle has to know of the ops, as they are now."""
        number = {b.sym_name.data: i for i, b in enumerate(self.buffers)}

        def region(op: Operation, access: Access, names: tuple[str, ...]) -> direct_oracle.Region:
            sides: list[Side] = []
            for dim in access.dims:
                start, size = dict(dim.start.terms), dict(dim.size.terms)
                factors = tuple(start.get(n, 0) for n in names)
                sides.append(
                    Side(
                        dim.start.constant,
                        start.get("pos", 0),
                        dim.size.constant,
                        size.get("pos", 0),
                        dim.limit,
                        factors,
                    )
                )
            return direct_oracle.Region(number[access.buffer], tuple(sides), isinstance(op, StreamOp))

        kinds = {"scratch": "scratch", "output": "output", "state": "state", "weight": "constant", "input": "constant"}
        return Head(
            self.kernel.tokens.value.data,
            self.kernel.max_seq.value.data - self.kernel.tokens.value.data,
            self.kernel.ring is not None,
            tuple(("tagged" if b.tagged is not None else kinds[b.kind.data.value], b.shape) for b in self.buffers),
            tuple(
                direct_oracle.Family(
                    tuple(extent for _, extent in f.domain.data),
                    bool(f.streams),
                    tuple(region(op, op.region, f.domain.names) for op in f.loads),
                    tuple(region(op, op.region, f.domain.names) for op in f.stores),
                )
                for f in self.families
            ),
            sum(op.size.value.data for op in self.kernel.counters.values()),
        )

    # ---- back to what the verifier takes ----

    def schedule(self, bodies: list[list[Event]], streams: list[list[Task]]) -> Schedule:
        """The arrays that `Schedule.from_kernel` would make of the kernel with these bodies and streams."""
        totals = np.zeros(len(self.counters), np.int32)
        for body in bodies:
            for event in body:
                if event[0] == "signal":
                    totals[event[1]] += 1
        # the first op of each kind of event on each queue stands for all that are equal
        ops: dict[Operation, int] = {}
        columns: list[list[tuple[int, int, int, int]]] = [[], []]
        bounds: list[list[int]] = [[0], [0]]
        for body, stream in zip(bodies, streams, strict=True):
            for event in body:
                number = ops.setdefault(self.op("body", event), len(ops))
                match event:
                    case ("run", family, task):
                        columns[0].append((0, family, task, number))
                    case ("wait", counter, threshold):
                        columns[0].append((1, counter, totals[counter] if threshold is None else threshold, number))
                    case (_, counter):
                        columns[0].append((2, counter, 0, number))
            for family, task in stream:
                number = ops.setdefault(self.op("stream", ("run", family, task)), len(ops))
                columns[1].append((0, family, task, number))
            bounds[0].append(len(columns[0]))
            bounds[1].append(len(columns[1]))
        body_events, stream_events = (
            Events(*(np.array(rows, np.int32).reshape(-1, 4).T.copy()), np.array(bound, np.int32))
            for rows, bound in zip(columns, bounds, strict=True)
        )
        return Schedule(
            self.kernel, tuple(self.families), tuple(self.counters), totals, tuple(ops), body_events, stream_events
        )

    def op(self, part: str, event: Event) -> Operation:
        """An op for an event of a body or a fetch of a stream, shared by all equal ones."""
        if (op := self._ops.get((part, event))) is None:
            op = self._ops[part, event] = self._new_op(part, event)
        return op

    def _new_op(self, part: str, event: Event) -> Operation:
        match event:
            case ("run", family, task):
                indices: list[int] = []
                for _, extent in reversed(self._domains[family].data):
                    task, index = divmod(task, extent)
                    indices.insert(0, index)
                return (FetchOp if part == "stream" else RunOp)(self.families[family].sym_name.data, indices)
            case ("wait", counter, threshold):
                return WaitOp(*self.counters[counter], threshold)
            case _:
                return SignalOp(*self.counters[event[1]])

    def explicit(self, bodies: list[list[Event]], streams: list[list[Task]]) -> KernelOp:
        """A kernel of its own with these bodies and streams as ops, and the families and buffers as they are now."""
        kernel = self.kernel.clone()
        for sm, (body, stream) in enumerate(zip(bodies, streams, strict=True)):
            regions = (
                Region(Block([self._new_op("stream", ("run", *task)) for task in stream])),
                Region(Block([self._new_op("body", event) for event in body])),
            )
            kernel.body.block.add_op(ProgramOp(sm, sm + 1, *regions))
        ModuleOp([kernel])
        return kernel


@cache
def lowering(source: Source) -> Lowering:
    """A lowering with spare counters, made once for each source. Whoever changes its ops puts them back."""
    if source.shape == "by hand":
        compact = parse(queue_kernel(_BY_HAND, source.sms, source.handoff == "tagged"))
        module = compact.parent_op()
    else:
        compact = lower(SHAPES[source.shape], source.target, sms=source.sms, handoff=source.handoff)
        module = compact.parent_op()
    assert isinstance(module, ModuleOp)
    ExpandQueuesPass().apply(Context(), module)
    (kernel,) = [op for op in module.ops if isinstance(op, KernelOp)]
    kernel.body.block.insert_op_before(CounterOp("spare", SPARE), kernel.programs[0])
    return Lowering.of(kernel)
