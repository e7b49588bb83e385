"""The schedule verifier against Spin: hand-written kernels whose verdict is known, and random ones."""

import os
import random
import secrets

import pytest
from schedules import enumerate_many, promela
from schedules.promela import Spin, UndecidedError, spin_version
from schedules.random_kernels import random_kernel
from schedules.small_kernels import Box, Event, Family, Kernel, parse

from amk.passes.verifier import check

KERNELS = 40
BOXES = {
    "p": Box("p", (((0, 0, 0), (2, 0)), ((0, 0, 0), (3, 0)))),
    "p[0]": Box("p", (((0, 0, 0), (1, 0)), ((0, 0, 0), (3, 0)))),
    "p[:,1:]": Box("p", (((0, 0, 0), (2, 0)), ((1, 0, 0), (2, 0)))),
    "t[0]": Box("t", (((0, 0, 0), (1, 0)),)),
    "t[1]": Box("t", (((1, 0, 0), (1, 0)),)),
    "t[2]": Box("t", (((2, 0, 0), (1, 0)),)),
    "t[:3]": Box("t", (((0, 0, 0), (3, 0)),)),
    "t[pos]": Box("t", (((0, 0, 1), (1, 0)),)),
    "s[pos]": Box("s", (((0, 0, 1), (1, 0)),)),
    "s[pos:pos+2]": Box("s", (((0, 0, 1), (2, 0)),)),
    "s[:pos+1]": Box("s", (((0, 0, 0), (1, 1)),)),
    "s[0]": Box("s", (((0, 0, 0), (1, 0)),)),
    "s[:pos]*": Box("s", (((0, 0, 0), (0, 1)),), streamed=True),
    "o": Box("o", (((0, 0, 0), (2, 0)),)),
    "o[0]": Box("o", (((0, 0, 0), (1, 0)),)),
}


def kernel(tasks: dict[str, str], *queues: str, tokens: int = 1, fetches: tuple[str, ...] | None = None) -> Kernel:
    """Tasks by name, as "reads -> writes" with names of `BOXES`; one whose name is in capitals streams a tile, of state if
    a read has a star.

    A queue has the names of the tasks that it runs; "+c" signals counter c, "c:n" waits for n of its signals, "c:" for
    all of them. `fetches` has the tiles of each SM, by default those of its tasks.
    """
    names = list(tasks)
    families: list[Family] = []
    for name, accesses in tasks.items():
        reads, writes = ([BOXES[box] for box in boxes.split()] for boxes in accesses.split("->"))
        families.append(Family(1, reads, writes, name.isupper()))

    def event(word: str) -> Event:
        if word in tasks:
            return ("run", names.index(word), 0)
        if word.startswith("+"):
            return ("signal", int(word[1:]))
        counter, threshold = word.split(":")
        return ("wait", int(counter), int(threshold) if threshold else None)

    own_tiles = [" ".join(word for word in queue.split() if word in tasks and word.isupper()) for queue in queues]
    return Kernel(
        tokens,
        families,
        3,
        [[event(word) for word in queue.split()] for queue in queues],
        [[(names.index(name), 0) for name in tiles.split()] for tiles in fetches or own_tiles],
    )


PASSED_ON = {"a": "-> p", "b": "p -> o"}
LATE = {"early": "-> t[0]", "a": "t[0] -> p", "tell": "-> t[1]", "hear": "t[1] -> t[2]", "b": "p -> o"}
STATE = {"c": "-> s[pos]", "r": "s[pos] -> t[1]", "w": "-> s[pos]", "z": "-> o"}
CACHE = {"a": "-> s[pos]", "b": "s[:pos+1] -> o"}
TWO_ROWS = {"a": "-> s[pos:pos+2]", "b": "s[:pos+1] -> o"}
STREAMS = {"A": "-> p", "B": "p -> o"}
TILES = {"a": "-> s[pos]", "B": "s[:pos]* -> o t[1]", "w": "-> s[0]"}

