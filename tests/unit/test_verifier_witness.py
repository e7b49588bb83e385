"""Every rejection comes with an execution that goes wrong, and the reference backend shows it happening."""

import random
import re
import secrets
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
from decoder_kernels import LLAMA_8B, Shape, decoder
from llama_kernels import ExplicitKernel, LlamaShape, graph_model, parse, queue_kernel
from schedules.random_kernels import random_kernel, whole
from schedules.small_kernels import Family, Kernel
from schedules.small_kernels import parse as parse_small
from schedules.tile_questions import QUESTIONS
from xdsl.dialects.builtin import ModuleOp

from amk.amk_ir.errors import UsageError
from amk.backends.reference.replay import replay
from amk.dialects.queue import KernelOp
from amk.dialects.schedule import Schedule
from amk.passes.graph_to_queue import GraphToQueuePass
from amk.passes.verifier import Diagnostic, FailureKind, Rule, Witness, check
from amk.passes.verifier.machine import Machine
from amk.passes.verifier.redundancy import redundant_waits
from amk.runtime.compile import new_context

SMALL = LlamaShape(vocab=12, hidden=8, wide=8, layers=1, heads=2, kv_heads=1, half=2, max_seq=4, tiles=2)


def replayed(kernel: KernelOp) -> list[Diagnostic]:
    """The diagnostics of a kernel, after each witness was replayed and showed its failure."""
    diagnostics = check(kernel)
    at_fault = [d for d in diagnostics if d.failure is not None]
    witnesses = [d.witness for d in at_fault if d.witness is not None]
    assert len(witnesses) > 0 or not at_fault, "\n".join(map(str, at_fault))
    for witness in witnesses:
        assert Witness.from_text(witness.to_text()) == witness
        outcome = replay(kernel, witness)
        assert outcome.reproduced, f"{witness}\n{outcome.text}"
    return diagnostics


# ---- mutants of lowerings -----------------------------------------------------------------------------------------


@cache
def lowered(handoff: str, sms: int) -> ExplicitKernel:
    """What the passes make of a small model, spelled out."""
    module = ModuleOp([parse(graph_model(SMALL)).clone()])
    GraphToQueuePass(target="reference", sms=sms, handoff=handoff).apply(new_context(), module)
    (kernel,) = [op for op in module.ops if isinstance(op, KernelOp)]
    return ExplicitKernel.of(str(kernel))


@cache
def written(tagged: bool, sms: int) -> ExplicitKernel:
    return ExplicitKernel.of(queue_kernel(SMALL, sms, tagged))


KERNELS = {
    "counter": lambda: lowered("counter", 3),
    "auto": lambda: lowered("auto", 2),
    "by hand": lambda: written(False, 3),
    "by hand, tagged": lambda: written(True, 2),
}


def dropped(kernel: ExplicitKernel, what: str) -> Iterator[tuple[str, ExplicitKernel]]:
    for sm, body in enumerate(kernel.bodies):
        for at, event in enumerate(body):
            if event.startswith(what):
                mutant = deepcopy(kernel)
                del mutant.bodies[sm][at]
                yield f"SM {sm} without {at}: {event}", mutant


def wrong_thresholds(kernel: ExplicitKernel) -> Iterator[tuple[str, ExplicitKernel]]:
    for sm, body in enumerate(kernel.bodies):
        for at, event in enumerate(body):
            if event.startswith("queue.wait"):
                counter, _, threshold = event.rpartition(" ")
                for change in (-1, 1):
                    mutant = deepcopy(kernel)
                    mutant.bodies[sm][at] = f"{counter} {max(1, int(threshold) + change)}"
                    yield f"SM {sm}: {mutant.bodies[sm][at]}", mutant


def swapped(kernel: ExplicitKernel, part: str) -> Iterator[tuple[str, ExplicitKernel]]:
    for sm, queue in enumerate(getattr(kernel, part)):
        for at in range(len(queue) - 1):
            mutant = deepcopy(kernel)
            mine = getattr(mutant, part)[sm]
            mine[at], mine[at + 1] = mine[at + 1], mine[at]
            yield f"SM {sm}: {mine[at]} before {mine[at + 1]}", mutant


