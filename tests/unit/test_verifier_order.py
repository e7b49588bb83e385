"""The verifier's answers to the questions of schedules/order_questions.py."""

import pytest
from schedules.order_questions import SAFE, UNSAFE, kernel_text
from schedules.small_kernels import parse

from amk.passes.verifier import Diagnostic, check


def verdict(*queues: str) -> list[Diagnostic]:
    """The diagnostics of a kernel with one SM a queue."""
    return check(parse(kernel_text(queues)))


@pytest.mark.parametrize("queues", [q for _, q in SAFE], ids=[n for n, _ in SAFE])
def test_safe(queues: list[str]):
    assert [str(d) for d in verdict(*queues)] == []


@pytest.mark.parametrize(("queues", "rule"), [c[1:] for c in UNSAFE], ids=[c[0] for c in UNSAFE])
def test_unsafe(queues: list[str], rule: str):
    assert rule in {d.rule.value for d in verdict(*queues)}


def test_a_race_says_when_only_tags_order_it():
    (race,) = verdict("write_and_tell", "hear_and_read")
    assert "only tagged words see to that" in race.execution
    assert "signal a counter of its own on SM 0 after task @write_and_tell[]" in race.remedy


def test_a_cycle_names_its_members_only():
    (deadlock,) = verdict("c2 finish", "c0 write +c1", "c1 tell +c0 +c2")
    assert set(deadlock.sms) == {1, 2}
    assert "3 of 3 SMs never finish" in deadlock.message
