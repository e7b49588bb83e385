"""`insert-missing-sync`: adds the waits and signals that a schedule with races lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..dialects import queue
from ..dialects.schedule import Schedule
from .missing_sync.conflicts import find_missing
from .missing_sync.edit import Edit
from .missing_sync.event_plan import is_explicit, places_in_queue, plan_events
from .missing_sync.phase_plan import Sites, plan_phases
from .verifier import Diagnostic, Rule, check, check_schedule, format_diagnostics
from .verifier.timeline import Timeline

WORK_LIMIT = 50_000_000
"""Events that may be verified again to find added waits that can be left out; beyond, none is looked for."""


@dataclass(frozen=True)
class InsertMissingSyncPass(ModulePass):
    """Makes every kernel that `verify-schedule` rejects for races alone safe, and leaves safe ones as they are.

    Adds counters of its own, signals and waits; moves, changes and removes nothing. Only edges that are missing are
    added, and no added wait could be left out. In a compact kernel they are added to phases, whatever the length of the
    loops around them. The result is verified. Fails, and changes nothing, if no added wait makes the kernel safe.
    """

    name = "insert-missing-sync"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for kernel in [k for k in op.walk() if isinstance(k, queue.KernelOp)]:
            insert_missing_sync(kernel)


def insert_missing_sync(kernel: queue.KernelOp) -> Edit:
    """What was added to `kernel`, which is safe now; nothing if it was safe.

    Raises:
        PassFailedException: something else is wrong with it, or the compact form cannot express what it lacks. The
            kernel is as it was.
    """
    schedule = Schedule.from_kernel(kernel)
    diagnostics = check_schedule(schedule)
    if not diagnostics:
        return Edit(kernel)
    if any(d.rule not in (Rule.RACE, Rule.COVERAGE) for d in diagnostics):
        raise _refused(kernel, f"waits mend races, not {_rules(diagnostics)}", diagnostics)
    for edit, is_reduced in _plans(schedule, diagnostics):
        edit.apply()
        if not (remaining := check(kernel)):
            if not is_reduced:
                _leave_out_needless(edit)
            return edit
        edit.undo()
        if all(d.rule is not Rule.DEADLOCK for d in remaining):
            rules = {d.rule for d in remaining}
            left = [d for d in diagnostics if d.rule in rules]  # as they are numbered without the waits
            raise _refused(
                kernel, f"with all missing waits added it still has {_rules(remaining)}", left or diagnostics
            )
    raise _refused(
        kernel,
        "its races are not between whole phases at a constant distance of iterations, so no wait in its loops and phases "
        "mends them; run expand-queues first",
        diagnostics,
    )


def _plans(schedule: Schedule, diagnostics: list[Diagnostic]) -> Iterator[tuple[Edit, bool]]:
    """What might mend a schedule, the preferred way first, and whether no wait of it could be left out."""
    timeline, explicit = Timeline.of(schedule), is_explicit(schedule)
    sites = Sites() if explicit else Sites.of(timeline, split=False)
    missing = find_missing(timeline, places_in_queue(schedule) if explicit else sites.rank)
    if missing is None:
        raise _refused(
            schedule.kernel,
            "in every order of execution some task reads before the write, or streams after it: move tasks",
            diagnostics,
        )
    if explicit:
        yield plan_events(missing), missing.is_exact
        return
    for split in (False, True):
        try:
            edit = plan_phases(missing, Sites.of(timeline, split) if split else sites)
        except PassFailedException:
            continue
        if edit is not None:
            yield edit, False


def _leave_out_needless(edit: Edit) -> None:
    """Removes each added wait without which the kernel, safe so far, is still safe."""
    events = len(Schedule.from_kernel(edit.kernel).body)
    if events * len(edit.waits) <= WORK_LIMIT:
        for number in range(len(edit.waits)):
            edit.leave_out(number)
            if check(edit.kernel):
                edit.put_back(number)
    edit.settle()


def _rules(diagnostics: list[Diagnostic]) -> str:
    return ", ".join(dict.fromkeys(d.rule.value for d in diagnostics))


def _refused(kernel: queue.KernelOp, why: str, diagnostics: list[Diagnostic]) -> PassFailedException:
    name = kernel.sym_name.data
    return PassFailedException(f"insert-missing-sync: kernel @{name}: {why}\n{format_diagnostics(kernel, diagnostics)}")
