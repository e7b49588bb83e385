"""The schedule verifier against exhaustive enumeration: random small kernels, all interleavings of each.

The oracle shares no code with the verifier: it knows a kernel as plain Python data, from which it also writes the text
that the verifier gets. It explores every reachable state, keeps track of who has heard of whom, and decides each rule
from its definition in docs/semantics.md, element by element and position by position.
"""

import itertools
import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin
from xdsl.parser import Parser

from amk.dialects.amk import Amk
from amk.dialects.queue import KernelOp, Queue
from amk.dialects.task import Task as TaskDialect
from amk.passes.verifier import check

KERNELS = 300

SHAPES = {"p": (2, 3), "t": (4,), "s": (4,), "o": (2,)}
KINDS = {"p": "scratch", "t": "scratch tagged", "s": "state", "o": "output"}
MAX_SEQ = 4


@dataclass(frozen=True)
class Box:
    """start = (constant, factor of i, factor of pos), size = (constant, factor of pos), for each dimension."""

    buffer: str
    dims: tuple[tuple[tuple[int, int, int], tuple[int, int]], ...]

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
    extent: int
    reads: list[Box]
    writes: list[Box]
    streams: bool


Event = tuple  # ("run", family, i) | ("wait", counter, threshold or None) | ("signal", counter)


@dataclass
class Kernel:
    tokens: int
    families: list[Family]
    counters: int
    queues: list[list[Event]]
    fetches: list[list[tuple[int, int]]] = field(default_factory=list)

    def total(self, counter: int) -> int:
        return sum(e == ("signal", counter) for q in self.queues for e in q)

    def threshold(self, event: Event) -> int:
        return self.total(event[1]) if event[2] is None else event[2]

    def text(self) -> str:
        lines = [
            f'queue.kernel @k target "reference" sms {len(self.queues)} max_seq {MAX_SEQ} tokens {self.tokens} '
            "ring #amk.ring<stages = 1, bytes = 512, in_flight = 1> {",
            '  task.buffer @w weight from #amk.checkpoint<"w"> : tensor<2xf32>',
        ]
        lines += [f"  task.buffer @{b} {KINDS[b]} : tensor<{'x'.join(map(str, s))}xf32>" for b, s in SHAPES.items()]
        lines += ["  task.buffer @in1 input : tensor<8xf32>", "  task.buffer @in2 input : tensor<8x8xf32>"]
        for n, family in enumerate(self.families):
            domain = f"i = {family.extent}" if family.extent > 1 else ""
            lines.append(f"  task.family @f{n} ({domain}) {{")
            if family.streams:
                lines.append("    %w = task.stream @w[0 : 2] : tensor<2xf32>")
            for r, box in enumerate(family.reads):
                lines.append(f"    %r{r} = task.load {box.text()} : tensor<{box.tile()}xf32>")
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


# ---- the oracle ---------------------------------------------------------------------------------------------------


