"""Kernels whose verdict is known without the verifier, and what to say of a verifier that judges them differently."""

import dataclasses
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from types import ModuleType

from decoder_edits import BIG, EDITS, edited
from decoder_kernels import Shape, decoder

from amk.amk_ir.targets import TARGETS
from amk.dialects.queue import KernelOp
from amk.dialects.schedule import Schedule

from . import order_questions, region_questions, tile_questions
from .enumerate_many import decide
from .random_kernels import random_kernel
from .small_kernels import Box, Family, Kernel, parse

KERNELS = 200
"""Random kernels."""


@dataclass(frozen=True)
class Case:
    """safe: the truth. rule: one that an unsafe kernel breaks, "" if that is not known. deadlock: None if not known."""

    what: str
    kernel: KernelOp
    safe: bool
    rule: str = ""
    deadlock: bool | None = None

    @cached_property
    def schedule(self) -> Schedule:
        return Schedule.from_kernel(self.kernel)


def complaint(check: Callable[[Schedule], list], case: Case) -> str | None:
    """What is wrong with the verdict that `check` gives, or None."""
    try:
        rules = {str(d.rule) for d in check(case.schedule)}
    except Exception as e:
        return f"crash, {case.what}: {type(e).__name__}: {e}"
    if case.safe and rules:
        return f"false reject, {case.what}: {', '.join(sorted(rules))}"
    if not case.safe and not rules:
        return f"false accept, {case.what}"
    if case.rule and case.rule not in rules:
        return f"wrong rule, {case.what}: {', '.join(sorted(rules))} instead of {case.rule}"
    if case.deadlock is not None and case.deadlock != ("deadlock" in rules):
        return f"deadlock {'not seen' if case.deadlock else 'where there is none'}, {case.what}"
    return None


@cache
def hand_written_orders() -> list[Case]:
    safe = [Case(what, parse(order_questions.kernel_text(q)), True) for what, q in order_questions.SAFE]
    return safe + [
        Case(what, parse(order_questions.kernel_text(q)), False, rule) for what, q, rule in order_questions.UNSAFE
    ]


@cache
def hand_written_regions() -> list[Case]:
    return [
        Case(q.what, parse(region_questions.kernel_text(q.sms, q.tokens)), q.rule is None, q.rule or "")
        for q in region_questions.QUESTIONS
    ]


@cache
def safe_decoders() -> list[Case]:
    kinds = [(shape, handoff) for shape in (Shape(), BIG) for handoff in ("counter", "tagged", "barrier")]
    kinds += [(dataclasses.replace(BIG, sms=1), "counter"), (dataclasses.replace(BIG, max_seq=1), "tagged")]
    return [Case(f"a decoder by {handoff}, {shape}", parse(decoder(shape, handoff)), True) for shape, handoff in kinds]


@cache
def edited_decoders() -> list[Case]:
    return [Case(what, parse(edited(decoder(BIG), old, new)), False, rule) for what, old, new, rule in EDITS]


@cache
def fetches() -> list[Case]:
    """Two tasks of one family with a tile each, and a task of another one between them."""
    out = Family(1, [], [Box("o", (((0, 0, 0), (2, 0)),))], True)
    tiles = Family(2, [], [Box("p", (((0, 1, 0), (1, 0)), ((0, 0, 0), (1, 0))))], True)
    queues = [[("run", 0, 0), ("run", 1, 0), ("run", 0, 1)]]
    cases = [
        ("all tiles in order", [(0, 0), (1, 0), (0, 1)]),
        ("the last tile is another one of its family", [(0, 0), (1, 0), (0, 0)]),
        ("two tiles of a family swapped", [(0, 1), (1, 0), (0, 0)]),
        ("the last two tiles swapped", [(0, 0), (0, 1), (1, 0)]),
        ("the last tile is missing", [(0, 0), (1, 0)]),
        ("a tile too many", [(0, 0), (1, 0), (0, 1), (0, 1)]),
    ]
    return [
        Case(what, parse(Kernel(1, [tiles, out], 1, queues, [tiles_in]).text()), not n, "stream" if n else "")
        for n, (what, tiles_in) in enumerate(cases)
    ]


@cache
def tiles_of_state() -> list[Case]:
    return [Case(what, parse(kernel.text()), not rule, rule) for what, rule, kernel in tile_questions.QUESTIONS]