def doubled(kernel: ExplicitKernel) -> Iterator[tuple[str, ExplicitKernel]]:
    for sm, body in enumerate(kernel.bodies):
        for at, event in enumerate(body):
            if event.startswith("queue.run"):
                for other in {sm, (sm + 1) % len(kernel.bodies)}:
                    mutant = deepcopy(kernel)
                    mutant.bodies[other].insert(min(at + 1, len(mutant.bodies[other])), event)
                    yield f"SM {other}: {event} again", mutant


MUTATIONS = {
    "a dropped wait": lambda k: dropped(k, "queue.wait"),
    "a dropped signal": lambda k: dropped(k, "queue.signal"),
    "a dropped run": lambda k: dropped(k, "queue.run"),
    "a doubled run": doubled,
    "a wrong threshold": wrong_thresholds,
    "swapped events": lambda k: swapped(k, "bodies"),
    "swapped fetches": lambda k: swapped(k, "streams"),
}
UNSAFE = {
    "a dropped run": {Rule.TASKS, Rule.STREAM},
    "a doubled run": {Rule.TASKS, Rule.STREAM},
    "swapped fetches": {Rule.STREAM},
}
"""Mutations that no schedule survives, with what is said of them."""

PER_CLASS = 10


@pytest.mark.parametrize("mutation", MUTATIONS)
@pytest.mark.parametrize("name", KERNELS)
def test_every_broken_lowering_has_a_witness(name: str, mutation: str):
    kernel = KERNELS[name]()
    mutants = list(MUTATIONS[mutation](kernel))
    if not mutants:
        pytest.skip("nothing to change")
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    for what, mutant in random.Random(seed).sample(mutants, min(PER_CLASS, len(mutants))):
        print(what)
        rules = {d.rule for d in replayed(mutant.parse())}
        if mutation in UNSAFE:
            assert rules, what
            assert rules <= UNSAFE[mutation], what


@pytest.mark.parametrize("name", KERNELS)
def test_the_kernels_themselves_are_safe(name: str):
    assert check(KERNELS[name]().parse()) == []


# ---- random kernels -----------------------------------------------------------------------------------------------


def test_random_kernels():
    """Those of the enumeration oracle: partial thresholds, tags, state, overlapping writes, two tokens a step."""
    seed = secrets.randbits(32)
    unsafe = 0
    for number in range(150):
        print(f"random_kernel(random.Random('{seed}-{number}'))")
        unsafe += bool(replayed(parse_small(random_kernel(random.Random(f"{seed}-{number}")).text())))
    assert unsafe > 20


KEPT = "    task.store %r, @kc[layer, pos : 1, head, 0 : 2, part*4 : 4] : tensor<1x2x4xf32>\n"
"""What keeps this step's keys for later ones."""


# ---- kinds of failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "failure"),
    [
        ("      queue.wait @a_done[layer] all\n", "", FailureKind.UNSEEN_WRITE),
        ("      queue.wait @qkv_done[layer] all\n", "", FailureKind.UNSEEN_WRITE),
        ("task.store %y, @vc[layer,", "task.store %y, @kc[layer,", FailureKind.UNORDERED),
        ("@m_done[layer] all", "@m_done[layer] >= 4", FailureKind.DEADLOCK),
        ("@m[layer, 0 : 1, tile*4 : 4]", "@m[layer, 0 : 1, tile*3 : 4]", FailureKind.REWRITE),
        (KEPT, "", FailureKind.UNWRITTEN_READ),
        ("task.store %y, @logits[0 : 1, tile*8 : 8]", "task.store %y, @logits[0 : 1, 0 : 8]", FailureKind.UNWRITTEN_OUTPUT),
        ("      queue.run @o[layer] on cyclic 0\n", "      queue.run @o[0] on cyclic 0\n", FailureKind.MISSING_TASK),
        ("      queue.run @o[layer] on cyclic 0\n", "      queue.run @o[0] on cyclic 0\n", FailureKind.REPEATED_TASK),
        ("queue.run @down[layer] on cyclic 0", "queue.run @down[layer] on blocked 0", FailureKind.STREAM),
    ],
)  # fmt: skip
def test_failures_of_a_decoder(old: str, new: str, failure: FailureKind):
    text = decoder(Shape())
    assert old in text
    diagnostics = replayed(parse(text.replace(old, new)))
    assert failure in {d.witness.failure for d in diagnostics if d.witness is not None}


