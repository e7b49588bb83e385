"""Random larger kernels: 4 to 12 SMs and 30 to 200 events, in the manner of a model's layers. About half are safe.

Tasks come in an order in which each may depend on earlier ones; before a task is placed, its SM is told of those it
depends on in one of several ways, or, now and then, is not. The generator keeps account of what it means to be known
where, but decides nothing.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace

from .small_kernels import Box, Family, Kernel

Task = tuple[int, int]
"""(family, index)."""

WIDTH = 8  # of a row of tiles
ROWS = 24
WORDS = 96
HEADS = 4
SLOTS = 4
MAX_SEQ = 5
BUFFERS = {
    "p": ("scratch", (ROWS, WIDTH)),
    "q": ("scratch", (WORDS,)),
    "t": ("scratch tagged", (WORDS,)),
    "s": ("state", (HEADS, MAX_SEQ + 1)),
    "u": ("state", (SLOTS,)),
    "o": ("output", (WIDTH,)),
}


def span(start: int, size: int, step: int = 0, pos: int = 0, growth: int = 0):
    """One dimension of a box: from start + step*i + pos*position, size + growth*position long."""
    return ((start, step, pos), (size, growth))


def tiles(start: int, extent: int, width: int):
    """One dimension, cut into `extent` tiles; a family of one task has no index."""
    return span(start, width, width if extent > 1 else 0)


class Builder:
    """A kernel in the making. known: of each SM, the tasks it has (probably) heard of; after: those of each task."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.sms = rng.randint(4, 12)
        self.tokens = rng.choice([1, 1, 2])
        self.queues: list[list[tuple]] = [[] for _ in range(self.sms)]
        self.families: list[Family] = []
        self.counters = 0
        self.known: list[set[Task]] = [set() for _ in range(self.sms)]
        self.after: dict[Task, set[Task]] = {}
        self.place: dict[Task, int] = {}
        self.own: dict[Task, int] = {}
        self.phase: dict[int, int] = {}
        self.risen: dict[int, int] = {}
        self.rising: int | None = None
        self.writers: dict[tuple, list[Task]] = {}
        self.readers: dict[tuple, list[Task]] = {}
        self.free = dict.fromkeys("pqt", 0)
        self.written: list[tuple[Box, int]] = []
        self.care = rng.choice([1.0, 1.0, 1.0, 1.0, 0.97, 0.9])
        self.streams = rng.choice([0.0, 0.3])
        ways: list[Callable[[Task, int], None]] = [
            self.by_own_counter,
            self.by_phase,
            self.by_rising_counter,
            self.by_relays,
            self.by_barrier,
            self.by_token,
            self.by_quorum,
        ]
        self.ways = rng.sample(ways, rng.choice([1, 2, 2, 3, 4]))

    # hand-offs: make SM `sm` know `task`

    def counter(self) -> int:
        self.counters += 1
        return self.counters - 1

    def signal_after(self, task: Task, counter: int) -> None:
        queue = self.queues[self.place[task]]
        queue.insert(queue.index(("run", *task)) + 1, ("signal", counter))

    def all_or(self, n: int) -> int | None:
        return self.rng.choice([None, n])

    def by_own_counter(self, task: Task, sm: int) -> None:
        if task not in self.own:
            self.own[task] = self.counter()
            self.signal_after(task, self.own[task])
        self.queues[sm].append(("wait", self.own[task], self.all_or(1)))
        self.known[sm] |= self.after[task]

    def by_phase(self, task: Task, sm: int) -> None:
        tasks = [t for t in self.place if t[0] == task[0]]
        if len(tasks) < self.families[task[0]].extent:
            return self.by_own_counter(task, sm)  # a task of the same phase: not all are placed yet
        if task[0] not in self.phase:
            self.phase[task[0]] = self.counter()
            for t in tasks:
                self.signal_after(t, self.phase[task[0]])
        self.queues[sm].append(("wait", self.phase[task[0]], self.all_or(len(tasks))))
        self.known[sm].update(*(self.after[t] for t in tasks))

    def by_rising_counter(self, task: Task, sm: int) -> None:
        """One counter for all phases, which rises by the tasks of each."""
        if self.rising is None:
            self.rising = self.counter()
        if task[0] not in self.risen:
            if any(f > task[0] for f in self.risen) or self.families[task[0]].extent > sum(
                t[0] == task[0] for t in self.place
            ):
                return self.by_own_counter(task, sm)
            for family in range(max(self.risen, default=-1) + 1, task[0] + 1):
                tasks = [t for t in self.place if t[0] == family]
                for t in tasks:
                    self.signal_after(t, self.rising)
                self.risen[family] = max(self.risen.values(), default=0) + len(tasks)
        self.queues[sm].append(("wait", self.rising, self.risen[task[0]]))
        self.known[sm].update(*(self.after[t] for t in self.place if t[0] <= task[0]))

    def by_relays(self, task: Task, sm: int) -> None:
        """Other SMs pass it on, and hearing one of them is enough."""
        passed = self.counter()
        relays = self.rng.sample([s for s in range(self.sms) if s != sm], self.rng.choice([1, 2, 2, 3]))
        for relay in relays:
            if task not in self.known[relay]:
                self.by_own_counter(task, relay)
            self.queues[relay].append(("signal", passed))
        self.queues[sm].append(("wait", passed, self.rng.randint(1, len(relays))))
        self.known[sm] |= self.after[task]

    def by_barrier(self, task: Task, sm: int) -> None:
        members = {sm, self.place[task], *self.rng.sample(range(self.sms), self.rng.randint(0, self.sms))}
        met = self.counter()
        heard = set().union(*(self.known[s] for s in members))
        for s in members:
            self.queues[s].append(("signal", met))
        for s in members:
            self.queues[s].append(("wait", met, self.all_or(len(members))))
            self.known[s] |= heard

    def by_token(self, task: Task, sm: int) -> None:
        """A token goes from SM to SM, with one counter for all its steps."""
        start = self.place[task]
        between = [s for s in range(self.sms) if s not in (start, sm)]
        path = [start, *self.rng.sample(between, self.rng.randint(0, min(3, len(between)))), sm]
        token, heard = self.counter(), set(self.known[start])
        self.queues[start].append(("signal", token))
        for n, s in enumerate(path[1:], 1):
            self.queues[s].append(("wait", token, n))
            heard |= self.known[s]
            self.known[s] |= heard
            if s != sm or self.rng.random() < 0.5:
                self.queues[s].append(("signal", token))

    def by_quorum(self, task: Task, sm: int) -> None:
        """Whoever knows of it signals, and any one of them is enough."""
        counter = self.counter()
        knowing = [s for s in range(self.sms) if task in self.known[s] and s != sm]
        for s in self.rng.sample(knowing, self.rng.randint(1, min(4, len(knowing)))):
            self.queues[s].append(("signal", counter))
        self.queues[sm].append(("wait", counter, 1))
        self.known[sm] |= self.after[task]

    def by_tag(self, task: Task, sm: int) -> None:
        """A tagged word orders, but carries no knowledge: enough for a write that comes after a read."""
        word = Box("t", (span(self.take("t", 1), 1),))
        self.run(self.family(1, [], [word]), 0, self.place[task])
        self.run(self.family(1, [word], [Box("q", (span(self.take("q", 1), 1),))]), 0, sm)

    # tasks

    def take(self, buffer: str, size: int) -> int:
        self.free[buffer] += size
        return self.free[buffer] - size

    def family(self, extent: int, reads: list[Box], writes: list[Box]) -> int:
        streams = self.rng.random() < self.streams or any(b.streamed for b in reads)
        self.families.append(Family(extent, reads, writes, streams))
        return len(self.families) - 1

    def run(self, family: int, i: int, sm: int) -> None:
        task = (family, i)
        reads = [e for b in self.families[family].reads if b.buffer != "t" for e in b.elements(i, 1)]
        writes = [e for b in self.families[family].writes for e in b.elements(i, 1)]
        seen = {w for e in (*reads, *writes) for w in self.writers.get(e, ())}
        before = {r for e in writes for r in self.readers.get(e, ())} - seen
        for needed in (seen, before):
            for other in sorted(needed - {task}):
                if other in self.known[sm] or self.rng.random() >= self.care:
                    continue
                if needed is before and self.rng.random() < 0.3 and self.room():
                    self.by_tag(other, sm)
                else:
                    self.rng.choice(self.ways)(other, sm)
        self.queues[sm].append(("run", family, i))
        self.place[task] = sm
        self.known[sm].add(task)
        self.after[task] = set(self.known[sm])
        for e in reads:
            self.readers.setdefault(e, []).append(task)
        for e in writes:
            self.writers.setdefault(e, []).append(task)

    def run_all(self, family: int) -> None:
        first, spread = self.rng.randrange(self.sms), self.rng.random() < 0.7
        for i in range(self.families[family].extent):
            self.run(family, i, (first + i) % self.sms if spread else self.rng.randrange(self.sms))

    def room(self) -> bool:
        return self.free["p"] < ROWS - 1 and self.free["q"] < WORDS - 9 and self.free["t"] < WORDS - 3 * MAX_SEQ

    def reads(self, extent: int) -> list[Box]:
        """Boxes of one or two recent phases: tile by tile, or the same for all tasks."""
        boxes = []
        for box, parts in self.rng.sample(self.written[-4:], min(len(self.written[-4:]), self.rng.choice([1, 1, 2]))):
            (start, _, _), (size, _) = box.dims[-1]
            if parts == extent and self.rng.random() < 0.4:
                boxes.append(box)
            else:
                total = size * parts
                low = self.rng.choice([0, 0, self.rng.randrange(total)])
                boxes.append(
                    Box(box.buffer, (*box.dims[:-1], span(start + low, self.rng.choice([total - low, 1])))),
                )
        return boxes

    def add_tiles(self) -> None:
        extent = self.rng.choice([1, 2, 4, 8])
        width = WIDTH // extent
        buffer = self.rng.choice("pppqtt")
        if buffer == "p":
            box = Box("p", (span(self.take("p", 1), 1), tiles(0, extent, width)))
        else:
            box = Box(buffer, (tiles(self.take(buffer, extent * width), extent, width),))
        self.run_all(self.family(extent, self.reads(extent), [box]))
        self.written.append((box, extent))

    def add_cache(self) -> None:
        """Appends rows to the state, then reads all of them up to here; those of earlier steps may come through the ring."""
        append = Box("s", (span(0, 1, 1), span(0, self.tokens, pos=1)))
        if not any(append in f.writes for f in self.families):
            self.run_all(self.family(HEADS, self.reads(HEADS), [append]))
        rows = [(span(0, self.tokens, growth=1), False)]
        if self.rng.random() < 0.5:
            rows = [(span(0, 0, growth=1), True), (span(0, self.tokens, pos=1), False)]
        box = Box("p", (span(self.take("p", 1), 1), tiles(0, HEADS, WIDTH // HEADS)))
        if self.rng.random() < 0.7:
            self.run_all(self.family(HEADS, [Box("s", (span(0, 1, 1), r), streamed) for r, streamed in rows], [box]))
        else:
            box = Box("p", (box.dims[0], span(0, WIDTH)))
            self.run_all(self.family(1, [Box("s", (span(0, HEADS), r), streamed) for r, streamed in rows], [box]))
        self.written.append((box, HEADS if box.dims[1][0][1] else 1))
        if self.rng.random() < 0.3:  # the first row is replaced, after all that use it
            first = Box("s", (span(0, 1, 1), span(0, 1)))
            self.run_all(self.family(HEADS, [Box("s", (span(0, 1, 1), span(0, self.tokens, pos=1)))], [first]))

    def add_moving_words(self) -> None:
        """Tagged words whose writer depends on the position."""
        low = self.take("t", 3 * MAX_SEQ)
        for start in (low, low + MAX_SEQ):
            self.run_all(self.family(1, self.reads(1), [Box("t", (span(start, MAX_SEQ, pos=1),))]))
        for _ in range(self.rng.randint(1, 2)):
            word = Box("t", (span(low + MAX_SEQ + self.rng.choice([-1, 0, 0]), 1),))
            box = Box("q", (span(self.take("q", 1), 1),))
            self.run_all(self.family(1, [word, *self.reads(1)], [box]))
            self.written.append((box, 1))

    def add_update(self) -> None:
        """Rewrites slots of the state that does not depend on the position, and reads some."""
        slots = Box("u", (span(low := self.rng.randrange(SLOTS), self.rng.randint(1, SLOTS - low)),))
        fresh = not all(e in self.writers for e in slots.elements(0, 0))
        self.run_all(self.family(1, [] if fresh or self.rng.random() < 0.4 else [slots], [slots]))
        for _ in range(self.rng.randint(0, 3)):
            word = Box("q", (span(self.take("q", 1), 1),))
            self.run_all(self.family(1, [slots], [word]))

    def build(self) -> Kernel:
        low, high = max(30, 8 * self.sms), min(200, 24 * self.sms)
        target = self.rng.triangular(low, high, low) - 15
        phases = [self.add_tiles, self.add_cache, self.add_update, self.add_moving_words]
        weights = [6, 1, 2, self.rng.choice([0, 0, 0, 1])]
        while sum(map(len, self.queues)) < target and self.room():
            self.rng.choices(phases, weights)[0]()
        extent = self.rng.choice([1, 2, 4, 8])
        self.run_all(self.family(extent, self.reads(extent), [Box("o", (tiles(0, extent, WIDTH // extent),))]))
        return Kernel(
            self.tokens,
            self.families,
            max(1, self.counters),
            self.queues,
            [self.streamed(q) for q in self.queues],
            BUFFERS,
            MAX_SEQ,
        )

    def streamed(self, queue: list[tuple]) -> list[Task]:
        return [(e[1], e[2]) for e in queue if e[0] == "run" and self.families[e[1]].streams]


def large_kernel(rng: random.Random) -> Kernel:
    """A kernel of 30 or more events; see `mutate` for kernels with one thing changed."""
    while True:
        kernel = Builder(rng).build()
        if 30 <= sum(map(len, kernel.queues)) <= 200 and max(map(len, kernel.queues)) <= 40:
            return kernel


def numbered_kernel(seed: str, number: int) -> tuple[Kernel, str]:
    """A kernel, and the name of what was changed in it: empty for six of ten."""
    rng = random.Random(f"{seed}-{number}")
    kernel = large_kernel(rng)
    return mutate(rng, kernel) if rng.random() < 0.4 else (kernel, "")


def mutate(rng: random.Random, kernel: Kernel) -> tuple[Kernel, str]:
    """The kernel with one random change, and its name. May be safe or not."""
    while True:
        name = rng.choice([*MUTATIONS, *["change box"] * 5])  # few others touch coverage
        mutant = copy.deepcopy(kernel)
        if MUTATIONS[name](rng, mutant):
            return mutant, name


def _pick(rng: random.Random, kernel: Kernel, kind: str) -> tuple[list[tuple], int] | None:
    """A random event of a kind: (its queue, its place)."""
    found = [(q, n) for q in kernel.queues for n, e in enumerate(q) if e[0] == kind]
    return rng.choice(found) if found else None


def _drop(kind: str) -> Callable[[random.Random, Kernel], bool]:
    def change(rng: random.Random, kernel: Kernel) -> bool:
        if found := _pick(rng, kernel, kind):
            del found[0][found[1]]
        return found is not None

    return change


def _double(kind: str) -> Callable[[random.Random, Kernel], bool]:
    def change(rng: random.Random, kernel: Kernel) -> bool:
        if found := _pick(rng, kernel, kind):
            rng.choice(kernel.queues).append(found[0][found[1]])
        return found is not None

    return change


def _move(kind: str, far: bool) -> Callable[[random.Random, Kernel], bool]:
    """To another place of its queue, or of another one. What a moved task streams moves with it."""

    def change(rng: random.Random, kernel: Kernel) -> bool:
        if found := _pick(rng, kernel, kind):
            event = found[0].pop(found[1])
            queue = rng.choice(kernel.queues) if far else found[0]
            queue.insert(rng.randint(0, len(queue)), event)
            _fetch_again(kernel)
        return found is not None

    return change


def _swap(rng: random.Random, kernel: Kernel) -> bool:
    queue = rng.choice(kernel.queues)
    if len(queue) < 2:
        return False
    n = rng.randrange(len(queue) - 1)
    queue[n], queue[n + 1] = queue[n + 1], queue[n]
    return queue[n] != queue[n + 1]


def _threshold(step: int) -> Callable[[random.Random, Kernel], bool]:
    def change(rng: random.Random, kernel: Kernel) -> bool:
        if found := _pick(rng, kernel, "wait"):
            queue, n = found
            threshold = kernel.threshold(queue[n]) + step
            if threshold < 1:
                return False
            queue[n] = ("wait", queue[n][1], threshold)
        return found is not None

    return change


def _misdirect(kind: str) -> Callable[[random.Random, Kernel], bool]:
    def change(rng: random.Random, kernel: Kernel) -> bool:
        if found := _pick(rng, kernel, kind):
            queue, n = found
            queue[n] = (kind, rng.randrange(kernel.counters), *queue[n][2:])
        return found is not None

    return change


def _change_box(rng: random.Random, kernel: Kernel) -> bool:
    """Moves a box by one in one dimension, or makes it longer or shorter by one."""
    family = rng.choice(kernel.families)
    boxes = rng.choice([family.reads, family.writes])
    if not boxes:
        return False
    which = rng.randrange(len(boxes))
    box = boxes[which]
    axis = rng.randrange(len(box.dims))
    (start, step, pos), (size, growth) = box.dims[axis]
    shift, more = rng.choice([(1, 0), (-1, 0), (1, -1), (0, 1), (0, -1)])
    start, size = start + shift, size + more
    least = 0 if growth else 1
    end = start + step * (family.extent - 1) + (pos + growth) * (kernel.max_seq - kernel.tokens) + size
    if start < 0 or not least <= size <= WIDTH or end > kernel.buffers[box.buffer][1][axis]:
        return False
    dims = (*box.dims[:axis], span(start, size, step, pos, growth), *box.dims[axis + 1 :])
    boxes[which] = replace(box, dims=dims)
    return True


def _stream(rng: random.Random, kernel: Kernel) -> bool:
    """State that is loaded comes through the ring, or the other way round."""
    found = [(f, n) for f in kernel.families for n, b in enumerate(f.reads) if kernel.buffers[b.buffer][0] == "state"]
    if not found:
        return False
    family, n = rng.choice(found)
    family.reads[n] = replace(family.reads[n], streamed=not family.reads[n].streamed)
    family.streams = family.streams_state
    _fetch_again(kernel)
    return True


def _fetch_again(kernel: Kernel) -> None:
    """Gives every SM the stream that its queue consumes."""
    streams = [family.streams for family in kernel.families]
    kernel.fetches = [[(e[1], e[2]) for e in q if e[0] == "run" and streams[e[1]]] for q in kernel.queues]


def _swap_fetches(rng: random.Random, kernel: Kernel) -> bool:
    fetches = rng.choice(kernel.fetches)
    if len(fetches) < 2:
        return False
    n = rng.randrange(len(fetches) - 1)
    fetches[n], fetches[n + 1] = fetches[n + 1], fetches[n]
    return True


def _drop_fetch(rng: random.Random, kernel: Kernel) -> bool:
    fetches = rng.choice(kernel.fetches)
    if fetches:
        fetches.pop(rng.randrange(len(fetches)))
        return True
    return False


MUTATIONS: dict[str, Callable[[random.Random, Kernel], bool]] = {
    "drop wait": _drop("wait"),
    "drop signal": _drop("signal"),
    "drop task": _drop("run"),
    "double wait": _double("wait"),
    "double signal": _double("signal"),
    "double task": _double("run"),
    "move wait": _move("wait", far=False),
    "move signal": _move("signal", far=False),
    "move task": _move("run", far=False),
    "wait elsewhere": _move("wait", far=True),
    "signal elsewhere": _move("signal", far=True),
    "task elsewhere": _move("run", far=True),
    "swap neighbours": _swap,
    "lower threshold": _threshold(-1),
    "higher threshold": _threshold(1),
    "misdirect wait": _misdirect("wait"),
    "misdirect signal": _misdirect("signal"),
    "change box": _change_box,
    "stream or load": _stream,
    "swap fetches": _swap_fetches,
    "drop fetch": _drop_fetch,
}
