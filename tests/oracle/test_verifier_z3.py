"""The schedule verifier against z3: larger random kernels, each decided from one formula over all its executions."""

import random
import secrets

import pytest
from schedules.enumerate_many import decide
from schedules.large_kernels import numbered_kernel
from schedules.random_kernels import random_kernel
from schedules.small_kernels import Box, Family, Kernel, parse
from schedules.smt_verdict import SmtOracle

from amk.passes.verifier import check


def box(buffer: str, *dims: tuple[int, int]) -> Box:
    return Box(buffer, tuple(((start, 0, 0), (size, 0)) for start, size in dims))


DATA, WORD, OUT = box("p", (0, 1), (0, 2)), box("t", (0, 1)), box("o", (0, 2))
ROW = Box("s", (((0, 0, 1), (1, 0)),))
ROWS = Box("s", (((0, 0, 0), (1, 1)),))
put, show, tell, hear = (("run", f, 0) for f in range(4))


def kernel(*queues: list, reads: Box = DATA, writes: Box = DATA, out: Box = OUT, streams: bool = False) -> Kernel:
    """Tasks: put writes, show reads and writes the output; tell writes a tagged word, hear reads it. Tell and hear are
    there if the queues run them."""
    families = [Family(1, [], [writes], streams), Family(1, [reads], [out], streams)]
    if any(tell in q for q in queues):
        families += [Family(1, [], [WORD], False), Family(1, [WORD], [box("p", (1, 1), (0, 1))], False)]
    fetches = [[(e[1], e[2]) for e in q if e in (put, show) and streams] for q in queues]
    return Kernel(1, families, 3, [list(q) for q in queues], fetches)


def wait(counter: int, n: int | None = None) -> tuple:
    return ("wait", counter, n)


def signal(counter: int) -> tuple:
    return ("signal", counter)


SIGNALLED = ([put, signal(0)], [wait(0), show])
KERNELS = {
    "signalled": (kernel(*SIGNALLED), None),
    "one queue": (kernel([put, show]), None),
    "no signal": (kernel([put], [show]), "race"),
    "signalled too early": (kernel([signal(0), put], [wait(0), show]), "race"),
    "waited too late": (kernel([put, signal(0)], [show, wait(0)]), "race"),
    "first of two signals": (kernel([put, signal(0)], [wait(0, 1), show], [signal(0)]), "race"),
    "both signals": (kernel([put, signal(0)], [wait(0, 2), show], [signal(0)]), None),
    "first of two relays": (
        kernel([put, signal(0)], [wait(1, 1), show], [wait(0), signal(1)], [wait(0), signal(1)]),
        None,
    ),
    "a relay that has not heard": (
        kernel([put, signal(0)], [wait(1, 1), show], [wait(0), signal(1)], [signal(1)]),
        "race",
    ),
    "more signals than there are": (kernel([put, signal(0)], [wait(0, 2), show]), "deadlock"),
    "cycle": (kernel([wait(1), put, signal(0)], [wait(0), show, signal(1)]), "deadlock"),
    "cycle on one SM": (kernel([wait(0), put, signal(0), show]), "deadlock"),
    "cycle through a tag": (kernel([put, wait(0), tell, show], [hear, signal(0)]), "deadlock"),
    "word that nobody writes": (kernel([put, signal(0)], [wait(0), show], reads=box("t", (1, 1))), "deadlock"),
    "ordered by a tag, not seen": (kernel([put, tell], [hear, show]), "race"),
    "read before a write, by a tag": (
        # the only row of a read that comes first was written by no step before the first one
        kernel([show, tell], [hear, put], reads=ROWS, writes=ROW),
        "coverage",
    ),
    "row read after its write": (kernel(*SIGNALLED, reads=ROWS, writes=ROW), None),
    "row that is never written": (kernel(*SIGNALLED, reads=box("s", (0, 4)), writes=ROW), "coverage"),
    "tile that is not written": (kernel(*SIGNALLED, reads=box("p", (0, 2), (0, 2))), "coverage"),
    "part of the output": (kernel(*SIGNALLED, out=box("o", (0, 1))), "coverage"),
    "output twice": (kernel(*SIGNALLED, writes=OUT), "written-once"),
    "word twice": (
        kernel([put, tell, signal(0)], [wait(0), hear, show], writes=box("t", (0, 2)), reads=box("t", (1, 1))),
        "written-once",
    ),
    "task twice": (kernel([put, put, signal(0)], [wait(0), show]), "tasks"),
    "task missing": (kernel([put]), "tasks"),
    "streams": (kernel([put, show], streams=True), None),
    # SM 2 may hear of SM 3's signal alone, unless it has heard of SM 1's, which comes after SM 0's
    "stale value": (
        kernel([put, signal(0), tell], [hear, signal(0), signal(1)], [wait(0, 1), show], [signal(0)]),
        "race",
    ),
    "value no older than what was heard of": (
        kernel([put, signal(0), tell], [hear, signal(0), signal(1)], [wait(1, 1), wait(0, 1), show], [signal(0)]),
        None,
    ),
}


