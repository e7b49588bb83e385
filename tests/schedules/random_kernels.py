"""Random small kernels, about half of them safe: up to 4 SMs, 10 events on each.

A *scenario* is a set of tasks (what they read, write and stream); an *arrangement* distributes them over SMs, in some
order, with waits and signals. Many arrangements of one scenario share its families, and so the IR that stands for them.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from .small_kernels import MAX_SEQ, SHAPES, Box, Event, Family, Kernel

MAX_EVENTS = 10
"""Events of one SM."""

Queues = list[list[Event]]
Task = tuple[int, int]
"""(family, index)."""


@dataclass(frozen=True)
class Scenario:
    """Tasks in an order in which they could run one after the other, and the shape of the kernel."""

    tokens: int
    families: list[Family]
    tasks: tuple[Task, ...]
    sms: int
    counters: int
    conflicts: dict[tuple[Task, Task, bool], bool] = field(default_factory=dict)  # found so far, see `_conflict`


def random_kernel(rng: random.Random) -> Kernel:
    """One kernel."""
    return next(random_kernels(rng, 1))


def random_kernels(rng: random.Random, count: int) -> Iterator[Kernel]:
    """Arrangements of one scenario."""
    scenario = random_scenario(rng)
    for _ in range(count):
        yield arrangement(rng, scenario)


# ---- scenarios ----------------------------------------------------------------------------------------------------


def whole(buffer: str) -> Box:
    return Box(buffer, tuple(((0, 0, 0), (n, 0)) for n in SHAPES[buffer]))


def cell(buffer: str, *index: int) -> Box:
    return Box(buffer, tuple(((n, 0, 0), (1, 0)) for n in index))


def row(tokens: int) -> Box:
    """The rows of this step."""
    return Box("s", (((0, 0, 1), (tokens, 0)),))


def random_scenario(rng: random.Random) -> Scenario:
    tokens = rng.choice([1, 1, 1, 2])
    make = rng.choices([_chain, _tags, _tiles, _cache, _streamed_rows, _anything], [2, 3, 2, 2, 2, 2])[0]
    families = make(rng, tokens)
    if not any(b.buffer == "o" for f in families for b in f.writes):
        families.append(Family(1, [], [whole("o")], False))
    if rng.random() < 0.04:
        last = next(f for f in families if any(b.buffer == "o" for b in f.writes))
        last.writes[:] = [b for b in last.writes if b.buffer != "o"] + [cell("o", 1)]
    streaming = rng.choice([0, 0, 0.5, 1])
    ahead = 0 if make is _streamed_rows else rng.choice([0, 0, 0, 0.2])
    for family in families:
        family.reads[:] = [
            replace(b, streamed=b.streamed or (b.buffer == "s" and rng.random() < ahead)) for b in family.reads
        ]
        family.streams = rng.random() < streaming or family.streams_state
    # the order of the families says nothing about the order of their tasks
    order = rng.sample(range(len(families)), len(families))
    tasks = tuple((order.index(f), i) for f, family in enumerate(families) for i in range(family.extent))
    return Scenario(
        tokens,
        [families[f] for f in order],
        tasks,
        rng.choice([1, 2, 2, 3, 3, 3, 4, 4]),
        rng.choice([1, 2, 3, 4, 6, 8]),
    )


def _chain(rng: random.Random, tokens: int) -> list[Family]:
    """Each task reads some of what those before it wrote."""
    count = rng.randint(2, 5)
    families: list[Family] = []
    for n in range(count):
        reads = [cell("p", m % 2, m // 2) for m in range(n) if rng.random() < 0.7]
        writes = [cell("p", n % 2, n // 2)] if n < count - 1 else [whole("o")]
        families.append(Family(1, reads, writes, False))
    return families


def _tags(rng: random.Random, tokens: int) -> list[Family]:
    """Tasks tell later ones of themselves by tagged words, and pass other data beside them."""
    data = rng.choice([cell("p", 0, 0), cell("s", 0), row(1)])
    moving = rng.random() < 0.15
    families: list[Family] = []
    told = 0
    count = rng.randint(3, 6)
    for n in range(count):
        reads = [cell("t", rng.randrange(told))] if told and rng.random() < 0.6 else []
        if reads and moving and rng.random() < 0.8:
            reads = [Box("t", (((0, 0, 1), (1, 0)),))]
        writes = []
        if n == 0 or (data.buffer == "s" and rng.random() < 0.2):
            writes.append(data)
        elif rng.random() < 0.5:
            reads.append(data)
        if n == count - 1:
            writes.append(whole("o"))
        elif told < (1 if moving else 4) and (not writes or rng.random() < 0.5):
            writes.append(Box("t", (((0, 0, 1), (1, 0)),)) if moving else cell("t", told))
            told += 1
        if writes:
            families.append(Family(1, reads, writes, False))
    return families


def _tiles(rng: random.Random, tokens: int) -> list[Family]:
    """Tiles of a matrix, that nearly always fit together, and readers of rectangles of it."""
    families = rng.choice(
        [
            [Family(2, [], [Box("p", (((0, 1, 0), (1, 0)), ((0, 0, 0), (3, 0))))], False)],
            [Family(3, [], [Box("p", (((0, 0, 0), (2, 0)), ((0, 1, 0), (1, 0))))], False)],
            [
                Family(1, [], [Box("p", (((0, 0, 0), (2, 0)), ((0, 0, 0), (2, 0))))], False),
                Family(2, [], [Box("p", (((0, 1, 0), (1, 0)), ((2, 0, 0), (1, 0))))], False),
            ],
            [
                Family(
                    2,
                    [],
                    [Box("p", (((0, 1, 0), (1, 0)), ((0, 0, 0), (2, 0)))), Box("t", (((0, 1, 0), (1, 0)),))],
                    False,
                )
            ],
        ]
    )
    if rng.random() < 0.1:
        families.append(Family(1, [], [_rectangle(rng, "p")], False))
    for n in range(rng.randint(1, 3)):
        extent = rng.choice([1, 1, 2])
        reads = [_rectangle(rng, "p", extent) for _ in range(rng.choice([1, 1, 2]))]
        if rng.random() < 0.2:
            reads.append(_rectangle(rng, "t", extent))
        written = Box("o", (((0, 1, 0), (1, 0)),)) if n == 0 and extent == 2 else whole("o")
        if n:
            written = Box("s", (((0, 1 if extent > 1 else 0, 0), (1, 0)),))
        families.append(Family(extent, reads, [written], False))
    return families


def _rectangle(rng: random.Random, buffer: str, extent: int = 1) -> Box:
    dims: list[tuple[tuple[int, int, int], tuple[int, int]]] = []
    stepped = rng.randrange(len(SHAPES[buffer])) if extent > 1 else -1
    for axis, length in enumerate(SHAPES[buffer]):
        size = rng.randint(1, length - (axis == stepped))
        dims.append(((rng.randint(0, length - size - (axis == stepped)), int(axis == stepped), 0), (size, 0)))
    return Box(buffer, tuple(dims))


def _cache(rng: random.Random, tokens: int) -> list[Family]:
    """State that each step extends, rows of earlier steps that are read, values that are replaced."""
    past = Box("s", (((0, 0, 0), (tokens, 1)),))
    first = Box("s", (((0, 0, 0), (1, 0)),))
    writes = [row(tokens)] * 6 + [row(1), first, Box("s", (((1, 0, 0), (2, 0)),))]
    reads = [past] * 4 + [first, row(1), Box("s", (((1, 0, 0), (2, 0)),)), Box("s", (((0, 0, 0), (1, 1)),))]
    families = [Family(1, [rng.choice(reads)] if rng.random() < 0.2 else [], [rng.choice(writes)], False)]
    for n in range(rng.randint(1, 3)):
        seen = [rng.choice(reads) for _ in range(rng.choice([1, 1, 2]))]
        if rng.random() < 0.3:
            seen += [cell("p", 0, m) for m in range(n)]
        families.append(Family(1, seen, [rng.choice(writes) if rng.random() < 0.25 else cell("p", 0, n)], False))
    families.append(
        Family(1, [families[-1].writes[0]] if families[-1].writes[0].buffer == "p" else [], [whole("o")], False)
    )
    if rng.random() < 0.2:
        rng.shuffle(families)
    return families


def _streamed_rows(rng: random.Random, tokens: int) -> list[Family]:
    """Rows of earlier steps come through the ring; this step adds a row, and may replace them once they have been used."""
    first, earlier = Box("s", (((0, 0, 0), (1, 0)),)), Box("s", (((0, 0, 0), (0, 1)),))
    tiles = [earlier] * 9 + [first, Box("s", (((0, 0, 0), (1, 1)),)), row(1)]
    added = Family(1, [], [row(tokens)], False)
    families: list[Family] = []
    told = 0
    for n in range(rng.randint(1, 3)):
        reads = [replace(rng.choice(tiles), streamed=rng.random() < 0.85) for _ in range(rng.choice([1, 1, 2]))]
        if rng.random() < 0.3:
            reads += [cell("p", 0, m) for m in range(n)]
        writes = [cell("p", 0, n)]
        if rng.random() < 0.4:
            writes.append(cell("t", told))
            told += 1
        families.append(Family(1, reads, writes, False))
    if rng.random() < 0.6:  # where rows are replaced, after whoever told of itself; a task may replace its own tiles
        late = families[-1] if rng.random() < 0.2 else Family(1, [cell("t", m) for m in range(told)], [], False)
        late.writes.append(rng.choice([first, first, cell("s", rng.randrange(4))]))
        if late is not families[-1]:
            families.append(late)
    families.insert(rng.choice([0, rng.randint(0, len(families))]), added)
    families.append(Family(1, [cell("p", 0, 0)] if rng.random() < 0.7 else [], [whole("o")], False))
    return families


def _anything(rng: random.Random, tokens: int) -> list[Family]:
    """Boxes at random; elements that are written twice are rare."""
    buffers = rng.sample(["p", "t", "s"], rng.choice([1, 2, 2, 3]))
    free = {b: [(x,) if b == "t" else (x // 3, x % 3) for x in range(4 if b == "t" else 6)] for b in ("p", "t")}
    families: list[Family] = []
    for number in range(rng.randint(1, 4)):
        reads, writes = [], []
        target = rng.choice(buffers)
        if target == "s":
            writes.append(rng.choice([row(tokens), row(tokens), row(1), cell("s", rng.randrange(4))]))
        elif rng.random() < 0.07:
            writes.append(_rectangle(rng, target))
        elif free[target]:
            taken = rng.sample(free[target], min(len(free[target]), rng.choice([1, 1, 2])))
            free[target] = [e for e in free[target] if e not in taken]
            writes += [cell(target, *e) for e in taken]
        elif number:
            continue
        if families and rng.random() < 0.75:
            source = rng.choice(rng.choice(families).writes)
            reads.append(source if rng.random() < 0.7 else _rectangle(rng, source.buffer))
        if rng.random() < 0.15:
            reads.append(Box("s", (((0, 0, 0), (tokens, 1)),)))
        families.append(Family(1, reads, writes or [row(1)], False))
    families.append(Family(1, [rng.choice(families).writes[0]] if rng.random() < 0.6 else [], [whole("o")], False))
    return families


# ---- arrangements -------------------------------------------------------------------------------------------------


def arrangement(rng: random.Random, scenario: Scenario) -> Kernel:
    """A kernel with the tasks of a scenario."""
    tasks = list(scenario.tasks)
    if rng.random() < 0.1:
        rng.shuffle(tasks)
    style = rng.choices([_by_need, _in_phases, _in_chain, _with_relays, _by_hearsay], [5, 1, 2, 3, 3])[0]
    queues: Queues = [[] for _ in range(scenario.sms)]
    style(rng, scenario, tasks, queues)
    for queue in queues:
        while len(queue) > MAX_EVENTS:
            queue.pop(rng.choice([n for n, e in enumerate(queue) if e[0] != "run"] or [0]))
        if rng.random() < 0.06 and queue:
            event = queue.pop(rng.randrange(len(queue)))
            queue.insert(rng.randrange(len(queue) + 1), event)
    present = {(e[1], e[2]) for q in queues for e in q if e[0] == "run"}
    for task in tasks:  # what did not fit goes to the end of the shortest queue
        if task not in present:
            min(queues, key=len).append(("run", *task))
    kernel = Kernel(scenario.tokens, scenario.families, scenario.counters, queues, max_seq=MAX_SEQ)
    _lower_thresholds(rng, kernel)
    kernel.fetches = [[(e[1], e[2]) for e in q if e[0] == "run" and kernel.families[e[1]].streams] for q in queues]
    if rng.random() < 0.05:
        rng.shuffle(rng.choice(kernel.fetches))
    if rng.random() < 0.01 and (fetches := rng.choice(kernel.fetches)):
        fetches.pop()
    return kernel


def _lower_thresholds(rng: random.Random, kernel: Kernel) -> None:
    """Few waits ask for more signals than there are; some for fewer than they did."""
    totals = [kernel.total(c) for c in range(kernel.counters)]
    for queue in kernel.queues:
        for n, event in enumerate(queue):
            if event[0] != "wait" or event[2] is None:
                continue
            most = max(1, totals[event[1]])
            if event[2] > most and rng.random() < 0.8:
                queue[n] = ("wait", event[1], most)
            elif event[2] > 1 and rng.random() < 0.03:
                queue[n] = ("wait", event[1], event[2] - 1)


def _by_need(rng: random.Random, scenario: Scenario, tasks: list[Task], queues: Queues) -> None:
    """A task signals a counter of its own, or one that others signal too, and those that need it wait."""
    care = rng.choice([0.85, 1.0, 1.0, 1.0])
    tagged_too = rng.random() < 0.5
    where: dict[Task, int] = {}
    counter: dict[Task, int] = {}
    signals = [0] * scenario.counters
    rising: dict[Task, int] = {}
    for task in tasks:
        sm = rng.randrange(len(queues))
        for earlier in where:
            if where[earlier] != sm and _conflict(scenario, earlier, task, tagged_too) and rng.random() < care:
                threshold = None if rng.random() < 0.4 else rising[earlier]
                if ("wait", counter[earlier], threshold) not in queues[sm][-4:]:
                    queues[sm].append(("wait", counter[earlier], threshold))
        queues[sm].append(("run", *task))
        where[task] = sm
        counter[task] = c = len(where) % scenario.counters
        if rng.random() < 0.95:
            signals[c] += 1
            queues[sm].append(("signal", c))
        rising[task] = max(1, signals[c])
    if rng.random() < 0.2:
        queue = rng.choice(queues)
        queue.insert(rng.randrange(len(queue) + 1), ("signal", rng.randrange(scenario.counters)))


def _conflict(scenario: Scenario, first: Task, then: Task, tagged_too: bool) -> bool:
    """Whether two tasks access the same elements, one of them writing, at any position."""
    key = (first, then, tagged_too)
    if (known := scenario.conflicts.get(key)) is not None:
        return known

    def elements(task: Task, writes: bool, position: int) -> set:
        family = scenario.families[task[0]]
        boxes = family.writes if writes else family.reads
        return {e for b in boxes if tagged_too or b.buffer != "t" for e in b.elements(task[1], position)}

    scenario.conflicts[key] = found = any(
        elements(first, True, p) & (elements(then, False, p) | elements(then, True, p))
        or elements(first, False, p) & elements(then, True, p)
        for p in range(MAX_SEQ - scenario.tokens + 1)
    )
    return found


def _in_phases(rng: random.Random, scenario: Scenario, tasks: list[Task], queues: Queues) -> None:
    """Tasks signal the next counter, and wait for a recent one."""
    counters = scenario.counters
    care = rng.choice([0.6, 0.85, 1.0])
    signalled: list[int] = []
    for f, i in tasks:
        queue = rng.choice(queues)
        if scenario.families[f].reads and signalled and rng.random() < care:
            wanted = rng.choice(signalled[-2:]) if rng.random() < care else rng.randrange(counters)
            queue.append(("wait", wanted, rng.choice([None, None, None, 1, 2, 3])))
        queue.append(("run", f, i))
        if rng.random() < care:
            signalled.append(len(signalled) % counters if rng.random() < care else rng.randrange(counters))
            queue.append(("signal", signalled[-1]))


def _in_chain(rng: random.Random, scenario: Scenario, tasks: list[Task], queues: Queues) -> None:
    """One counter rises from task to task, and each task waits for what it has risen to, or nearly."""
    slack = rng.choice([0, 0, 0, 0.15])
    for n, (f, i) in enumerate(tasks):
        queue = rng.choice(queues)
        if (behind := n - (rng.random() < slack)) > 0:
            queue.append(("wait", 0, behind))
        queue += [("run", f, i), ("signal", 0)]
        if rng.random() < slack:
            rng.choice(queues).append(("signal", rng.randrange(scenario.counters)))


def _with_relays(rng: random.Random, scenario: Scenario, tasks: list[Task], queues: Queues) -> None:
    """Other SMs pass a task's signal on, so that the first of several signals may be enough to wait for."""
    care = rng.choice([0.8, 1.0, 1.0, 1.0])
    counters = scenario.counters
    for n, (f, i) in enumerate(tasks):
        queue = rng.choice(queues)
        if n and rng.random() < care:
            queue.append(("wait", (2 * n - 1) % counters, rng.choice([1, 1, 1, 1, 2])))
        queue += [("run", f, i), ("signal", 2 * n % counters)]
        if n == len(tasks) - 1:
            break
        for relay in rng.sample(queues, rng.choice([1, 2]) if len(queues) > 1 else 1):
            if rng.random() < care:
                relay.append(("wait", 2 * n % counters, 1))
            relay.append(("signal", (2 * n + 1) % counters))


def _by_hearsay(rng: random.Random, scenario: Scenario, tasks: list[Task], queues: Queues) -> None:
    """Tasks signal for themselves and at times for others; waits are for the first few signals, whose ever they are."""
    hears, tells = rng.choice([0.2, 0.4, 0.8]), rng.choice([0.3, 0.6, 0.9])
    signals = [0] * scenario.counters
    for f, i in tasks:
        queue = rng.choice(queues)
        for c in range(scenario.counters):
            if signals[c] and rng.random() < hears:
                queue.append(("wait", c, rng.choice([None, 1, 1, rng.randint(1, signals[c])])))
        queue.append(("run", f, i))
        if rng.random() < tells:
            for sender in [queue, *([rng.choice(queues)] if rng.random() < 0.4 else [])]:
                c = rng.randrange(min(scenario.counters, 4))
                signals[c] += 1
                sender.append(("signal", c))
