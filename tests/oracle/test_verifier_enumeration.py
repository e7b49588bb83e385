"""The schedule verifier against exhaustive enumeration: random small kernels, all interleavings of each.

The recorded run is benchmarks/verify_enumeration.py. Kernel 3 of the seed that a failure names is
`scenario_kernels(seed)[3]`.
"""

import secrets
from dataclasses import replace

import pytest
from schedules.built_kernels import Builder
from schedules.comparison import Tally, compare, disagreements, scenario_kernels
from schedules.enumerate_many import PROBLEMS, Verdict, decide
from schedules.enumeration import Oracle
from schedules.random_kernels import cell, row, whole
from schedules.small_kernels import Box, Event, Family, Kernel, parse

from amk.dialects.schedule import Events, Schedule
from amk.passes.verifier import OverlapIndex, check, check_schedule

SEEDS = 32
"""Scenarios of one test: 4 tests, more than 5,000 kernels in all."""


@pytest.mark.parametrize("part", range(4))
def test_fresh_random_kernels(part: int):
    """Same verdict, same deadlocks, and a witness that fails on the reference backend for each rejection that is looked at."""
    seed = f"{secrets.randbits(32)}"
    print(f"seed {seed}")
    tally = Tally()
    for number in range(SEEDS):
        compare(f"{seed}-{number}", tally, replay_every=5)
    print(f"{dict(tally.verdicts)}, {tally.undecided} too large to enumerate, witnesses {dict(tally.witnesses)}")
    assert tally.disagreements == []
    assert tally.bad_witnesses == []
    # Of 1280 kernels of 32 scenarios, which differ much: these are far from what is usual, so that chance does not
    # reach them. What is usual is tested below, with fixed seeds.
    assert tally.kernels > 640
    assert min(tally.verdicts["safe"], tally.kernels - tally.verdicts["safe"]) > 20
    assert sum(tally.witnesses.values()) > 10


def test_the_generator_makes_safe_and_unsafe_kernels():
    verdicts = [v for number in range(150) for v in decide(scenario_kernels(f"balance-{number}"))]
    decided = [v for v in verdicts if v.decided]
    assert len(decided) >= 0.99 * len(verdicts)
    assert 0.3 < sum(not v.problem for v in decided) / len(decided) < 0.7
    assert {v.problem for v in decided} == set(PROBLEMS)


# ---- the oracle ---------------------------------------------------------------------------------------------------

PUT = Family(1, [], [cell("p", 0, 0)], False)
END = Family(1, [cell("p", 0, 0)], [whole("o")], False)
ADD = Family(1, [], [row(1)], False)
REPLACE = Family(1, [], [cell("s", 0)], False)
TILE = Family(1, [Box("s", (((0, 0, 0), (0, 1)),), streamed=True)], [whole("o")], True)
"""Streams the rows of earlier steps."""


def kernel(families: list[Family], *queues: list[Event], tokens: int = 1) -> Kernel:
    tiles = [[(e[1], e[2]) for e in q if e[0] == "run" and families[e[1]].streams_state] for q in queues]
    return Kernel(tokens, families, 4, list(queues), tiles)


DECIDED: dict[str, tuple[str, Kernel]] = {
    "a wait": ("", kernel([PUT, END], [("run", 0, 0), ("signal", 0)], [("wait", 0, 1), ("run", 1, 0)])),
    "no wait": ("race", kernel([PUT, END], [("run", 0, 0), ("signal", 0)], [("run", 1, 0)])),
    "a wait for the wrong one of two signals": (
        "race",
        kernel([PUT, END], [("run", 0, 0), ("signal", 0)], [("wait", 0, 1), ("run", 1, 0)], [("signal", 0)]),
    ),
    "a signal that is too early": (
        "race",
        kernel([PUT, END], [("signal", 0), ("run", 0, 0)], [("wait", 0, 1), ("run", 1, 0)]),
    ),
    "a signal too few": (
        "deadlock",
        kernel([PUT, END], [("run", 0, 0), ("signal", 0)], [("wait", 0, 2), ("run", 1, 0)]),
    ),
    "a word that nobody writes": (
        "deadlock",
        kernel([Family(1, [cell("t", 0)], [whole("o")], False)], [("run", 0, 0)]),
    ),
    "a tag, and data beside it": (
        "race",
        kernel(
            [
                PUT,
                Family(1, [], [cell("t", 0)], False),
                Family(1, [cell("t", 0), cell("p", 0, 0)], [whole("o")], False),
            ],
            [("run", 0, 0), ("run", 1, 0)],
            [("run", 2, 0)],
        ),
    ),
    "an output that is written in part": ("output", kernel([Family(1, [], [cell("o", 0)], False)], [("run", 0, 0)])),
    "an output that is written twice": (
        "written twice",
        kernel([Family(1, [], [whole("o")], False)] * 2, [("run", 0, 0), ("run", 1, 0)]),
    ),
    "a word that nobody has written": ("coverage", kernel([END], [("run", 0, 0)])),
    "two writes of state": (
        "write race",
        kernel(
            [Family(1, [], [row(1)], False), Family(1, [], [row(1), whole("o")], False)],
            [("run", 0, 0)],
            [("run", 1, 0)],
        ),
    ),
    "tiles of earlier rows": ("", kernel([ADD, TILE], [("run", 0, 0)], [("run", 1, 0)])),
    "tiles of a row that is replaced after their task": (
        "",
        kernel([ADD, TILE, REPLACE], [("run", 0, 0), ("run", 1, 0), ("signal", 0)], [("wait", 0, 1), ("run", 2, 0)]),
    ),
    "tiles of a row that is replaced by their task": (
        "",
        kernel([ADD, Family(1, TILE.reads, [cell("s", 0), whole("o")], True)], [("run", 0, 0), ("run", 1, 0)]),
    ),
    "tiles of a row that is replaced before their task": (
        "race",
        kernel([ADD, TILE, REPLACE], [("run", 0, 0), ("run", 2, 0), ("run", 1, 0)]),
    ),
    "tiles of a row that another SM replaces": (
        "race",
        kernel([ADD, TILE, REPLACE], [("run", 0, 0), ("signal", 0), ("run", 1, 0)], [("wait", 0, 1), ("run", 2, 0)]),
    ),
    "tiles of a row that was not added": (
        "coverage",
        kernel([TILE], [("run", 0, 0)]),
    ),
    "no fetch for a task that streams": (
        "stream",
        kernel([Family(1, [], [whole("o")], True)], [("run", 0, 0)]),
    ),
}


