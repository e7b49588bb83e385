"""insert-missing-sync: what it adds is enough, is needed, and leaves what was there as it was."""

import random
import re
import secrets
from copy import deepcopy
from dataclasses import replace
from functools import cache

import pytest
from decoder_kernels import Shape, decoder
from llama_kernels import ExplicitKernel, LlamaShape, graph_model, parse, queue_kernel
from schedules.random_kernels import random_kernel
from schedules.small_kernels import parse as parse_small
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import PassFailedException

from amk.dialects.queue import KernelOp, PhaseOp
from amk.dialects.schedule import Schedule
from amk.passes.graph_to_queue import GraphToQueuePass
from amk.passes.insert_missing_sync import InsertMissingSyncPass, insert_missing_sync
from amk.passes.missing_sync.edit import Edit
from amk.passes.verifier import Rule, check
from amk.passes.verifier.redundancy import redundant_waits
from amk.runtime.compile import new_context

SMALL = LlamaShape(vocab=12, hidden=8, wide=8, layers=1, heads=2, kv_heads=1, half=2, max_seq=4, tiles=2)
WIDE = replace(SMALL, vocab=18, hidden=18, wide=18, heads=8, kv_heads=4, tiles=9)


def mended(kernel: KernelOp) -> Edit:
    """What the pass adds to a kernel with races, after all that it promises was checked."""
    before = str(kernel)
    assert check(kernel)
    edit = insert_missing_sync(kernel)
    kernel.verify()
    assert check(kernel) == []
    assert edit.waits
    added = {wait for _, wait in edit.waits}
    needless = redundant_waits(Schedule.from_kernel(kernel), 100_000).waits
    assert not [str(w.op) for w in needless if w.op in added]
    # all that was there is there, in its order
    edit.undo()
    assert str(kernel) == before
    edit.apply()
    return edit


def unchanged_and_refused(kernel: KernelOp) -> str:
    """Why the pass refuses a kernel."""
    before = str(kernel)
    with pytest.raises(PassFailedException) as refused:
        insert_missing_sync(kernel)
    assert str(kernel) == before
    return str(refused.value)


# ---- the explicit form --------------------------------------------------------------------------------------------


@cache
def lowered(handoff: str, sms: int) -> ExplicitKernel:
    module = ModuleOp([parse(graph_model(SMALL)).clone()])
    GraphToQueuePass(target="reference", sms=sms, handoff=handoff).apply(new_context(), module)
    (kernel,) = [op for op in module.ops if isinstance(op, KernelOp)]
    return ExplicitKernel.of(str(kernel))


LOWERINGS = {
    "counter": lambda: lowered("counter", 3),
    "auto": lambda: lowered("auto", 2),
    "by hand": lambda: ExplicitKernel.of(queue_kernel(SMALL, 3)),
    "by hand, tagged": lambda: ExplicitKernel.of(queue_kernel(SMALL, 2, True)),
    "many tasks a phase": lambda: ExplicitKernel.of(queue_kernel(WIDE, 3)),
}


def without_waits(kernel: ExplicitKernel, rng: random.Random) -> tuple[ExplicitKernel, int]:
    """The kernel without some of its waits, and how many."""
    waits = [(sm, at) for sm, body in enumerate(kernel.bodies) for at, event in enumerate(body) if "wait" in event]
    gone = rng.sample(waits, rng.choice([1, min(3, len(waits)), rng.randint(1, len(waits))]))
    mutant = deepcopy(kernel)
    for sm, at in sorted(gone, reverse=True):
        del mutant.bodies[sm][at]
    return mutant, len(gone)


@pytest.mark.parametrize("name", LOWERINGS)
def test_dropped_waits_of_lowerings(name: str):
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(3):
        kernel = without_waits(LOWERINGS[name](), rng)[0].parse()
        if check(kernel):
            mended(kernel)


