"""Where tagged words order two tasks, whether one sees the other depends on what the tags keep from happening."""

import pytest
from schedules.enumerate_many import decide
from schedules.random_kernels import cell, whole
from schedules.small_kernels import Box, Event, Family, Kernel, parse

from amk.backends.reference.replay import replay
from amk.passes.verifier import FailureKind, Rule, check
from amk.passes.verifier.unseen import SearchLimitError, UnseenSearch

PUT = Family(1, [], [cell("p", 0, 0)], False)
READ = Family(1, [cell("p", 0, 0)], [cell("t", 0)], False)
TELL = Family(1, [], [cell("t", 0)], False)
END = Family(1, [cell("t", 0)], [whole("o")], False)


def kernel(families: list[Family], *queues: list[Event]) -> Kernel:
    return Kernel(1, families, 4, list(queues), [[] for _ in queues])


def late_signal() -> Kernel:
    """SM 2 signals too, but not before SM 1 has read: the first signal is SM 0's."""
    return kernel(
        [PUT, READ, END],
        [("run", 0, 0), ("signal", 0)],
        [("wait", 0, 1), ("run", 1, 0)],
        [("run", 2, 0), ("signal", 0)],
    )


def early_signal() -> Kernel:
    """The same, but SM 2 signals first."""
    return kernel(
        [PUT, READ, END],
        [("run", 0, 0), ("signal", 0)],
        [("wait", 0, 1), ("run", 1, 0)],
        [("signal", 0), ("run", 2, 0)],
    )


def own_signal_is_later() -> Kernel:
    """SM 1 signals after it heard of SM 0's word, which came after SM 0's signal: it has to observe that too."""
    return kernel(
        [
            PUT,
            TELL,
            Family(1, [cell("t", 0)], [cell("t", 1)], False),
            Family(1, [cell("p", 0, 0)], [whole("o")], False),
        ],
        [("run", 0, 0), ("signal", 0), ("run", 1, 0)],
        [("run", 2, 0), ("signal", 0), ("wait", 0, 1), ("run", 3, 0)],
    )


def own_signal_is_early() -> Kernel:
    """SM 1 signals before it heard of anything: its own signal may be the first."""
    return kernel(
        [
            PUT,
            TELL,
            Family(1, [cell("t", 0)], [cell("t", 1)], False),
            Family(1, [cell("p", 0, 0)], [whole("o")], False),
        ],
        [("run", 0, 0), ("signal", 0), ("run", 1, 0)],
        [("signal", 0), ("run", 2, 0), ("wait", 0, 1), ("run", 3, 0)],
    )


def two_counters() -> Kernel:
    """Which of two signals comes first decides; SM 1 needs both words before it reads."""
    words = Family(1, [cell("t", 0)], [cell("t", 1)], False)
    return kernel(
        [PUT, TELL, words, Family(1, [cell("t", 1), cell("p", 0, 0)], [whole("o")], False)],
        [("run", 0, 0), ("signal", 0), ("signal", 1), ("run", 1, 0)],
        [("wait", 0, 1), ("wait", 1, 1), ("run", 3, 0)],
        [("signal", 1), ("run", 2, 0), ("signal", 0)],
    )


@pytest.mark.parametrize("make", [late_signal, own_signal_is_later, two_counters])
def test_tags_keep_a_signal_back(make):
    given = make()
    assert decide([given])[0].problem == ""
    assert check(parse(given.text())) == []


@pytest.mark.parametrize("make", [early_signal, own_signal_is_early])
def test_nothing_keeps_a_signal_back(make):
    given = make()
    assert decide([given])[0].problem == "race"
    op = parse(given.text())
    (diagnostic,) = check(op)
    assert diagnostic.rule is Rule.RACE
    assert diagnostic.witness is not None
    assert diagnostic.witness.failure is FailureKind.UNSEEN_WRITE
    assert replay(op, diagnostic.witness).reproduced


def test_only_true_races_are_reported_of_an_unsafe_kernel():
    """@f3 sees @f0: the signal of its SM comes after that of SM 0, and so does what it waits for."""
    pair, past = Box("s", (((0, 0, 0), (2, 0)),)), Box("s", (((0, 0, 0), (1, 1)),))
    given = kernel(
        [
            Family(1, [], [pair], False),
            Family(1, [past], [cell("t", 0), cell("t", 1)], False),
            Family(1, [cell("t", 0), past], [pair], False),
            Family(1, [pair], [whole("o")], False),
        ],
        [("run", 0, 0), ("signal", 0), ("wait", 0, 1), ("run", 1, 0), ("signal", 0)],
        [("wait", 0, 1), ("run", 2, 0), ("signal", 0), ("wait", 0, 3), ("run", 3, 0), ("signal", 0)],
        [("signal", 0), ("signal", 0)],
    )
    op = parse(given.text())
    diagnostics = check(op)
    assert [d.tasks for d in diagnostics] == [("@f0[]", "@f2[]")] * 2
    for diagnostic in diagnostics:
        assert diagnostic.witness is not None
        assert replay(op, diagnostic.witness).reproduced


def test_words_written_twice_are_not_searched_for_deadlocks():
    """Whether their reader goes on after the first write or the last is not for anyone to say."""
    given = kernel(
        [TELL, TELL, END],
        [("run", 0, 0), ("wait", 0, 1), ("run", 1, 0)],
        [("run", 2, 0), ("signal", 0)],
    )
    op = parse(given.text())
    (diagnostic,) = check(op)
    assert diagnostic.rule is Rule.WRITTEN_ONCE
    assert diagnostic.witness is not None
    assert replay(op, diagnostic.witness).reproduced


def test_a_search_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch):
    """The schedule is rejected, and says why."""
    monkeypatch.setattr(UnseenSearch.__init__, "__defaults__", (3,))
    (diagnostic,) = check(parse(late_signal().text()))
    assert diagnostic.rule is Rule.UNDECIDED
    assert diagnostic.witness is None


def test_the_limit_is_for_all_searches_together():
    search = UnseenSearch(_items(late_signal()), limit=30)
    write, read = 0, 3
    with pytest.raises(SearchLimitError):
        for _ in range(30):
            assert search.find(write, read) is None


def _items(given: Kernel):
    from amk.dialects.schedule import Schedule
    from amk.passes.verifier.machine import Machine
    from amk.passes.verifier.witness_search import _items as items_of

    return items_of(Machine(Schedule.from_kernel(parse(given.text())), 0))
