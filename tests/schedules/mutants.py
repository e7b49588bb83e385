"""Mutants of lowerings: what a mutation makes of a kernel, what is true of it, and whether the verifier says so.

A class of mutations is a function that changes a lowering at a random place. Where its construction makes it certain
whether the result is safe, it says so, and its docstring says why; the oracle (direct_oracle.py) decides every mutant
in any case, and has to agree. The verifier is never asked for the truth.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from math import prod

from xdsl.ir import Attribute, Operation
from xdsl.utils.exceptions import VerifyException

from amk.backends.reference.replay import replay_schedule
from amk.dialects.queue import KernelOp
from amk.dialects.schedule import Schedule
from amk.dialects.task import MatmulOp
from amk.passes.verifier.check import check_schedule
from amk.passes.verifier.diagnostics import Diagnostic
from amk.passes.verifier.witness_search import find_witness

from .direct_oracle import Event, Verdict, decide
from .lowerings import Lowering, Task


class Truth(StrEnum):
    """What is true of a mutant. REFUSED: it is not valid IR, so that the verifier never sees it."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    REFUSED = "refused"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Edit:
    """A property of an op gets another value, None to remove it."""

    op: Operation
    name: str
    value: Attribute | None


@dataclass(frozen=True)
class Insertion:
    """A new op, which belongs to nothing yet, comes after another one."""

    op: Operation
    after: Operation


@dataclass
class Mutant:
    """A changed lowering. what: the change, for a person. certain: what its construction makes certain, if anything."""

    what: str
    bodies: list[list[Event]]
    streams: list[list[Task]]
    edits: list[Edit | Insertion] = field(default_factory=list["Edit | Insertion"])
    certain: Truth | None = None


Mutate = Callable[[random.Random, Lowering], Mutant | None]


@dataclass(frozen=True)
class MutantClass:
    """A class of mutations. group: what they change. mutate: a mutant, or None if nothing can be changed like that here."""

    name: str
    group: str
    mutate: Mutate


GROUPS = (
    "waits",
    "signals",
    "edges",
    "counters",
    "order",
    "placement",
    "tasks",
    "streams",
    "tiles",
    "buffers",
    "state",
    "tags",
    "resources",
    "not valid IR",
    "two at once",
)

CLASSES: dict[str, MutantClass] = {}


def mutation(group: str, name: str) -> Callable[[Mutate], Mutate]:
    """Registers a class of mutations."""

    def register(mutate: Mutate) -> Mutate:
        assert name not in CLASSES and group in GROUPS, f"{name} of {group}"
        CLASSES[name] = MutantClass(name, group, mutate)
        return mutate

    return register


def copied(lowering: Lowering, what: str = "") -> Mutant:
    """A mutant in which nothing is changed yet."""
    return Mutant(what, [list(b) for b in lowering.bodies], [list(s) for s in lowering.streams])


def places(bodies: list[list[Event]], kind: str) -> list[tuple[int, int]]:
    """Where the events of a kind are: (SM, place)."""
    return [(sm, i) for sm, body in enumerate(bodies) for i, event in enumerate(body) if event[0] == kind]


def name_of(lowering: Lowering, event: Event) -> str:
    """An event, for a person."""
    return str(lowering.op("body", event))


# ---- the truth ----------------------------------------------------------------------------------------------------

_SMS = {"sm_80": 108, "sm_90a": 132, "sm_120a": 170}
_SHARED_BYTES = {"sm_80": 163 << 10, "sm_90a": 227 << 10, "sm_120a": 99 << 10}
"""Of the greatest GPU of each architecture, and of one block of it: CUDA C++ Programming Guide, compute capabilities."""


def widest_sms(kernel: KernelOp) -> int | None:
    """The SMs of the greatest GPU of the target; the reference has no limits."""
    return _SMS.get(kernel.target.data)


def room(kernel: KernelOp) -> int | None:
    """The bytes of shared memory beside the widest activations, of 4 bytes an element."""
    if (shared := _SHARED_BYTES.get(kernel.target.data)) is None:
        return None
    return shared - 4 * max(
        (prod(op.x.type.get_shape()) for op in kernel.walk() if isinstance(op, MatmulOp)), default=0
    )


def fits(kernel: KernelOp) -> bool:
    """Whether grid, ring and activations fit the target."""
    sms, left = widest_sms(kernel), room(kernel)
    ring = 0 if kernel.ring is None else kernel.ring.data.stages * kernel.ring.data.stage_bytes
    return (sms is None or kernel.sms.value.data <= sms) and (left is None or ring <= left)


