"""How an execution of a rejected schedule goes wrong, as data: what diagnostics and witnesses are about."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Box = tuple[tuple[int, int], ...]
"""A half-open interval for each dimension of a buffer."""


class Rule(StrEnum):
    """The rules of docs/semantics.md, by the name that diagnostics carry."""

    COVERAGE = "coverage"
    DEADLOCK = "deadlock"
    RACE = "race"
    RESOURCES = "resources"
    STREAM = "stream"
    TASKS = "tasks"
    UNDECIDED = "undecided"
    WRITTEN_ONCE = "written-once"


class FailureKind(StrEnum):
    """How an execution goes wrong; what the events of a `Failure` are."""

    DEADLOCK = "deadlock"
    """It cannot be continued, and not every SM has finished."""
    EARLY_LOAD = "early-load"
    """The second event streams state that the first has written by then: the ring may have loaded it before."""
    MISSING_TASK = "missing-task"
    """It ends, and a task has not run."""
    REPEATED_TASK = "repeated-task"
    """The second event runs the task of the first again."""
    REWRITE = "rewrite"
    """Both events write the same elements in one step."""
    STREAM = "stream"
    """The event does not find its tiles in the ring; without an event, tiles are left at the end."""
    UNORDERED = "unordered"
    """A write and another access of the same state, which executions do in either order."""
    UNSEEN_WRITE = "unseen-write"
    """The second event accesses elements before the first has written them, or without seeing that."""
    UNWRITTEN_OUTPUT = "unwritten-output"
    """It ends, and elements of an output were not written."""
    UNWRITTEN_READ = "unwritten-read"
    """The event reads elements that nobody has written."""


@dataclass(frozen=True)
class Failure:
    """The bad executions that a diagnostic is about, from which `witness_search` finds one.

    position: of the step. events: the parties, by event number. buffer, box: the elements in question. sm: the SM of a
    STREAM failure. task: the task of a MISSING_TASK.
    """

    kind: FailureKind
    position: int = 0
    events: tuple[int, ...] = ()
    buffer: str = ""
    box: Box = ()
    sm: int = -1
    task: str = ""
