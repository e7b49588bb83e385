"""What the verifier says about a schedule that it rejects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from xdsl.ir import Operation

if TYPE_CHECKING:
    from .witness import Witness


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
    """The bad executions that a diagnostic is about, from which `witness` finds one.

    position: of the step. events: the parties, by event number. buffer, box: the elements in question. sm: the SM of a
    STREAM failure. task: the task of a MISSING_TASK.
    """

    kind: FailureKind
    position: int = 0
    events: tuple[int, ...] = ()
    buffer: str = ""
    box: tuple[tuple[int, int], ...] = ()
    sm: int = -1
    task: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """One reason to reject a schedule.

    message: what is wrong. execution: how an execution goes wrong ("" where the message says it all). remedy: what to
    change. ops, sms, tasks, regions: the parties, the writer or the blocked one first. occurrences: how many places
    have the same cause; the diagnostic describes the first. failure: the executions that go wrong, None where it is not
    an execution that is wrong (resources, no ring, undecided). search: finds one of them.
    """

    rule: Rule
    message: str
    remedy: str
    execution: str = ""
    ops: tuple[Operation, ...] = ()
    sms: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    occurrences: int = 1
    failure: Failure | None = field(default=None, compare=False, repr=False)
    search: Callable[[], Witness | None] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def witness(self) -> Witness | None:
        """An execution that goes wrong as the diagnostic says; looked for when first asked for.

        It ends in a deadlock if every execution does before it comes to that. None if no execution is at fault
        (`failure` is None), or none was found: the rejection may be one that is not exact (docs/semantics.md).
        """
        return None if self.search is None else self.search()

    def __str__(self) -> str:
        text = f"{self.rule}: {self.message}"
        if self.occurrences > 1:
            text += f" ({self.occurrences} such places were found, this is the first)"
        if at := [f"`{op!s}`" for op in dict.fromkeys(self.ops) if not op.regions]:
            text += f"\n  in: {', '.join(at)}"
        if self.execution:
            text += f"\n  execution: {self.execution}"
        return f"{text}\n  to fix: {self.remedy}"


def plural(count: int, noun: str) -> str:
    """`1 task`, `2 tasks`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
