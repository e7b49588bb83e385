"""The verifier: all rules of docs/semantics.md, in the order in which one relies on another."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from ...amk_ir.attrs import BufferKind
from ...amk_ir.errors import ScheduleError
from ...dialects.queue import KernelOp
from ...dialects.schedule import Schedule
from .arrangement import TooLargeError
from .clocks import compute_clocks
from .coverage import Overlaps, check_read_before_written, check_written_once, overlaps
from .diagnostics import Diagnostic, plural
from .execution import build_items, run, tagged_regions
from .explain import explain_deadlock
from .failures import Rule
from .overlap_index import OverlapIndex
from .races import Order, check_races
from .regions import BufferAccesses, collect, worlds
from .resources import check_resources
from .timeline import Timeline, check_stream, check_tasks
from .witness import Witness
from .witness_search import find_witness


def check(kernel: KernelOp) -> list[Diagnostic]:
    """Everything that is wrong with a kernel; an empty list is a proof that it is safe.

    `kernel` is valid IR (its own `verify` passes). Later rules assume the earlier ones, so a kernel with missing tasks or
    tagged words that are written twice is not searched for deadlocks, and one with a deadlock not for races.
    """
    return check_schedule(Schedule.from_kernel(kernel))


def check_schedule(schedule: Schedule, index: OverlapIndex | None = None) -> list[Diagnostic]:
    """As `check`, for a kernel that is already unrolled. `index`: of this kernel, shared with other schedules of it."""
    if index is not None and index.kernel is not schedule.kernel:
        raise ValueError("the index is of another kernel")
    return [_with_search(schedule, d) for d in _check_schedule(schedule, index)]


def _with_search(schedule: Schedule, diagnostic: Diagnostic) -> Diagnostic:
    """The diagnostic with a way to its witness, which nobody has to pay for who does not ask."""
    if (failure := diagnostic.failure) is None:
        return diagnostic

    def search() -> Witness | None:
        try:
            return find_witness(schedule, diagnostic.rule, failure, content_hash(schedule.kernel))
        except TooLargeError:
            return None

    return replace(diagnostic, search=search)


def _check_schedule(schedule: Schedule, index: OverlapIndex | None) -> list[Diagnostic]:
    kernel = schedule.kernel
    diagnostics = [*check_resources(kernel), *check_tasks(schedule)]
    if any(d.rule is Rule.TASKS for d in diagnostics):
        return diagnostics
    timeline = Timeline.of(schedule)
    diagnostics += check_stream(timeline)
    accesses = collect(timeline)

    def overlaps_of(buffer: BufferAccesses, position: int) -> Overlaps:
        if index is not None:
            return index.overlaps(buffer, position)
        return overlaps(buffer, position, kernel.tokens.value.data)

    positions = {
        a.name: a.positions(kernel.max_pos, kernel.tokens.value.data) if index is None else index.positions(a)
        for a in accesses
    }
    said: set[Rule] = set()
    for world in worlds(accesses, positions):
        # of what is wrong at several positions, the first tells enough
        problems = [d for d in _check_world(timeline, world, overlaps_of) if d.rule not in said]
        said |= {d.rule for d in problems}
        diagnostics += problems
    return diagnostics


def _check_world(
    timeline: Timeline,
    world: Sequence[tuple[BufferAccesses, int]],
    overlaps_of: Callable[[BufferAccesses, int], Overlaps],
) -> list[Diagnostic]:
    """Coverage, deadlocks and races of (buffer, position) pairs, at all of which the same tags block the same tasks."""
    diagnostics: list[Diagnostic] = []
    found: list[Overlaps] = []
    rejected: set[str] = set()  # buffers: what was said at one position is not said again at another
    for accesses, position in world:
        if accesses.name in rejected:
            continue
        try:
            overlap = overlaps_of(accesses, position)
        except TooLargeError:
            return [*diagnostics, _too_large(accesses)]
        found.append(overlap)
        problems = [*check_written_once(timeline, overlap)]
        if accesses.kind is not BufferKind.STATE:
            problems += check_read_before_written(timeline, overlap)
        if problems:
            rejected.add(accesses.name)
            diagnostics += problems
    if any(o.accesses.tagged and len(o.first) for o in found):
        return diagnostics  # words that are written twice do not say when their readers may go on
    items = build_items(timeline, tagged_regions(timeline, found))
    end = run(items)
    if end.blocked:
        return [*diagnostics, explain_deadlock(end, world[0][1] if world else 0)]
    try:
        order = Order(items, compute_clocks(items))
    except TooLargeError:
        return [*diagnostics, _too_many_clocks(timeline)]
    rejected.clear()
    for overlap in found:
        name = overlap.accesses.name
        if name not in rejected and (races := list(check_races(order, overlap))):
            rejected.add(name)
            diagnostics += races
    return diagnostics


def _too_large(accesses: BufferAccesses) -> Diagnostic:
    return Diagnostic(
        Rule.UNDECIDED,
        f"the regions of @{accesses.name} that tasks access overlap too much to be compared: "
        f"{plural(len(accesses.writes), 'region')} written, {len(accesses.reads)} read",
        "use fewer, larger or better aligned tiles",
        ops=(accesses.buffer,),
    )


def _too_many_clocks(timeline: Timeline) -> Diagnostic:
    schedule = timeline.schedule
    return Diagnostic(
        Rule.UNDECIDED,
        f"{len(schedule.body)} events on {schedule.num_sms} SMs wait too often to keep what each SM has seen at each wait",
        "use fewer SMs, waits, counters or tagged buffers",
    )


def content_hash(kernel: KernelOp) -> str:
    """SHA-256 of the kernel's textual form."""
    return hashlib.sha256(str(kernel).encode()).hexdigest()


_PROOF = object()


@dataclass(frozen=True)
class VerifiedKernel:
    """A kernel that `verify` proved safe. Backends that launch kernels take nothing else.

    digest: of the text that was proved; `current` compares it with the kernel as it is now.
    """

    kernel: KernelOp
    digest: str
    _proof: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        # bound to the digest, so that dataclasses.replace makes no proof for another kernel
        if self._proof != (_PROOF, self.digest):
            raise TypeError("a VerifiedKernel comes from verify() only")

    def current(self) -> KernelOp:
        """The kernel, if it is still the one that was proved; ScheduleError if it was edited since."""
        if content_hash(self.kernel) != self.digest:
            raise ScheduleError(
                f"kernel @{self.kernel.sym_name.data} was changed after it was verified: run verify-schedule again"
            )
        return self.kernel


def verify(kernel: KernelOp) -> VerifiedKernel:
    """Proves a kernel safe; ScheduleError with all diagnostics if it is not."""
    kernel.verify()
    if diagnostics := check(kernel):
        raise ScheduleError(format_diagnostics(kernel, diagnostics))
    digest = content_hash(kernel)
    return VerifiedKernel(kernel, digest, (_PROOF, digest))


def format_diagnostics(kernel: KernelOp, diagnostics: list[Diagnostic]) -> str:
    """All diagnostics of a kernel as one text."""
    return "\n".join([f"schedule @{kernel.sym_name.data} is rejected", *map(str, diagnostics)])