@pytest.mark.parametrize("name", LOWERINGS)
def test_few_waits_are_added(name: str):
    """A task may get a wait of its own where one for its whole phase was dropped, but rarely does."""
    rng = random.Random(name)
    dropped = added = 0
    for _ in range(4):
        mutant, count = without_waits(LOWERINGS[name](), rng)
        kernel = mutant.parse()
        if check(kernel):
            dropped += count
            added += len(insert_missing_sync(kernel).waits)
    assert 0 < added <= 1.25 * dropped + 1


@pytest.mark.parametrize("name", LOWERINGS)
def test_lowered_thresholds(name: str):
    """A wait for too few signals stays as it is; what it misses is added."""
    mutant = deepcopy(LOWERINGS[name]())
    for body in mutant.bodies:
        for at, event in enumerate(body):
            if (match := re.fullmatch(r"(queue.wait .* >= )(\d+)", event)) and int(match[2]) > 1:
                body[at] = f"{match[1]}{int(match[2]) - 1}"
    kernel = mutant.parse()
    assert {d.rule for d in check(kernel)} == {Rule.RACE}
    mended(kernel)


@pytest.mark.parametrize("name", LOWERINGS)
def test_no_synchronisation_at_all(name: str):
    """From the tasks alone: no more than a wait for each task."""
    mutant = deepcopy(LOWERINGS[name]())
    mutant.bodies = [[event for event in body if "run" in event] for body in mutant.bodies]
    edit = mended(mutant.parse())
    assert edit.signals
    assert len(edit.waits) < sum(map(len, mutant.bodies))


HANDED_ROUND = """queue.kernel @k target "reference" sms 3 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<6xf32>
  task.buffer @a scratch : tensor<6xf32>
  task.buffer @out output : tensor<6xf32>
  task.family @put (i = 3) {
    %v = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %v, @a[i*2 : 2] : tensor<2xf32>
  }
  task.family @get (i = 3) {
    %v = task.load @a[0 : 6] : tensor<6xf32>
    %o = task.load @in[i*2 : 2] : tensor<2xf32>
    task.store %o, @out[i*2 : 2] : tensor<2xf32>
  }
"""


def handed_round(*bodies: str, counters: str = "") -> KernelOp:
    programs = "".join(f"queue.program sms {n} to {n + 1} stream {{}} body {{ {b} }}\n" for n, b in enumerate(bodies))
    return parse(f"{HANDED_ROUND}{counters}{programs}}}")


def test_readers_share_signals():
    """Three readers of three tiles: one signal a tile, one wait a reader, none for what follows."""
    edit = mended(handed_round(*(f"queue.run @put[{i}] queue.run @get[{i}]" for i in range(3))))
    assert (len(edit.counters), len(edit.signals), len(edit.waits)) == (1, 3, 3)
    later = "queue.run @put[0] queue.run @get[0] queue.run @get[1] queue.run @get[2]"
    edit = mended(handed_round(later, "queue.run @put[1]", "queue.run @put[2]"))
    assert (len(edit.counters), len(edit.signals), len(edit.waits)) == (1, 2, 1)


def test_what_follows_from_others_is_not_added():
    """SM 2 hears of @put[0] from SM 1, which waited for it."""
    bodies = (
        "queue.run @put[0] queue.signal @c[0]",
        "queue.wait @c[0] all queue.run @put[1] queue.run @get[0]",
        "queue.run @put[2] queue.run @get[1] queue.run @get[2]",
    )
    edit = mended(handed_round(*bodies, counters="queue.counter @c[1]\n"))
    assert sorted(str(op) for op in edit.operations) == [
        "queue.counter @put_done[2]",
        "queue.signal @put_done[0]",
        "queue.signal @put_done[1]",
        "queue.wait @put_done[0] all",
        "queue.wait @put_done[1] all",
    ]


def test_a_counter_that_is_there_is_used():
    bodies = [f"queue.run @put[{i}] queue.signal @c[0] queue.run @get[{i}]" for i in range(3)]
    edit = mended(handed_round(*bodies, counters="queue.counter @c[1]\n"))
    assert [str(op) for op in edit.operations] == ["queue.wait @c[0] all"] * 3


