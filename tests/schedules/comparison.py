"""One batch of random small kernels: the verifier against the enumeration oracle, and its witnesses replayed."""

import random
from collections import Counter
from dataclasses import dataclass, field

from amk.backends.reference.replay import replay_schedule
from amk.dialects.schedule import Schedule
from amk.passes.verifier import Diagnostic, OverlapIndex, check_schedule
from amk.passes.verifier.witness_search import find_witness

from .built_kernels import Builder
from .enumerate_many import STATE_LIMIT, Verdict, decide
from .random_kernels import random_kernels
from .small_kernels import Kernel

ARRANGEMENTS = 40
"""Kernels of one scenario."""


@dataclass
class Tally:
    """What a number of comparisons found.

    verdicts: kernels by the oracle's first problem, "safe" without; tiles: of these, those that stream state. rules: unsafe kernels by each rule that the verifier
    named. undecided: kernels over the oracle's limit, not counted in anything else. disagreements: what and which kernel.
    witnesses: of replayed diagnostics, by "rule: failure"; bad_witnesses: those that are missing or show nothing.
    """

    verdicts: Counter[str] = field(default_factory=Counter)
    tiles: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    undecided: int = 0
    deadlocks_compared: int = 0
    states: int = 0
    disagreements: list[str] = field(default_factory=list)
    witnesses: Counter[str] = field(default_factory=Counter)
    bad_witnesses: list[str] = field(default_factory=list)
    shapes: Counter[str] = field(default_factory=Counter)

    @property
    def kernels(self) -> int:
        """Kernels that both decided."""
        return sum(self.verdicts.values())


def scenario_kernels(seed: str, count: int = ARRANGEMENTS) -> list[Kernel]:
    """The kernels that a seed stands for."""
    return list(random_kernels(random.Random(seed), count))


def compare(
    seed: str, tally: Tally, count: int = ARRANGEMENTS, replay_every: int = 1, limit: int = STATE_LIMIT
) -> None:
    """Compares the kernels of a seed; of the unsafe ones, the witnesses of every `replay_every`th are replayed."""
    kernels = scenario_kernels(seed, count)
    builder, index = Builder(), None
    for number, (kernel, verdict) in enumerate(zip(kernels, decide(kernels, limit), strict=True)):
        if not verdict.decided:
            tally.undecided += 1
            continue
        schedule = builder.schedule(kernel)
        if index is None or index.kernel is not schedule.kernel:
            index = OverlapIndex(schedule.kernel)
        diagnostics = check_schedule(schedule, index)
        tally.verdicts[verdict.problem or "safe"] += 1
        if any(family.streams_state for family in kernel.families):
            tally.tiles[verdict.problem or "safe"] += 1
        tally.rules.update({str(d.rule) for d in diagnostics})
        tally.states += verdict.states
        tally.shapes[f"{len(kernel.queues)} SMs, {max(map(len, kernel.queues))} events"] += 1
        tally.deadlocks_compared += not verdict.tags_rewritten
        name = f"{seed} / {number}"
        tally.disagreements += [f"{name}: {what}" for what in disagreements(verdict, diagnostics)]
        if diagnostics and sum(tally.verdicts.values()) % replay_every == 0:
            _replay(name, schedule, diagnostics, tally)


def disagreements(verdict: Verdict, diagnostics: list[Diagnostic]) -> list[str]:
    """In what verdict and diagnostics differ."""
    found: list[str] = []
    if verdict.problem and not diagnostics:
        found.append(f"accepted, enumeration says {verdict.problem} at {verdict.position}")
    if not verdict.problem and diagnostics:
        found.append(f"rejected, enumeration says it is safe: {'; '.join(d.message for d in diagnostics)}")
    said = any(d.rule == "deadlock" for d in diagnostics)
    if not verdict.tags_rewritten and said != verdict.deadlock:
        found.append(f"{'a' if said else 'no'} deadlock, enumeration says {'a' if verdict.deadlock else 'no'} deadlock")
    return found


def _replay(name: str, schedule: Schedule, diagnostics: list[Diagnostic], tally: Tally) -> None:
    for diagnostic in diagnostics:
        if diagnostic.failure is None:
            tally.bad_witnesses.append(f"{name}: {diagnostic.rule} is not about executions")
            continue
        witness = find_witness(schedule, diagnostic.rule, diagnostic.failure, "")
        if witness is None:
            tally.bad_witnesses.append(f"{name}: no witness: {diagnostic.message}")
            continue
        outcome = replay_schedule(schedule, witness)
        if outcome.reproduced:
            tally.witnesses[f"{diagnostic.rule}: {witness.failure}"] += 1
        else:
            tally.bad_witnesses.append(f"{name}: not reproduced: {diagnostic.message}: {outcome.text}")