SAFE = {
    "one SM": kernel(PASSED_ON, "a b"),
    "a counter": kernel(PASSED_ON, "a +0", "0: b"),
    "all of two signals": kernel(PASSED_ON, "a +0", "+0", "0:2 b"),
    "either of two relays": kernel(PASSED_ON, "a +0", "0:1 +1", "0:1 +1", "1:1 b"),
    "a chain of counters": kernel(PASSED_ON, "a +0", "0: +1", "1: b"),
    "the third signal, heard of by way of a third SM": kernel(LATE, "+0 early", "a +0 tell", "hear +0 +1", "1:1 0:1 b"),
    "read, told by a word and overwritten": kernel(STATE | {"w": "t[1] -> s[pos]"}, "c +0", "0: r", "0: w z"),
    "rows of earlier steps": kernel(CACHE, "a +0", "0: b"),
    "rows of earlier steps, two tokens": kernel(TWO_ROWS, "a +0", "0: b", tokens=2),
    "tiles": kernel(STREAMS, "A B"),
    "tiles of earlier rows, of which one is replaced then": kernel(TILES, "a B +0", "0: w"),
    "tiles of earlier rows, told of by a word, of which one is replaced then": kernel(
        TILES | {"a": "t[1] -> s[pos]", "w": "t[1] -> s[0]"}, "B", "a w"
    ),
}  # fmt: skip

UNSAFE = {
    "a cycle": ("deadlock", kernel(PASSED_ON, "0: a +1", "1: b +0")),
    "more signals than there are": ("deadlock", kernel(PASSED_ON, "a +0", "0:2 b")),
    "a word that nobody writes": ("deadlock", kernel({"b": "t[1] -> o"}, "b")),
    "a word that comes later on the SM": ("deadlock", kernel({"a": "-> t[1]", "b": "t[1] -> o"}, "b a")),
    "a word of its own": ("deadlock", kernel({"b": "t[1] -> t[1] o"}, "b")),
    "a word, at the last position": ("deadlock", kernel({"a": "-> t[:3]", "b": "t[pos] -> o"}, "a", "b")),
    "nothing": ("coverage race", kernel(PASSED_ON, "a", "b")),
    "a word only": ("coverage race", kernel({"a": "-> p t[1]", "b": "p t[1] -> o"}, "a", "b")),
    "one of two signals": ("coverage race", kernel(PASSED_ON, "a +0", "+0", "0:1 b")),
    "the first of two signals, told of by a word": ("coverage race", kernel(LATE, "+0 early", "a +0 tell", "hear 0:1 b")),
    "the first or the second signal": ("coverage race", kernel(LATE, "early +0 +1", "a +0 tell", "hear +0 +1", "1:1 0:1 b")),
    "a relay that does not wait": ("coverage race", kernel(PASSED_ON, "a +0", "0:1 +1", "+1", "1:1 b")),
    "signalled too early": ("coverage race", kernel(PASSED_ON, "+0 a", "0: b")),
    "waited too late": ("coverage race", kernel(PASSED_ON, "a +0", "b 0:")),
    "read and overwritten": ("race", kernel(STATE, "c +0", "0: r", "0: w z")),
    "tiles of earlier rows, of which one is replaced before": ("race", kernel(TILES, "a w B")),
    "tiles of earlier rows, of which one is replaced at any time": ("race", kernel(TILES, "a +0 B", "0: w")),
    "two writes": ("race", kernel(STATE, "c r", "w z")),
    "two writes, told by a word": ("race", kernel(STATE | {"w": "t[1] -> s[pos]"}, "c r", "w z")),
    "two writes of a task": ("race", kernel({"c": "-> s[pos] s[pos] o"}, "c")),
    "scratch that nobody writes": ("coverage", kernel({"b": "p -> o"}, "b")),
    "scratch of which a part is written": ("coverage", kernel({"a": "-> p[0]", "b": "p -> o"}, "a b")),
    "scratch that is written later": ("coverage", kernel(PASSED_ON, "b a")),
    "an output that is not written": ("coverage", kernel({"b": "-> o[0]"}, "b")),
    "a row that is written later": ("coverage", kernel(CACHE, "b a")),
    "a row that earlier steps may skip": ("coverage", kernel(CACHE, "a b", tokens=2)),
    "overlapping tiles": ("written-once", kernel({"a": "-> p[0]", "b": "-> p[:,1:] o"}, "a b")),
    "words of two tasks": ("written-once", kernel({"a": "-> t[1]", "b": "-> t[:3] o"}, "a", "b")),
    "an output twice": ("written-once", kernel({"a": "-> o", "b": "-> o[0]"}, "a b")),
    "an output twice in a task": ("written-once", kernel({"b": "-> o o[0]"}, "b")),
    "tiles in another order": ("stream", kernel(STREAMS, "A B", fetches=("B A",))),
    "a tile too few": ("stream", kernel(STREAMS, "A B", fetches=("A",))),
    "a tile too many": ("stream", kernel(STREAMS, "A B", fetches=("A B B",))),
    "tiles on another SM": ("stream", kernel(STREAMS, "A B", "", fetches=("A", "B"))),
    "a task twice": ("tasks written-once", kernel(PASSED_ON, "a a b")),
    "a task that does not run": ("tasks", kernel(PASSED_ON | {"c": "-> t[1]"}, "a b")),
}  # fmt: skip


