"""The three levels mean the same: graph, task (tiles in any order) and queue (any interleaving) give equal logits."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_kernels import LlamaShape, RandomWeights, graph_model, parse, queue_kernel, task_program, weight_shapes

from amk.amk_ir.dtypes import round_to_bf16
from amk.amk_ir.errors import UsageError
from amk.backends.reference.graph_interpreter import GraphInterpreter
from amk.backends.reference.interleavings import Priority, RoundRobin, Seeded, adversarial, parse_interleaving
from amk.backends.reference.queue_interpreter import QueueInterpreter
from amk.backends.reference.task_interpreter import TaskInterpreter
from amk.dialects.schedule import EventKind

SHAPES = {
    "gqa": LlamaShape(),
    "mha": LlamaShape(kv_heads=4, tiles=2),
    "mqa": LlamaShape(heads=3, kv_heads=1, half=8, tiles=1),
    "two_tokens": LlamaShape(tokens=2),
    "bf16": LlamaShape(element="bf16"),
    "ragged": LlamaShape(vocab=41, hidden=23, wide=37, tiles=4),
    "one_layer": LlamaShape(layers=1, max_seq=4),
}

weights = cache(lambda shape: RandomWeights(weight_shapes(shape)))


def run(interpreter, shape: LlamaShape, seed: int = 0) -> np.ndarray:
    """Logits of all positions for a random text."""
    ids = np.random.default_rng(seed).integers(0, shape.vocab, shape.max_seq)
    logits = []
    for pos in range(0, shape.max_seq - shape.tokens + 1, shape.tokens):
        result = interpreter.step(ids[pos : pos + shape.tokens], pos)
        assert np.array_equal(result.next_tokens, result.logits.argmax(-1))
        logits.append(result.logits)
    return np.concatenate(logits)


@cache
def graph_logits(shape: LlamaShape) -> np.ndarray:
    return run(GraphInterpreter(parse(graph_model(shape)), weights(shape)), shape)


def assert_equal_logits(actual: np.ndarray, shape: LlamaShape) -> None:
    expected = graph_logits(shape)
    # the same values rounded to bf16 may fall on either side of a tie after sums in another order
    tolerance = 2e-2 if shape.element == "bf16" else 1e-5
    assert np.linalg.norm(actual - expected) < tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("seed", [None, 0, 1])
def test_tasks_compute_the_graph(shape, seed):
    assert_equal_logits(run(TaskInterpreter(parse(task_program(shape)), weights(shape), seed=seed), shape), shape)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("tagged", [False, True])
def test_a_kernel_computes_the_graph(shape, tagged):
    assert_equal_logits(run(QueueInterpreter(parse(queue_kernel(shape, 4, tagged)), weights(shape)), shape), shape)


def test_unchecked_steps_repeat_the_first():
    shape = SHAPES["gqa"]
    kernel = parse(queue_kernel(shape, 3, tagged=True))
    checked = QueueInterpreter(kernel, weights(shape))
    unchecked = QueueInterpreter(kernel, weights(shape), checked=False)
    assert np.array_equal(run(checked, shape), run(unchecked, shape))
    assert checked.counters == unchecked.counters
    unchecked.reset()
    assert np.array_equal(run(checked_again := QueueInterpreter(kernel, weights(shape)), shape), run(unchecked, shape))
    assert checked_again.epoch == unchecked.epoch


def test_unchecked_tasks_compute_the_same():
    shape = SHAPES["ragged"]
    program = parse(task_program(shape))
    both = [TaskInterpreter(program, weights(shape), checked=checked) for checked in (False, True)]
    assert np.array_equal(run(both[0], shape), run(both[1], shape))


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    sms=st.integers(1, 7),
    tagged=st.booleans(),
    placement=st.sampled_from(["cyclic", "blocked"]),
)
def test_every_interleaving_gives_the_same_bits(seed, sms, tagged, placement):
    shape = replace(SHAPES["gqa"], max_seq=3)
    kernel = parse(queue_kernel(shape, sms, tagged, placement))
    expected = run(QueueInterpreter(parse(queue_kernel(shape, 1)), weights(shape)), shape)
    assert np.array_equal(run(QueueInterpreter(kernel, weights(shape), interleaving=Seeded(seed)), shape), expected)


@pytest.mark.parametrize("tagged", [False, True])
def test_adversarial_interleavings_give_the_same_bits(tagged):
    shape = replace(SHAPES["gqa"], max_seq=3)
    kernel = parse(queue_kernel(shape, 4, tagged))
    expected = run(QueueInterpreter(kernel, weights(shape)), shape)
    for interleaving in adversarial(4):
        actual = run(QueueInterpreter(kernel, weights(shape), interleaving=interleaving), shape)
        assert np.array_equal(actual, expected), str(interleaving)


def test_bf16_weights_and_caches_are_rounded():
    shape = SHAPES["bf16"]
    interpreter = QueueInterpreter(parse(queue_kernel(shape)), weights(shape))
    interpreter.step([1], 0)
    for name in ("gate", "embed"):
        array = interpreter.memory.arrays[name]
        assert np.array_equal(array, round_to_bf16(array))
    keys = interpreter.memory.arrays["k_cache"][:, 0]
    assert np.array_equal(keys, round_to_bf16(keys))
    query = interpreter.memory.arrays["query"]
    assert not np.array_equal(query, round_to_bf16(query))


class TestInterleavings:
    """Who is chosen; `next_kind` is as the table below says."""

    kinds = {0: EventKind.RUN, 1: EventKind.SIGNAL, 2: EventKind.WAIT, 3: EventKind.RUN}

    def choose(self, interleaving, *ready: int) -> int:
        return interleaving.choose(ready, self.kinds.__getitem__)

    def test_round_robin_goes_round(self):
        order = RoundRobin()
        assert [self.choose(order, 0, 1, 3) for _ in range(4)] == [0, 1, 3, 0]
        assert self.choose(order, 2, 3) == 2

    def test_seeded_repeats_itself(self):
        one, other = ([self.choose(order, 0, 1, 2, 3) for _ in range(50)] for order in (Seeded(7), Seeded(7)))
        assert one == other
        assert set(one) == {0, 1, 2, 3}

    def test_priority_runs_ahead_and_starves(self):
        order = Priority((2, 0, 3, 1))
        assert self.choose(order, 0, 1, 2, 3) == 2
        assert self.choose(order, 1, 3) == 3

    def test_late_signals(self):
        order = Priority((1, 0, 2, 3), late_signals=True)
        assert self.choose(order, 1, 3) == 3
        assert self.choose(order, 1) == 1

    def test_adversarial_starves_each_and_lets_each_run_ahead(self):
        orders = [o.order for o in adversarial(4)]
        assert {o[0] for o in orders} == {o[-1] for o in orders} == {0, 1, 2, 3}
        assert len(list(adversarial(1))) > 0

    def test_names(self):
        assert str(parse_interleaving("round-robin", 4)) == "round-robin"
        assert str(parse_interleaving("seeded:3", 4)) == "seeded 3"
        assert isinstance(parse_interleaving("adversarial:100", 4), Priority)
        for wrong in ("", "seeded", "seeded:x", "fair:1", "round-robin:2"):
            with pytest.raises(UsageError, match="expected round-robin, seeded:N or adversarial:N"):
                parse_interleaving(wrong, 4)
