"""Random small kernels, about half of them safe."""

import itertools
import random

from .small_kernels import SHAPES, Box, Event, Family, Kernel


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