@pytest.fixture(scope="module")
def spin(tmp_path_factory: pytest.TempPathFactory) -> Spin:
    if spin_version() is None:
        missing = "needs the model checker `spin` (Debian's package `spin`) and `gcc`"
        if os.environ.get("AMK_REQUIRE_SPIN"):
            pytest.fail(f"{missing}, and AMK_REQUIRE_SPIN is set")
        pytest.skip(missing)
    return Spin(tmp_path_factory.mktemp("spin"))


def rejected(kernel: Kernel) -> set[str]:
    """The rules by which the verifier rejects it."""
    return {diagnostic.rule.value for diagnostic in check(parse(kernel.text()))}


@pytest.mark.parametrize("name", [*SAFE, *UNSAFE])
@pytest.mark.parametrize("least", [False, True], ids=["any", "least"])
def test_hand_written(spin: Spin, name: str, least: bool):
    broken, kernel = UNSAFE.get(name) or ("", SAFE[name])
    verdict = spin.verdict(kernel, least)
    assert verdict.broken == set(broken.split())
    assert verdict.disagreement(rejected(kernel)) is None
    if "tasks" not in verdict.broken:  # the enumeration assumes that each runs once
        assert bool(enumerate_many.decide([kernel])[0].problem) == bool(verdict.broken)


def test_random_kernels(spin: Spin):
    seed = secrets.randbits(32)
    print(f"seed {seed}: kernel N is random_kernel(random.Random(f'{seed}-N'))")
    decided = safe = undecided = 0
    for number in range(2 * KERNELS):  # some are too large for Spin, or for the memory and time that it gets
        if decided == KERNELS:
            break
        kernel = random_kernel(random.Random(f"{seed}-{number}"))
        (counted,) = enumerate_many.decide([kernel])
        try:
            verdict = spin.decide(kernel)
        except UndecidedError:
            undecided += 1
            continue
        where = f"kernel {seed}-{number}: Spin finds {sorted(verdict.broken)}\n{kernel.text()}"
        assert verdict.disagreement(by := rejected(kernel)) is None, f"the verifier {sorted(by)}, {where}"
        if counted.decided:
            assert bool(counted.problem) == bool(verdict.broken), f"enumeration {counted}, {where}"
            assert counted.deadlock == ("deadlock" in verdict.broken), f"enumeration {counted}, {where}"
        decided += 1
        safe += not verdict.broken
    print(f"{decided} kernels, {safe} safe, {undecided} undecided by Spin")
    assert decided == KERNELS
    assert 0 < safe < KERNELS


def test_a_search_that_is_cut_off_is_no_verdict(spin: Spin, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(promela, "MEGABYTES", 1)
    crowd = kernel(PASSED_ON, "a +0" + " +0" * 8, *["+0 " * 8] * 3, "0: b")
    with pytest.raises(UndecidedError, match="too many states"):
        Spin(spin.folder / "small").verdict(crowd)