@pytest.mark.parametrize("what", DECIDED)
def test_what_the_oracle_says(what: str):
    problem, given = DECIDED[what]
    (verdict,) = decide([given])
    assert verdict.problem == problem
    assert (Oracle(given).problem() or "").partition(" at ")[0] == problem
    assert disagreements(verdict, check(parse(given.text()))) == []


def test_random_kernels_stream_state():
    """Of the kernels in which the ring reads what the step writes, some are safe."""
    found: set[tuple[bool, bool]] = set()
    for number in range(80):
        kernels = scenario_kernels(f"tiles-{number}", 8)
        families = kernels[0].families
        tiles = {e for f in families for i in range(f.extent) for b in f.reads if b.streamed for e in b.elements(i, 2)}
        written = {e for f in families for i in range(f.extent) for b in f.writes for e in b.elements(i, 2)}
        if tiles:
            found |= {(bool(tiles & written), not verdict.problem) for verdict in decide(kernels)}
    assert found == {(False, False), (False, True), (True, False), (True, True)}


def test_disagreements_are_noticed():
    safe, bad = Verdict(True, "", 0, False, False, 1), Verdict(True, "race", 2, False, False, 1)
    rejected = check(parse(DECIDED["no wait"][1].text()))
    assert disagreements(safe, []) == []
    assert disagreements(bad, rejected) == []
    assert disagreements(bad, []) == ["accepted, enumeration says race at 2"]
    assert "it is safe" in disagreements(safe, rejected)[0]
    assert disagreements(replace(bad, deadlock=True), rejected) == ["no deadlock, enumeration says a deadlock"]


def test_every_problem_is_decided():
    assert {problem for problem, _ in DECIDED.values()} == set(PROBLEMS)


def test_the_oracle_in_cpp_and_that_in_python():
    """Kernels of few states: the one in Python is slow."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    kernels = [k for n in range(150) for k in scenario_kernels(f"{seed}-{n}", 4)]
    compared = 0
    for given, verdict in zip(kernels, decide(kernels), strict=True):
        if verdict.states > 60:
            continue
        compared += 1
        oracle = Oracle(given)
        problem = (oracle.problem() or "").partition(" at ")[0]
        # where a kernel has both, the two look at the elements in different orders
        either = {"race", "coverage"}
        assert problem == verdict.problem or {problem, verdict.problem} == either, given.text()
        assert oracle.has_deadlock() == verdict.deadlock, given.text()
    assert compared > 50


def test_a_limit_is_reported():
    kernels = scenario_kernels("limit", 40)
    largest = max(v.states for v in decide(kernels))
    assert {v.decided for v in decide(kernels, limit=largest)} == {True}
    assert {v.decided for v in decide(kernels, limit=largest // 4)} == {True, False}


# ---- text and arrays ----------------------------------------------------------------------------------------------


def same_events(a: Events, b: Events) -> bool:
    return all(getattr(a, f).tolist() == getattr(b, f).tolist() for f in ("kind", "ref", "arg", "op", "bounds"))


def test_arrays_and_text_are_the_same_kernel():
    """The comparison gives the verifier arrays, and shares what overlaps; that changes nothing that it says."""
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    for number in range(12):
        builder, index = Builder(), None
        for given in scenario_kernels(f"{seed}-{number}", 6):
            built = builder.schedule(given)
            parsed = Schedule.from_kernel(parse(given.text()))
            assert same_events(built.body, parsed.body), given.text()
            assert same_events(built.stream, parsed.stream), given.text()
            assert built.signals.tolist() == parsed.signals.tolist()
            assert built.counters == parsed.counters
            assert list(map(str, built.families)) == list(map(str, parsed.families))
            assert list(map(str, built.kernel.buffers.values())) == list(map(str, parsed.kernel.buffers.values()))
            if index is None or index.kernel is not built.kernel:
                index = OverlapIndex(built.kernel)
            said = [(d.rule, d.message, d.remedy, d.failure) for d in check_schedule(built, index)]
            assert said == [(d.rule, d.message, d.remedy, d.failure) for d in check_schedule(parsed)], given.text()


def test_an_index_of_another_kernel_is_refused():
    first, second = (Builder().schedule(scenario_kernels(seed, 1)[0]) for seed in ("a", "b"))
    with pytest.raises(ValueError, match="another kernel"):
        check_schedule(first, OverlapIndex(second.kernel))