@cache
def tasks_and_readers() -> list[Case]:
    """Which tasks run; two tasks of one family that read the same, or write what is read together."""
    first, again = (Family(1, [], [Box("s", (((0, 0, 0), (1, 0)),))], False) for _ in range(2))
    readers = Family(2, [first.writes[0]], [Box("p", (((0, 1, 0), (1, 0)), ((0, 0, 0), (1, 0))))], False)
    out = Family(1, [], [Box("o", (((0, 0, 0), (2, 0)),))], False)
    before = [("run", 0, 0), ("run", 1, 0)]
    after = [("wait", 0, None), ("run", 2, 0), ("run", 3, 0)]
    cases = [
        ("both readers before the overwrite", "", [[*before, ("run", 1, 1), ("signal", 0)], after]),
        ("the second reader after its signal", "race", [[*before, ("signal", 0), ("run", 1, 1)], after]),
        ("a reader that does not run", "tasks", [[*before, ("signal", 0)], after]),
        (
            "a reader that runs on two SMs",
            "tasks",
            [[*before, ("run", 1, 1), ("signal", 0)], [("wait", 0, None), ("run", 1, 1), *after[1:]]],
        ),
    ]
    families = [first, readers, again, out]
    found = [
        Case(what, parse(Kernel(1, families, 1, queues, [[], []]).text()), not rule, rule)
        for what, rule, queues in cases
    ]
    # two tasks write what a third one reads
    writers = Family(2, [], [Box("p", (((0, 1, 0), (1, 0)), ((0, 0, 0), (1, 0))))], False)
    reader = Family(1, [Box("p", (((0, 0, 0), (2, 0)), ((0, 0, 0), (1, 0))))], out.writes, False)
    for what, rule, queue in [
        ("both writers before the signal", "", [("run", 0, 0), ("run", 0, 1), ("signal", 0)]),
        ("the second writer after the signal", "race", [("run", 0, 0), ("signal", 0), ("run", 0, 1)]),
    ]:
        kernel = Kernel(1, [writers, reader], 1, [queue, [("wait", 0, None), ("run", 1, 0)]], [[], []])
        found.append(Case(what, parse(kernel.text()), not rule, rule))
    return found


@cache
def limits_of_targets() -> list[Case]:
    target = TARGETS["sm_90a"]
    resident = max(target.num_sms, *(gpu.num_sms for gpu in target.gpus))
    ring = "stages = 10, bytes = 16384, in_flight = 3"

    def sms(count: int) -> KernelOp:
        return parse(decoder(dataclasses.replace(BIG, sms=count)))

    def two_stages(size: int) -> KernelOp:
        return parse(edited(decoder(BIG), ring, f"stages = 2, bytes = {size}, in_flight = 1"))

    whole = target.shared_memory_per_block // 2
    assert whole % 512 == 0
    return [
        Case("as many blocks as are resident", sms(resident), True),
        Case("a block too many", sms(resident + 1), False, "resources"),
        Case("a ring that leaves room for the activations", two_stages(whole - 512), True),
        Case("a ring that leaves none", two_stages(whole), False, "resources"),
    ]


@cache
def random_kernels() -> list[Case]:
    """The truth is what enumeration of all interleavings finds."""
    kernels = [random_kernel(random.Random(f"planted-{number}")) for number in range(KERNELS)]
    cases: list[Case] = []
    for number, (kernel, verdict) in enumerate(zip(kernels, decide(kernels), strict=True)):
        if verdict.decided:
            what = f"random kernel {number} ({verdict.problem or 'safe'})"
            deadlock = None if verdict.tags_rewritten else verdict.deadlock
            cases.append(Case(what, parse(kernel.text()), not verdict.problem, deadlock=deadlock))
    return cases


CASES: dict[str, Callable[[], list[Case]]] = {
    "orders": hand_written_orders,
    "regions": hand_written_regions,
    "tasks": tasks_and_readers,
    "fetches": fetches,
    "tiles": tiles_of_state,
    "limits": limits_of_targets,
    "decoders": safe_decoders,
    "edited decoders": edited_decoders,
    "random kernels": random_kernels,
}


BY_CLOCKS = (
    "a counter",
    "counters are transitive",
    "program order on one SM",
    "two of three signals are enough when one comes after the wait",
    "tags and a counter",
    "an overwrite after a reader's tag",
    "an overwrite after a counter",
)
"""Hand-written orders for which no blocked run is needed."""


def clocks_alone(verifier: ModuleType) -> str | None:
    """What clocks can prove they have to prove, without a blocked run: large kernels would take too long otherwise."""
    races = verifier.races
    limit, races.WORK_LIMIT = races.WORK_LIMIT, 0
    try:
        cases = [*safe_decoders(), *(c for c in hand_written_orders() if c.what in BY_CLOCKS)]
        found = (complaint(verifier.check_schedule, case) for case in cases)
        return next((c for c in found if c is not None), None)
    finally:
        races.WORK_LIMIT = limit


def complaints(verifier: ModuleType) -> Iterator[tuple[str, str]]:
    """The groups of kernels in which a verifier gives a wrong verdict, each with the first."""
    for group, cases in CASES.items():
        wrong = next((c for case in cases() if (c := complaint(verifier.check_schedule, case)) is not None), None)
        if wrong is not None:
            yield group, wrong
    if (wrong := clocks_alone(verifier)) is not None:
        yield "clocks alone", wrong