def swapped_fetches() -> Kernel:
    swapped = kernel([put, show], streams=True)
    swapped.fetches[0].reverse()
    return swapped


def two_writers(*queues: list) -> Kernel:
    """Both tasks write the same row of the state."""
    families = [Family(1, [], [ROW], False), Family(1, [], [ROW, OUT], False)]
    return Kernel(1, families, 1, [list(q) for q in queues], [[] for _ in queues])


def streamed_rows(*queues: list) -> Kernel:
    """Put adds the step's row and replaces the first one, show streams the rows of earlier steps."""
    tiles = Box("s", (((0, 0, 0), (0, 1)),), streamed=True)
    families = [Family(1, [], [ROW], False), Family(1, [tiles], [OUT], True), Family(1, [], [box("s", (0, 1))], False)]
    return Kernel(1, families, 1, [list(q) for q in queues], [[show[1:]] * (show in q) for q in queues])


again = ("run", 2, 0)

KERNELS |= {
    "tiles, then a write": (streamed_rows([put, show, signal(0)], [wait(0), again]), None),
    "a write, then tiles": (streamed_rows([put, again, show]), "race"),
    "a write at any time after tiles may be loaded": (streamed_rows([put, signal(0), show], [wait(0), again]), "race"),
    "ring order": (swapped_fetches(), "stream"),
    "two writers": (two_writers([put], [show]), "race"),
    "two writers in order": (two_writers([put, signal(0)], [wait(0), show]), None),
}


def agree(kernel: Kernel) -> str | None:
    """What is wrong by z3; fails if the verifier does not agree."""
    oracle = SmtOracle(kernel)
    diagnostics = check(parse(kernel.text()))
    said = f"z3: {oracle.problem}\nverifier: {list(map(str, diagnostics))}\n{kernel.text()}"
    assert (oracle.problem is None) == (not diagnostics), said
    if oracle.rule not in ("tasks", "stream", "written-once"):
        assert (oracle.rule == "deadlock") == any(d.rule == "deadlock" for d in diagnostics), said
    return oracle.problem


@pytest.mark.parametrize("name", KERNELS)
def test_known_kernels(name: str):
    """The oracle itself finds each kind of error, and finds none where there is none."""
    kernel, expected = KERNELS[name]
    agree(kernel)
    assert SmtOracle(kernel).rule == expected


def test_against_enumeration():
    seed = secrets.randbits(32)
    print(f"seed {seed}: random_kernel(random.Random(f'{seed}-N')) repeats kernel N")
    kernels = [random_kernel(random.Random(f"{seed}-{number}")) for number in range(150)]
    compared = 0
    for number, (kernel, verdict) in enumerate(zip(kernels, decide(kernels, limit=20_000), strict=True)):
        if verdict.decided:
            compared += 1
            assert (SmtOracle(kernel).problem is None) == (verdict.problem == ""), f"kernel {number}\n{kernel.text()}"
    assert compared > 75


def test_large_kernels():
    seed = secrets.token_hex(4)
    print(f"seed {seed}: numbered_kernel('{seed}', N) repeats kernel N")
    problems: list[str | None] = []
    for number in range(200):
        problems.append(agree(numbered_kernel(seed, number)[0]))
        if number >= 24 and None in problems and any(problems):
            return
    pytest.fail("all kernels of the generator are safe, or none is")