def test_a_kernel_that_does_not_fit_has_no_witness():
    (diagnostic,) = check(parse(decoder().replace("stages = 10, bytes = 16384", "stages = 14, bytes = 16896")))
    assert diagnostic.rule is Rule.RESOURCES
    assert diagnostic.failure is None
    assert diagnostic.witness is None


def streaming(*body) -> Kernel:
    """A task that streams, alone on an SM whose stream has one fetch too many."""
    return Kernel(1, [Family(1, [], [whole("o")], True)], 1, [[*body, ("run", 0, 0)]], [[(0, 0), (0, 0)]])


def test_a_fetch_that_is_left_over():
    (diagnostic,) = replayed(parse_small(streaming().text()))
    assert diagnostic.witness is not None
    assert diagnostic.witness.failure is FailureKind.STREAM


def test_a_fetch_that_is_left_over_on_an_sm_that_never_finishes():
    """The deadlock is what happens."""
    diagnostics = replayed(parse_small(streaming(("wait", 0, 1)).text()))
    assert {d.rule for d in diagnostics} == {Rule.STREAM, Rule.DEADLOCK}
    assert {d.witness.failure for d in diagnostics if d.witness is not None} == {FailureKind.DEADLOCK}


def test_without_a_ring_there_is_nothing_to_replay():
    text = streaming().text()
    ring = "ring #amk.ring<stages = 1, bytes = 512, in_flight = 1> "
    assert ring in text
    diagnostics = check(parse_small(text.replace(ring, "")))
    assert [d.rule for d in diagnostics] == [Rule.STREAM, Rule.STREAM]
    assert [d.failure for d in diagnostics] == [None, None]


def test_state_written_by_earlier_steps_is_there():
    """The failure is at a later position: there, a row of an earlier step should be."""
    assert KEPT in decoder()
    diagnostics = replayed(parse(decoder().replace(KEPT, "")))
    assert diagnostics
    assert all(d.witness is not None and d.witness.position > 0 for d in diagnostics)


def test_a_witness_has_only_what_the_failure_needs():
    text = decoder(LLAMA_8B).replace("      queue.wait @qkv_done[layer] all\n", "")
    diagnostic = check(parse(text))[0]
    assert diagnostic.witness is not None
    assert len(diagnostic.witness.orders[0]) < 20


def test_orders_are_executions():
    """Every order that the search makes of a kernel is one that the reference backend accepts, to the end."""
    kernel = parse(queue_kernel(SMALL, 3, True))
    machine = Machine(Schedule.from_kernel(kernel), 0)
    order = machine.execute()
    assert sorted(order) == list(range(len(machine)))
    for event in random.Random(0).sample(order, 10):
        past = machine.past(order[: order.index(event) + 1], [event])
        assert past[-1] == event
        assert machine.execute(past)[: len(past)] == past
        without = machine.execute(never=event)
        assert event not in without


# ---- replays that show nothing ------------------------------------------------------------------------------------


def race() -> tuple[KernelOp, Witness]:
    kernel = parse(decoder().replace("@m_done[layer] all", "@m_done[layer] >= 2"))
    (diagnostic,) = check(kernel)
    assert diagnostic.witness is not None
    return kernel, diagnostic.witness


def test_a_witness_of_another_kernel_is_refused():
    _, witness = race()
    with pytest.raises(UsageError, match="another schedule"):
        replay(parse(decoder()), witness)