def test_state_is_ordered_without_a_deadlock():
    """Two writers and a reader of the same row, on three SMs: any order will do, a cycle will not."""
    text = """queue.kernel @k target "reference" sms 3 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<2xf32>
  task.buffer @s state : tensor<4x2xf32>
  task.buffer @out output : tensor<2xf32>
  task.family @first () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @s[pos, 0 : 2] : tensor<2xf32>
  }
  task.family @second () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @s[pos, 0 : 2] : tensor<2xf32>
  }
  task.family @get () {
    %v = task.load @s[pos, 0 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }
  queue.program sms 0 to 1 stream {} body { queue.run @get[] }
  queue.program sms 1 to 2 stream {} body { queue.run @first[] }
  queue.program sms 2 to 3 stream {} body { queue.run @second[] }
}"""
    edit = mended(parse(text))
    assert len(edit.waits) == 2


# ---- the compact form ---------------------------------------------------------------------------------------------

HANDOFFS = ("counter", "tagged", "barrier")


def waits_in(text: str) -> list[str]:
    return re.findall(r" *queue\.wait .*\n", text)


def without(text: str, numbers: list[int]) -> str:
    parts = re.split(r"( *queue\.wait .*\n)", text)
    return "".join(part for at, part in enumerate(parts) if at % 2 == 0 or at // 2 not in numbers)


@pytest.mark.parametrize("handoff", HANDOFFS)
def test_dropped_waits_of_a_decoder(handoff):
    """No more waits are added than were dropped; with their counter and its signals there, nothing else is."""
    text = decoder(Shape(), handoff)
    count = len(waits_in(text))
    for gone in [*([n] for n in range(count)), list(range(count))]:
        edit = mended(parse(without(text, gone)))
        assert len(edit.waits) <= len(gone)
        if handoff != "barrier":
            assert not edit.counters
            assert not edit.signals


@pytest.mark.parametrize("handoff", HANDOFFS)
def test_dropped_signals_of_a_decoder(handoff):
    text = decoder(Shape(), handoff)
    signals = re.findall(r" *queue\.signal .*\n", text)
    mending = 0
    for signal in signals:
        kernel = parse(text.replace(signal, "", 1))
        if {d.rule for d in check(kernel)} == {Rule.RACE}:
            mending += 1
            assert len(mended(kernel).waits) <= 2
    assert mending or handoff == "barrier"  # there every dropped signal is missed by some threshold


def bare(text: str) -> str:
    return re.sub(r" *queue\.(wait|signal) .*\n", "", text)


def test_the_ir_does_not_grow_with_the_model():
    small, large = (bare(decoder(s)) for s in (Shape(), replace(Shape(), layers=6, heads=8, kv_heads=2, sms=5, mlp=64)))
    edits = [mended(parse(text)) for text in (small, large)]
    assert len(edits[0].operations) == len(edits[1].operations) == 19
    names = [[str(op) for op in (*(w for _, w in e.waits), *(s for _, s in e.signals))] for e in edits]
    assert [re.sub(r"\[\d+\]", "[]", n) for n in names[0]] == [re.sub(r"\[\d+\]", "[]", n) for n in names[1]]


def test_operations_that_are_executed_once_by_many_sms():
    """Every run has one task, but the SMs without it execute the waits and signals around it too."""
    text = """queue.kernel @k target "reference" sms 3 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<2xf32>
  task.buffer @a scratch : tensor<2xf32>
  task.buffer @out output : tensor<2xf32>
  task.family @put () {
    %v = task.load @in[0 : 2] : tensor<2xf32>
    task.store %v, @a[0 : 2] : tensor<2xf32>
  }
  task.family @get () {
    %v = task.load @a[0 : 2] : tensor<2xf32>
    task.store %v, @out[0 : 2] : tensor<2xf32>
  }
  queue.program sms 0 to 3 stream {} body {
    queue.run @put[] on cyclic 0
    queue.run @get[] on cyclic 1
  }
}"""
    edit = mended(parse(text))
    assert (len(edit.counters), len(edit.signals), len(edit.waits)) == (1, 1, 1)


def test_runs_of_one_phase_that_depend_on_each_other():
    """A phase is not enough: waits and signals go between its runs."""
    text, count = re.subn(r" *}\s*queue\.phase {\s*(?=queue\.run @down)", "      ", bare(decoder()))
    assert count == 1
    kernel = parse(text)
    (phase,) = [op for op in kernel.walk() if isinstance(op, PhaseOp) and "down" in str(op)]
    edit = mended(kernel)
    up, down = phase.runs
    assert up in [anchor for anchor, _ in edit.signals]
    assert down in [anchor for anchor, _ in edit.waits]


# ---- refusals -----------------------------------------------------------------------------------------------------


def test_safe_kernels_stay_as_they_are():
    for text in (decoder(), queue_kernel(SMALL, 3)):
        module = ModuleOp([parse(text).clone()])
        before = str(module)
        InsertMissingSyncPass().apply(new_context(), module)
        assert str(module) == before


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("@m_done[layer] all", "@m_done[layer] >= 4", "waits mend races, not deadlock"),
        ("@m[layer, 0 : 1, tile*4 : 4]", "@m[layer, 0 : 1, tile*3 : 4]", "waits mend races, not written-once"),
        ("queue.run @down[layer] on cyclic 0", "queue.run @down[layer] on cyclic 1", "waits mend races, not stream"),
        ("      queue.run @o[layer] on cyclic 0\n", "      queue.run @o[0] on cyclic 0\n", "waits mend races, not tasks"),
        ("%r, @kc[layer, pos : 1,", "%r, @kc[layer, 0 : 1,", "or streams after it: move tasks"),
        ("    task.store %r, @kc[layer, pos : 1, head, 0 : 2, part*4 : 4] : tensor<1x2x4xf32>\n", "", "it still has coverage"),
    ],
)  # fmt: skip
def test_what_waits_cannot_mend(old: str, new: str, why: str):
    text = decoder()
    assert old in text
    refused = unchanged_and_refused(parse(text.replace(old, new)))
    assert why in refused
    assert "\n  to fix: " in refused