def truth(lowering: Lowering, mutant: Mutant) -> tuple[Truth, str]:
    """What is true of a mutant whose edits are applied, and why, by the oracle."""
    head = lowering.head().packed() if mutant.edits else lowering.unchanged_head()
    verdict, (position, first, second) = decide(head, mutant.bodies, mutant.streams)
    if verdict is Verdict.UNDECIDED:
        return Truth.UNDECIDED, "undecided"
    if verdict is not Verdict.SAFE:
        return Truth.UNSAFE, f"{verdict.name.lower()} at {position}, events {first} and {second}"
    return (Truth.SAFE, "safe") if fits(lowering.kernel) else (Truth.UNSAFE, "resources")


@contextmanager
def applied(edits: Sequence[Edit | Insertion]) -> Iterator[None]:
    """The ops with the edits; without them again afterwards."""
    old = [Edit(e.op, e.name, e.op.properties.get(e.name)) for e in edits if isinstance(e, Edit)]
    new = [e for e in edits if isinstance(e, Insertion)]
    try:
        for edit in edits:
            if isinstance(edit, Edit):
                _set(edit)
            else:
                block = edit.after.parent
                assert block is not None
                block.insert_op_after(edit.op, edit.after)
        yield
    finally:
        for insertion in reversed(new):
            insertion.op.detach()
        for edit in reversed(old):
            _set(edit)


def verify_edited(edits: Sequence[Edit | Insertion]) -> None:
    """Raises VerifyException if an edited op is not valid, or one that uses its results.

    Reads, stores and buffers that keep their types concern no other op; the whole kernel is verified for anything else.
    """
    for op in dict.fromkeys(e.op for e in edits):
        op.verify()
        for user in users(op):
            user.verify()


def users(op: Operation) -> list[Operation]:
    """The ops that use a result of `op`."""
    return [use.operation for result in op.results for use in result.uses]


def _set(edit: Edit) -> None:
    if edit.value is None:
        edit.op.properties.pop(edit.name, None)
    else:
        edit.op.properties[edit.name] = edit.value


# ---- what the verifier says ---------------------------------------------------------------------------------------


@dataclass
class Judgement:
    """What was found out about a mutant.

    truth, why: by the oracle. accepted: by the verifier. witnesses: (rule, what came of
    it): reproduced, not reproduced, or none, of the first diagnostic of each rule that is about executions. problems: whatever is wrong.
    """

    truth: Truth
    why: str
    accepted: bool = False
    witnesses: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    problems: list[str] = field(default_factory=list[str])


def judge(lowering: Lowering, mutant: Mutant) -> Judgement:
    """Compares the verifier with the truth, and replays the witness of the first diagnostic of each rule."""
    with applied(mutant.edits):
        try:
            if mutant.certain is Truth.REFUSED:
                lowering.explicit(mutant.bodies, mutant.streams).verify()
            else:
                verify_edited(mutant.edits)
        except VerifyException as e:
            result = Judgement(Truth.REFUSED, str(e).strip().rpartition("\n")[2])
            if mutant.certain is not Truth.REFUSED:
                result.problems.append(f"not valid IR: {e}")
            return result
        found, why = truth(lowering, mutant)
        result = Judgement(found, why)
        if found is Truth.UNDECIDED:
            return result
        if mutant.certain is not None and found is not mutant.certain:
            result.problems.append(f"by construction it is {mutant.certain}, by the oracle {found}: {why}")
        schedule = lowering.schedule(mutant.bodies, mutant.streams)
        diagnostics = check_schedule(schedule, None if mutant.edits else lowering.unchanged_index())
        result.accepted = not diagnostics
        if result.accepted != (found is Truth.SAFE):
            said = "accepted" if result.accepted else f"rejected ({diagnostics[0]})"
            result.problems.append(f"it is {found} ({why}), but {said}")
        first = {d.rule: d for d in reversed(diagnostics) if d.failure is not None}
        for diagnostic in first.values():
            outcome, text = _replayed(schedule, diagnostic)
            result.witnesses.append((diagnostic.rule.value, outcome))
            if outcome != "reproduced":
                result.problems.append(f"witness of {diagnostic}: {outcome}: {text}")
        return result


def _replayed(schedule: Schedule, diagnostic: Diagnostic) -> tuple[str, str]:
    """What becomes of a diagnostic's witness. The digest is left out: it costs more than all the rest."""
    assert diagnostic.failure is not None
    witness = find_witness(schedule, diagnostic.rule, diagnostic.failure, digest="")
    if witness is None:
        return "none", ""
    outcome = replay_schedule(schedule, witness)
    return ("reproduced" if outcome.reproduced else "not reproduced"), outcome.text
