"""What the verifier says about a schedule that it rejects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from xdsl.ir import Operation

from .failures import Failure, Rule
from .witness import Witness


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