def test_a_read_before_the_write_on_the_same_sm():
    refused = unchanged_and_refused(handed_round("queue.run @get[0] queue.run @get[1] queue.run @get[2] "
                                                 "queue.run @put[0] queue.run @put[1] queue.run @put[2]"))  # fmt: skip
    assert "in every order of execution some task reads before the write" in refused


def test_tasks_of_one_run_that_depend_on_each_other():
    """No place in a loop is between the tasks of one run: each of them spelled out has one."""
    text = """queue.kernel @k target "reference" sms 2 max_seq 4 tokens 1 {
  task.buffer @in input : tensor<4xf32>
  task.buffer @a scratch : tensor<4xf32>
  task.buffer @out output : tensor<1xf32>
  task.family @put () {
    %v = task.load @in[0 : 1] : tensor<1xf32>
    task.store %v, @a[0 : 1] : tensor<1xf32>
  }
  task.family @pass (i = 3) {
    %v = task.load @a[i : 1] : tensor<1xf32>
    task.store %v, @a[i + 1 : 1] : tensor<1xf32>
  }
  task.family @get () {
    %v = task.load @a[3 : 1] : tensor<1xf32>
    task.store %v, @out[0 : 1] : tensor<1xf32>
  }
  queue.program sms 0 to 2 stream {} body {
    queue.phase { queue.run @put[] on cyclic 0 }
    queue.phase { queue.run @pass[] on cyclic 1 }
    queue.phase { queue.run @get[] on cyclic 0 }
  }
}"""
    assert "run expand-queues first" in unchanged_and_refused(parse(text))
    edit = mended(ExplicitKernel.of(text).parse())
    assert len(edit.waits) == 4


# ---- random kernels -----------------------------------------------------------------------------------------------


def test_random_kernels():
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    done = 0
    for number in range(400):
        text = random_kernel(random.Random(f"{seed}-{number}")).text()
        try:
            edit = insert_missing_sync(parse_small(text))
        except PassFailedException:
            continue
        if edit.waits:
            print(text)
            mended(parse_small(text))
            done += 1
            if done == 15:
                return
    pytest.fail(f"only {done} kernels of the generator can be mended")