def test_a_forged_witness_shows_nothing():
    """The failure has to happen: the right kernel and a claim are not enough."""
    kernel = parse(decoder())
    _, witness = race()
    from amk.passes.verifier.check import content_hash

    forged = replace(witness, digest=content_hash(kernel))
    outcome = replay(kernel, forged)
    assert not outcome.reproduced
    assert "is blocked at queue.wait @m_done[0]" in outcome.text


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"orders": ((),)}, "the order ends without"),
        ({"orders": ((0,) * 1000,)}, "cannot happen: SM 0 is blocked"),
        ({"failure": FailureKind.DEADLOCK, "parties": ()}, "is not a whole execution"),
        ({"buffer": "logits", "box": ((0, 1), (0, 1))}, "does not write @logits"),
        ({"failure": FailureKind.MISSING_TASK, "parties": (), "task": "@argmax[]"}, "is not a whole execution"),
    ],
)
def test_what_does_not_happen_is_not_reproduced(changes, text: str):
    kernel, witness = race()
    outcome = replay(kernel, replace(witness, **changes))
    assert not outcome.reproduced
    assert text in outcome.text


def early_load() -> tuple[KernelOp, Witness]:
    """SM 0 streams rows of which SM 1 replaces one."""
    (text,) = [kernel.text() for what, _, kernel in QUESTIONS if what == "a row is replaced on another SM at any time"]
    kernel = parse_small(text)
    (diagnostic,) = check(kernel)
    assert diagnostic.witness is not None
    assert diagnostic.witness.failure is FailureKind.EARLY_LOAD
    return kernel, diagnostic.witness


def test_a_load_that_comes_too_early_finds_another_value():
    kernel, witness = early_load()
    outcome = replay(kernel, witness)
    assert outcome.reproduced
    values = re.search(r"it finds (\S+) if the ring has loaded it at the beginning of the step, (\S+) if", outcome.text)
    assert values is not None, outcome.text
    assert values[1] != values[2]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda w: {"orders": ((0,),)}, "the order does not hold"),
        (lambda w: {"orders": ((1, 1),)}, "the order ends without"),
        (lambda w: {"orders": ((),)}, "the order ends without"),
        (lambda w: {"parties": w.parties[::-1]}, "does not write @s"),
        (lambda w: {"parties": (w.parties[0], w.parties[0])}, "does not stream @s"),
    ],
)
def test_a_load_that_does_not_come_too_early_is_not_reproduced(change, text: str):
    kernel, witness = early_load()
    outcome = replay(kernel, replace(witness, **change(witness)))
    assert not outcome.reproduced
    assert text in outcome.text


@pytest.mark.parametrize(
    "changes",
    [
        {"orders": ((99,),)},
        {"buffer": "nonsense"},
        {"buffer": "wo"},
        {"box": ((0, 1),)},
        {"box": ((0, 1), (0, 1), (0, 10**9))},
        {"position": 10**6},
        {"sm": 99},
        {"failure": FailureKind.MISSING_TASK, "parties": (), "task": "nonsense"},
    ],
)
def test_a_witness_of_what_is_not_there_is_refused(changes):
    kernel, witness = race()
    with pytest.raises(UsageError):
        replay(kernel, replace(witness, **changes))


# ---- waits that are not needed ------------------------------------------------------------------------------------


def test_redundant_waits():
    text = decoder().replace(
        "queue.wait @a_done[layer] all\n", "queue.wait @a_done[layer] all\n queue.wait @qkv_done[layer] >= 1\n"
    )
    found = redundant_waits(Schedule.from_kernel(parse(text)), 100)
    assert [str(w.op) for w in found.waits] == ["queue.wait @qkv_done[layer] >= 1"]
    assert found.tried == found.total == 8
    assert found.waits[0].events > 1
    few = redundant_waits(Schedule.from_kernel(parse(text)), 2)
    assert (few.tried, few.total) == (2, 8)
