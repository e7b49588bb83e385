"""Small kernels as plain Python data, from which the text that the verifier gets is written.

Oracles of the verifier read this data, never the IR, and share no code with the verifier.
"""

import itertools
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin
from xdsl.parser import Parser

from amk.dialects.amk import Amk
from amk.dialects.queue import KernelOp, Queue
from amk.dialects.task import Task as TaskDialect

SHAPES = {"p": (2, 3), "t": (4,), "s": (4,), "o": (2,)}
KINDS = {"p": "scratch", "t": "scratch tagged", "s": "state", "o": "output"}
MAX_SEQ = 4
BUFFERS = {name: (KINDS[name], shape) for name, shape in SHAPES.items()}


@dataclass(frozen=True)
class Box:
    """start = (constant, factor of i, factor of pos), size = (constant, factor of pos), for each dimension.

    streamed: of a box that is read, whether the ring brings it (state only).
    """

    buffer: str
    dims: tuple[tuple[tuple[int, int, int], tuple[int, int]], ...]
    streamed: bool = False

    def elements(self, i: int, pos: int) -> frozenset[tuple[str, tuple[int, ...]]]:
        ranges = [
            range(a + b * i + c * pos, a + b * i + c * pos + size + growth * pos)
            for (a, b, c), (size, growth) in self.dims
        ]
        return frozenset((self.buffer, index) for index in itertools.product(*ranges))

    def text(self) -> str:
        return f"@{self.buffer}[{', '.join(f'{linear(s[0], i=s[1], pos=s[2])} : {linear(z[0], pos=z[1])}' for s, z in self.dims)}]"

    def tile(self) -> str:
        return "x".join("?" if growth else str(size) for _, (size, growth) in self.dims)


def linear(constant: int, **factors: int) -> str:
    terms = [f"{name}*{f}" for name, f in factors.items() if f]
    return " + ".join([*terms, str(constant)]) if constant or not terms else " + ".join(terms)


@dataclass
class Family:
    """streams: whether its tasks take tiles from the ring, of weights or, where a read is streamed, of state."""

    extent: int
    reads: list[Box]
    writes: list[Box]
    streams: bool

    @property
    def streams_state(self) -> bool:
        return any(box.streamed for box in self.reads)


Event = tuple  # ("run", family, i) | ("wait", counter, threshold or None) | ("signal", counter)


@dataclass
class Kernel:
    tokens: int
    families: list[Family]
    counters: int
    queues: list[list[Event]]
    fetches: list[list[tuple[int, int]]] = field(default_factory=list)
    buffers: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=lambda: BUFFERS)  # kind, shape
    max_seq: int = MAX_SEQ

    def total(self, counter: int) -> int:
        return sum(e == ("signal", counter) for q in self.queues for e in q)

    def threshold(self, event: Event) -> int:
        return self.total(event[1]) if event[2] is None else event[2]

    def text(self) -> str:
        lines = [
            f'queue.kernel @k target "reference" sms {len(self.queues)} max_seq {self.max_seq} tokens {self.tokens} '
            "ring #amk.ring<stages = 1, bytes = 512, in_flight = 1> {",
            '  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<2xf32>',
        ]
        lines += [
            f"  task.buffer @{b} {kind} : tensor<{'x'.join(map(str, shape))}xf32>"
            for b, (kind, shape) in self.buffers.items()
        ]
        lines += ["  task.buffer @in1 input : tensor<8xf32>", "  task.buffer @in2 input : tensor<8x8xf32>"]
        for n, family in enumerate(self.families):
            domain = f"i = {family.extent}" if family.extent > 1 else ""
            lines.append(f"  task.family @f{n} ({domain}) {{")
            if family.streams and not family.streams_state:
                lines.append("    %w = task.stream @w[0 : 2] : tensor<2xf32>")
            for r, box in enumerate(family.reads):
                how = "stream" if box.streamed else "load"
                lines.append(f"    %r{r} = task.{how} {box.text()} : tensor<{box.tile()}xf32>")
            for w, box in enumerate(family.writes):
                source = ", ".join(f"0 : {size}" for _, (size, _) in box.dims)
                lines.append(f"    %v{w} = task.load @in{len(box.dims)}[{source}] : tensor<{box.tile()}xf32>")
                lines.append(f"    task.store %v{w}, {box.text()} : tensor<{box.tile()}xf32>")
            lines.append("  }")
        lines.append(f"  queue.counter @c[{self.counters}]")
        for sm, queue in enumerate(self.queues):
            lines.append(f"  queue.program sms {sm} to {sm + 1} stream {{")
            lines += [f"    queue.fetch @f{f}[{self.index(f, i)}]" for f, i in self.fetches[sm]]
            lines.append("  } body {")
            for event in queue:
                match event:
                    case ("run", f, i):
                        lines.append(f"    queue.run @f{f}[{self.index(f, i)}]")
                    case ("wait", c, None):
                        lines.append(f"    queue.wait @c[{c}] all")
                    case ("wait", c, n):
                        lines.append(f"    queue.wait @c[{c}] >= {n}")
                    case (_, c):
                        lines.append(f"    queue.signal @c[{c}]")
            lines.append("  }")
        return "\n".join([*lines, "}"])

    def index(self, family: int, i: int) -> str:
        return str(i) if self.families[family].extent > 1 else ""


def parse(text: str) -> KernelOp:
    context = Context()
    for dialect in (Builtin, Amk, TaskDialect, Queue):
        context.load_dialect(dialect)
    module = Parser(context, text).parse_module()
    module.verify()
    return next(op for op in module.walk() if isinstance(op, KernelOp))