class Oracle:
    """Decides a kernel whose tasks each run once."""

    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.queues = kernel.queues
        self.end = tuple(map(len, self.queues))
        self.runs = {(s, n): e for s, q in enumerate(self.queues) for n, e in enumerate(q) if e[0] == "run"}
        self.position = 0

    def reads(self, event: Event):
        return [b.elements(event[2], self.position) for b in self.kernel.families[event[1]].reads]

    def writes(self, event: Event):
        return [b.elements(event[2], self.position) for b in self.kernel.families[event[1]].writes]

    def enabled(self, pcs: tuple[int, ...], sm: int) -> bool:
        if pcs[sm] == self.end[sm]:
            return False
        event = self.queues[sm][pcs[sm]]
        done = [e for s, q in enumerate(self.queues) for e in q[: pcs[s]]]
        if event[0] == "wait":
            return done.count(("signal", event[1])) >= self.kernel.threshold(event)
        if event[0] == "run":
            words = {e for r in self.reads(event) for e in r if e[0] == "t"}
            written = {e for d in done if d[0] == "run" for w in self.writes(d) for e in w}
            pending = {
                e
                for s, q in enumerate(self.queues)
                for d in q[pcs[s] :]
                if d[0] == "run"
                for w in self.writes(d)
                for e in w
            }
            return words <= written - pending
        return True

    def states(self) -> dict[tuple[int, ...], list[int]]:
        """All reachable states, with the SMs that can move."""
        found: dict[tuple[int, ...], list[int]] = {}
        todo = [(0,) * len(self.queues)]
        while todo:
            pcs = todo.pop()
            if pcs in found:
                continue
            found[pcs] = [s for s in range(len(pcs)) if self.enabled(pcs, s)]
            todo += [(*pcs[:s], pcs[s] + 1, *pcs[s + 1 :]) for s in found[pcs]]
        return found

    def always_before(self, a: tuple[int, int], b: tuple[int, int], states: dict[tuple[int, ...], list[int]]) -> bool:
        """In no execution does event b run while a has not."""
        return not any(pcs[b[0]] == b[1] and b[0] in movable and pcs[a[0]] <= a[1] for pcs, movable in states.items())

    def always_visible(self, a: tuple[int, int], b: tuple[int, int], states: dict[tuple[int, ...], list[int]]) -> bool:
        """In every execution, b runs knowing of a: through program order, or a signal that a wait observed.

        A wait observes the first k signals of its counter, in the order in which they came: at least as many as it
        waits for and as its SM has heard of, at most all so far. Tags order tasks in time, but carry no knowledge.
        """
        none = (0,) * self.kernel.counters
        # of each SM: does it know of a, how many signals of each counter has it heard of; the same of each signal
        start = ((0,) * len(self.queues), ((False, none),) * len(self.queues), ((),) * self.kernel.counters)
        seen, todo = set(), [start]
        while todo:
            state = todo.pop()
            if state in seen:
                continue
            seen.add(state)
            pcs, sms, signals = state
            for s in states[pcs]:
                event = self.queues[s][pcs[s]]
                knows, heard = sms[s]
                if (s, pcs[s]) == b and not knows:
                    return False
                after = (*pcs[:s], pcs[s] + 1, *pcs[s + 1 :])
                outcomes, sent = [(knows or (s, pcs[s]) == a, heard)], signals
                if event[0] == "signal":
                    c = event[1]
                    outcomes = [(knows, (*heard[:c], len(signals[c]) + 1, *heard[c + 1 :]))]
                    sent = (*signals[:c], (*signals[c], outcomes[0]), *signals[c + 1 :])
                elif event[0] == "wait":
                    c = event[1]
                    outcomes = []
                    for k in range(max(self.kernel.threshold(event), heard[c]), len(signals[c]) + 1):
                        told = signals[c][:k]
                        most = tuple(map(max, zip(heard, *(h for _, h in told), strict=True))) if told else heard
                        outcomes.append(
                            (knows or any(t for t, _ in told), (*most[:c], max(k, most[c]), *most[c + 1 :]))
                        )
                todo += [(after, (*sms[:s], o, *sms[s + 1 :]), sent) for o in outcomes]
        return True

    def has_deadlock(self) -> bool:
        for position in range(MAX_SEQ - self.kernel.tokens + 1):
            self.position = position
            if any(not movable and pcs != self.end for pcs, movable in self.states().items()):
                return True
        return False

    def history(self, position: int) -> set:
        """State elements that are written before a step at `position`, however the earlier steps advanced."""

        def paths(now: int) -> Iterator[list[int]]:
            if now == 0:
                yield []
            for back in range(1, self.kernel.tokens + 1):
                if now - back >= 0:
                    for path in paths(now - back):
                        yield [*path, now - back]

        result: set | None = None
        for path in paths(position):
            written: set = set()
            for self.position in path:
                written |= {e for run in self.runs.values() for w in self.writes(run) for e in w if e[0] == "s"}
            result = written if result is None else result & written
        return result or set()

    def problem(self) -> str | None:
        """Why the kernel is unsafe, or None."""
        consumed = [
            [(e[1], e[2]) for e in q if e[0] == "run" and self.kernel.families[e[1]].streams] for q in self.queues
        ]
        if consumed != self.kernel.fetches:
            return "stream"
        if self.has_deadlock():
            return "deadlock"
        for position in range(MAX_SEQ - self.kernel.tokens + 1):
            history = self.history(position)
            self.position = position
            if problem := self.problem_at(history, self.states()):
                return f"{problem} at {position}"
        return None

    def problem_at(self, history: set, states: dict[tuple[int, ...], list[int]]) -> str | None:
        writes = [(at, e) for at, run in self.runs.items() for w in self.writes(run) for e in w]
        reads = [(at, e) for at, run in self.runs.items() for e in {e for r in self.reads(run) for e in r}]
        single = [e for _, e in writes if e[0] != "s"]
        if len(single) != len(set(single)):
            return "written twice"
        if not {("o", (n,)) for n in range(SHAPES["o"][0])} <= set(single):
            return "output"
        state_writes = [(at, e) for at, e in writes if e[0] == "s"]
        for (a, e), (b, f) in itertools.combinations(state_writes, 2):
            if e == f and (a == b or not (self.always_visible(a, b, states) or self.always_visible(b, a, states))):
                return "write race"
        for b, e in reads:
            covered = e in history
            for a, f in writes:
                if e != f:
                    continue
                if e[0] == "t" or (a != b and self.always_visible(a, b, states)):
                    covered = True
                elif e[0] != "s" or (a != b and not self.always_before(b, a, states)):
                    return "race"
            if not covered:
                return "coverage"
        return None


