"""insert-missing-sync against exhaustive enumeration: what it mends is safe, what it refuses no waits could mend.

The verifier, on which the pass relies, has no say here: the mended text is read back into plain data, which the oracle
decides.
"""

import re
import secrets
from collections.abc import Iterator
from dataclasses import replace
from random import Random

from schedules.enumerate_many import decide
from schedules.random_kernels import random_kernel
from schedules.small_kernels import Event, Kernel, parse
from xdsl.utils.exceptions import PassFailedException

from amk.passes.insert_missing_sync import insert_missing_sync
from amk.passes.verifier import Rule, check

MENDED = 60
REFUSED = 30
MAX_TASKS = 6
"""Of a kernel all of whose orders are looked at."""


def read_back(text: str, kernel: Kernel) -> Kernel:
    """`kernel` with the bodies that the text of its mended form has."""
    counters: dict[tuple[str, int], int] = {("c", n): n for n in range(kernel.counters)}

    def event(line: str) -> Event:
        if match := re.fullmatch(r"queue\.run @f(\d+)\[(\d*)\]", line):
            return "run", int(match[1]), int(match[2] or 0)
        match = re.fullmatch(r"queue\.(wait|signal) @(\w+)\[(\d+)\](?: (?:all|>= (\d+)))?", line)
        assert match is not None, line
        counter = counters.setdefault((match[2], int(match[3])), len(counters))
        if match[1] == "signal":
            return "signal", counter
        return "wait", counter, None if match[4] is None else int(match[4])

    bodies = [body for _, body in re.findall(r"queue\.program (.*?)\} body \{\n(.*?)\n? *\}\n", text, re.DOTALL)]
    assert len(bodies) == len(kernel.queues)
    queues = [[event(line.strip()) for line in body.splitlines() if line.strip()] for body in bodies]
    return replace(kernel, queues=queues, counters=len(counters))


def compact(kernel: Kernel) -> Kernel:
    """The kernel without counters that no event uses: the oracle takes few."""
    used = sorted({e[1] for q in kernel.queues for e in q if e[0] != "run"})
    queues = [[e if e[0] == "run" else (e[0], used.index(e[1]), *e[2:]) for e in q] for q in kernel.queues]
    return replace(kernel, queues=queues, counters=len(used))


def test_what_is_read_back_is_the_kernel():
    rng = Random(0)
    for _ in range(50):
        kernel = random_kernel(rng)
        assert read_back(str(parse(kernel.text())), kernel).queues == kernel.queues


def test_mended_kernels_are_safe():
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    mended = undecided = tried = 0
    while mended < MENDED and tried < 100 * MENDED:
        tried += 1
        kernel = random_kernel(Random(f"{seed}-{tried}"))
        op = parse(kernel.text())
        try:
            edit = insert_missing_sync(op)
        except PassFailedException:
            continue
        if not edit.waits:
            continue
        result = read_back(str(op), kernel)
        was, now = decide([compact(kernel), compact(result)])
        assert was.problem or not was.decided, f"safe without:\n{kernel.text()}\n{result.text()}"
        assert not now.problem, f"{now.problem}:\n{kernel.text()}\n{result.text()}"
        mended += was.decided and now.decided
        undecided += not (was.decided and now.decided)
    print(f"{tried} kernels, {mended} mended, and {undecided} too large to enumerate")
    assert mended == MENDED


def in_some_order(kernel: Kernel) -> Iterator[Kernel]:
    """The kernel with its tasks one after the other, in every order that its queues allow."""
    runs = [[(sm, at) for at, e in enumerate(q) if e[0] == "run"] for sm, q in enumerate(kernel.queues)]

    def orders(at: tuple[int, ...]) -> Iterator[list[tuple[int, int]]]:
        if all(n == len(r) for n, r in zip(at, runs, strict=True)):
            yield []
        for sm, n in enumerate(at):
            if n < len(runs[sm]):
                for rest in orders((*at[:sm], n + 1, *at[sm + 1 :])):
                    yield [runs[sm][n], *rest]

    for order in orders((0,) * len(runs)):
        queues = [list(q) for q in kernel.queues]
        # from behind, so that places stay valid on each SM
        for step in sorted(range(len(order)), key=lambda s: order[s], reverse=True):
            sm, at = order[step]
            if step < len(order) - 1:
                queues[sm].insert(at + 1, ("signal", kernel.counters))
            if step:
                queues[sm].insert(at, ("wait", kernel.counters, step))
        yield replace(kernel, queues=queues, counters=kernel.counters + 1)


def test_refused_kernels_are_beyond_waits():
    """Tasks one after the other are as much order as waits can give: if none of these orders is safe, nothing is."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    refused = undecided = orders = tried = 0
    while refused < REFUSED and tried < 100 * REFUSED:
        tried += 1
        kernel = random_kernel(Random(f"{seed}-{tried}"))
        op = parse(kernel.text())
        rules = {d.rule for d in check(op)}
        tasks = sum(e[0] == "run" for q in kernel.queues for e in q)
        if Rule.RACE not in rules or not rules <= {Rule.RACE, Rule.COVERAGE} or tasks > MAX_TASKS:
            continue
        try:
            insert_missing_sync(op)
        except PassFailedException:
            ordered = list(map(compact, in_some_order(kernel)))
            verdicts = decide(ordered)
            for in_order, verdict in zip(ordered, verdicts, strict=True):
                assert verdict.problem or not verdict.decided, f"in this order it is safe:\n{in_order.text()}"
            orders += len(ordered)
            refused += all(v.decided for v in verdicts)
            undecided += not all(v.decided for v in verdicts)
    print(f"{tried} kernels, {refused} refused, and {undecided} too large to enumerate; {orders} orders of their tasks")
    assert refused == REFUSED
