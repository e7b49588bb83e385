"""What the verifier says about a schedule that it rejects."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from xdsl.ir import Operation


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


@dataclass(frozen=True)
class Diagnostic:
    """One reason to reject a schedule.

    message: what is wrong. execution: how an execution goes wrong ("" where the message says it all). remedy: what to
    change. ops, sms, tasks, regions: the parties, the writer or the blocked one first. occurrences: how many places
    have the same cause; the diagnostic describes the first.
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