# ---- random kernels -----------------------------------------------------------------------------------------------


def random_box(rng: random.Random, buffer: str, extent: int, tokens: int, write: bool) -> Box:
    if buffer == "s":
        if write:
            moving = rng.choice(
                [((0, 0, 1), (tokens, 0))] * 6 + [((0, 0, 1), (1, 0)), ((0, 0, 0), (2, 0)), ((1, 0, 0), (1, 0))]
            )
            return Box("s", (moving,))
        reads = [((0, 0, 0), (tokens, 1))] * 4 + [((0, 0, 0), (1, 1)), ((0, 0, 1), (1, 0)), ((1, 0, 0), (2, 0))]
        return Box("s", (rng.choice(reads),))
    dims = []
    stepped = rng.randrange(len(SHAPES[buffer])) if extent > 1 and (write or rng.random() < 0.5) else -1
    for axis, length in enumerate(SHAPES[buffer]):
        if axis == stepped:
            size = rng.choice([1, 1, length // extent])
            factor = rng.choice([size, size, size, 1])
            last = length - size - factor * (extent - 1)
            dims.append(((rng.randint(0, max(0, last)) if last > 0 else 0, factor if last >= 0 else 0, 0), (size, 0)))
        else:
            size = rng.choice([1, length, rng.randint(1, length)])
            dims.append(((rng.randint(0, length - size), 0, 0), (size, 0)))
    return Box(buffer, tuple(dims))


def relay_kernel(rng: random.Random) -> Kernel:
    """Each task reads what those before it wrote, and hears of them from either of two relays."""
    buffer = rng.choice(["p", "p", "s", "t"])
    tokens = 1

    def element(n: int) -> Box:
        if buffer == "p":
            return Box("p", (((0, 0, 0), (1, 0)), ((n, 0, 0), (1, 0))))
        return Box("t", (((n, 0, 0), (1, 0)),)) if buffer == "t" else Box("s", (((0, 0, 1), (1, 0)),))

    families = [Family(1, [], [element(0)], False)]
    reads = [element(0)] if rng.random() < 0.8 else []
    families.append(Family(1, reads, [element(1)], False))
    families.append(Family(1, [element(0), element(1)], [Box("o", (((0, 0, 0), (2, 0)),))], False))
    queues: list[list[Event]] = [[] for _ in range(rng.choice([2, 3]))]
    keep = rng.choice([0.9, 1.0, 1.0])
    for n in range(3):
        queue = rng.choice(queues)
        if n and rng.random() < keep:
            queue.append(("wait", 2 * n - 1, rng.choice([1, 1, 1, 2])))
        queue.append(("run", n, 0))
        if n == 2:
            break
        queue.append(("signal", 2 * n))
        for relay in rng.sample(queues, 2):
            if rng.random() < keep:
                relay.append(("wait", 2 * n, 1))
            relay.append(("signal", 2 * n + 1))
    kernel = Kernel(tokens, families, 4, queues)
    kernel.fetches = [[] for _ in queues]
    return kernel


def mixed_kernel(rng: random.Random) -> Kernel:
    """Tasks in an order that cannot deadlock, which tell later ones of themselves by tags, counters, both or neither."""
    data = rng.choice(
        [Box("p", (((0, 0, 0), (1, 0)),) * 2), Box("s", (((0, 0, 0), (1, 0)),)), Box("s", (((0, 0, 1), (1, 0)),))]
    )
    queues: list[list[Event]] = [[] for _ in range(rng.choice([2, 2, 3]))]
    families: list[Family] = []
    tags, moving = 0, rng.random() < 0.15
    told: list[int] = []
    hears = rng.choice([0.3, 0.5, 0.9])
    streaming = rng.random() < 0.15
    count = rng.randint(3, 5)
    for n in range(count):
        reads = [Box("t", (((tags - 1, 0, 0), (1, 0)),))] if tags and rng.random() < 0.7 else []
        if reads and moving and rng.random() < 0.8:
            reads = [Box("t", (((0, 0, 1), (1, 0)),))]
        writes = []
        if n == 0 or (data.buffer == "s" and rng.random() < 0.25):
            writes.append(data)
        elif rng.random() < 0.5:
            reads.append(data)
        if n == count - 1:
            writes.append(Box("o", (((0, 0, 0), (2, 0)),)))
        elif tags < (1 if moving else 4) and (not writes or rng.random() < 0.4):
            writes.append(Box("t", (((tags, 0, int(moving)), (1, 0)),)))
            tags += 1
        if not writes:
            continue
        queue = rng.choice(queues)
        queue += [("wait", c, rng.choice([None, 1])) for c in told if rng.random() < hears]
        queue.append(("run", len(families), 0))
        families.append(Family(1, reads, writes, streaming and rng.random() < 0.7))
        if rng.random() < 0.5:
            told.append(n)
            queue.append(("signal", n))
            if rng.random() < 0.3:
                rng.choice(queues).append(("signal", n))
    # the order of the families says nothing about the order of their tasks
    order = rng.sample(range(len(families)), len(families))
    families = [families[f] for f in order]
    queues = [[("run", order.index(e[1]), 0) if e[0] == "run" else e for e in q] for q in queues]
    kernel = Kernel(1, families, 5, queues)
    kernel.fetches = [[(e[1], e[2]) for e in q if e[0] == "run" and families[e[1]].streams] for q in queues]
    if rng.random() < 0.3:
        rng.shuffle(rng.choice(kernel.fetches))
    return kernel


def random_kernel(rng: random.Random) -> Kernel:
    if (kind := rng.random()) < 0.5:
        return relay_kernel(rng) if kind < 0.2 else mixed_kernel(rng)
    sms = rng.choice([1, 2, 2, 3, 3])
    tokens = rng.choice([1, 1, 2])
    buffers = rng.sample(["p", "t", "s"], rng.choice([1, 1, 2, 3]))
    families: list[Family] = []
    free = {b: list(itertools.product(*map(range, SHAPES[b]))) for b in ("p", "t")}
    for number in range(rng.randint(1, 4)):
        extent = rng.choice([1, 1, 2])
        streams = rng.random() < 0.1
        writes, reads = [], []
        target = rng.choice(buffers)
        if target == "s" or rng.random() < 0.15:
            writes.append(random_box(rng, target, extent if target != "s" else 1, tokens, True))
            extent = extent if target != "s" else 1
        else:
            # elements that nobody writes yet: unwritten twice, so that many kernels are safe
            taken = [e for e in free[target] if rng.random() < 0.5] or free[target][:1]
            extent = 1
            if not taken and number:
                continue
            for e in taken[:2]:
                if e in free[target]:
                    free[target].remove(e)
                writes.append(Box(target, tuple(((x, 0, 0), (1, 0)) for x in e)))
            if not writes:
                writes.append(random_box(rng, target, extent, tokens, True))
        if families and rng.random() < 0.75:
            earlier = rng.choice(families)
            source = rng.choice(earlier.writes)
            if source.buffer == "s" or rng.random() < 0.4:
                reads.append(random_box(rng, source.buffer, extent, tokens, False))
            elif earlier.extent == extent or all(s[1] == 0 for s, _ in source.dims):
                reads.append(source)
            if rng.random() < 0.2 and "s" in buffers:
                reads.append(random_box(rng, "s", extent, tokens, False))
        families.append(Family(extent, reads, writes, streams))
    families.append(Family(1, [], [Box("o", (((0, 0, 0), (2, 0)),))], False))
    if rng.random() < 0.05:
        families[-1].writes[0] = Box("o", (((1, 0, 0), (1, 0)),))
    if rng.random() < 0.5:
        families[-1].reads += [rng.choice(rng.choice(families[:-1]).writes)] if families[0].extent == 1 else []
    if any(s[1] for b in families[-1].reads for s, _ in b.dims):
        families[-1].reads.clear()
    tasks = [(f, i) for f, family in enumerate(families) for i in range(family.extent)]
    if rng.random() < 0.2:
        rng.shuffle(tasks)
    style = rng.choice([in_phases, in_phases, in_chain, with_relays, with_relays])
    counters = 2 * len(tasks) if style is with_relays and rng.random() < 0.8 else rng.choice([1, 2, 3, 4])
    queues = style(rng, families, tasks, sms, counters)
    for queue in queues:
        del queue[11:]
        if rng.random() < 0.1 and queue:
            a = rng.randrange(len(queue))
            queue.insert(rng.randrange(len(queue)), queue.pop(a))
    present = {(e[1], e[2]) for q in queues for e in q if e[0] == "run"}
    for f, i in tasks:  # what did not fit goes to the end of a random queue
        if (f, i) not in present:
            rng.choice(queues).append(("run", f, i))
    kernel = Kernel(tokens, families, counters, queues)
    # a wait may ask for one signal more than there are
    for queue in queues:
        for n, e in enumerate(queue):
            if e[0] == "wait" and e[2] is not None and e[2] > kernel.total(e[1]) and rng.random() < 0.7:
                queue[n] = ("wait", e[1], max(1, kernel.total(e[1])))
    kernel.fetches = [[(e[1], e[2]) for e in q if e[0] == "run" and families[e[1]].streams] for q in queues]
    if rng.random() < 0.1:
        rng.shuffle(rng.choice(kernel.fetches))
    return kernel


def in_phases(
    rng: random.Random, families: list[Family], tasks: list[tuple[int, int]], sms: int, counters: int
) -> list[list[Event]]:
    """Tasks signal the next counter, and wait for a recent one."""
    queues: list[list[Event]] = [[] for _ in range(sms)]
    care = rng.choice([0.6, 0.85, 1.0])
    signalled: list[int] = []
    for f, i in tasks:
        queue = rng.choice(queues)
        if families[f].reads and signalled and rng.random() < care:
            wanted = rng.choice(signalled[-2:]) if rng.random() < care else rng.randrange(counters)
            queue.append(("wait", wanted, rng.choice([None, None, None, 1, 2, 3])))
        queue.append(("run", f, i))
        if rng.random() < care:
            signalled.append(len(signalled) % counters if rng.random() < care else rng.randrange(counters))
            queue.append(("signal", signalled[-1]))
    return queues


def in_chain(
    rng: random.Random, families: list[Family], tasks: list[tuple[int, int]], sms: int, counters: int
) -> list[list[Event]]:
    """One counter rises from task to task, and each task waits for what it has risen to, or nearly."""
    queues: list[list[Event]] = [[] for _ in range(sms)]
    slack = rng.choice([0, 0, 0.2])
    for n, (f, i) in enumerate(tasks):
        queue = rng.choice(queues)
        if (behind := n - (rng.random() < slack)) > 0:
            queue.append(("wait", 0, behind))
        queue += [("run", f, i), ("signal", 0)]
        if rng.random() < slack:
            rng.choice(queues).append(("signal", rng.randrange(counters)))
    return queues


def with_relays(
    rng: random.Random, families: list[Family], tasks: list[tuple[int, int]], sms: int, counters: int
) -> list[list[Event]]:
    """Other SMs pass a task's signal on, so that the first of several signals may be enough to wait for."""
    queues: list[list[Event]] = [[] for _ in range(sms)]
    care = rng.choice([0.8, 1.0, 1.0])
    for n, (f, i) in enumerate(tasks):
        queue = rng.choice(queues)
        if n and rng.random() < care:
            queue.append(("wait", (2 * n - 1) % counters, rng.choice([1, 1, 1, 1, 2])))
        queue += [("run", f, i), ("signal", 2 * n % counters)]
        for relay in rng.sample(queues, rng.choice([1, 2]) if sms > 1 else 1):
            if rng.random() < care:
                relay.append(("wait", 2 * n % counters, 1))
            relay.append(("signal", (2 * n + 1) % counters))
    return queues


def parse(text: str) -> KernelOp:
    context = Context()
    for dialect in (Builtin, Amk, TaskDialect, Queue):
        context.load_dialect(dialect)
    module = Parser(context, text).parse_module()
    module.verify()
    return next(op for op in module.walk() if isinstance(op, KernelOp))


def compare(kernel: Kernel) -> tuple[bool, bool]:
    """(safe by enumeration, accepted by the verifier); fails where the two may not differ."""
    oracle = Oracle(kernel)
    problem = oracle.problem()
    diagnostics = check(parse(kernel.text()))
    said = "\n".join(map(str, diagnostics))
    assert any(d.rule == "deadlock" for d in diagnostics) == oracle.has_deadlock(), f"{kernel.text()}\n{said}"
    assert problem is None or diagnostics, f"false accept, enumeration says {problem}:\n{kernel.text()}"
    return problem is None, not diagnostics


def test_random_kernels():
    seed = secrets.randbits(32)
    print(f"seed {seed}: compare(random_kernel(random.Random(f'{seed}-N'))) repeats kernel N")
    safe = rejected = 0
    for number in range(KERNELS):
        kernel = random_kernel(random.Random(f"{seed}-{number}"))
        is_safe, accepted = compare(kernel)
        safe += is_safe
        rejected += is_safe and not accepted
    print(f"{KERNELS} kernels, {safe} safe, {rejected} of them rejected")
    assert safe > KERNELS // 10, "the generator makes too few safe kernels to test anything"
    assert rejected == 0, f"{rejected} safe kernels are rejected, seed {seed}"
