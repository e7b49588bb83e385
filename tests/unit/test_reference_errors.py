"""Executions that the semantics forbid are found, and the error says which: deadlocks, unwritten elements, the ring."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import pytest
from llama_kernels import (
    ExplicitKernel,
    LlamaShape,
    RandomWeights,
    graph_model,
    parse,
    queue_kernel,
    task_program,
    weight_shapes,
)
from xdsl.dialects.builtin import DYNAMIC_INDEX, TensorType, f32
from xdsl.utils.test_value import create_ssa_value

from amk.amk_ir.errors import CheckpointError, ExecutionError, ScheduleError
from amk.amk_ir.linear import Linear
from amk.backends.reference.graph_interpreter import GraphInterpreter
from amk.backends.reference.interleavings import Priority, adversarial
from amk.backends.reference.queue_interpreter import QueueInterpreter
from amk.backends.reference.task_interpreter import TaskInterpreter
from amk.backends.reference.tasks import _attention, _attention_part
from amk.dialects.task import AttentionOp, AttentionPartOp
from amk.passes.verify_schedule import verify

SHAPE = LlamaShape(max_seq=4)
WEIGHTS = RandomWeights(weight_shapes(SHAPE))


spelled_out = cache(lambda tagged: ExplicitKernel.of(queue_kernel(SHAPE, 3, tagged)))


@pytest.fixture
def explicit() -> ExplicitKernel:
    return deepcopy(spelled_out(False))


@pytest.fixture
def tagged() -> ExplicitKernel:
    return deepcopy(spelled_out(True))


def run(kernel: ExplicitKernel, **options) -> QueueInterpreter:
    interpreter = QueueInterpreter(kernel.parse(), WEIGHTS, **options)
    interpreter.step([1], 0)
    interpreter.step([2], 1)
    return interpreter


def test_the_explicit_form_means_the_same(explicit, tagged):
    compact = QueueInterpreter(parse(queue_kernel(SHAPE, 3)), WEIGHTS)
    compact.step([1], 0)
    compact.step([2], 1)
    for kernel in (explicit, tagged):
        assert np.array_equal(run(kernel).memory.arrays["logits"], compact.memory.arrays["logits"])


def test_a_missing_signal_is_a_deadlock(explicit):
    explicit.bodies[1].remove("queue.signal @qkv_done[1]")
    with pytest.raises(ExecutionError) as caught:
        run(explicit)
    message = str(caught.value)
    assert message.startswith("deadlock at position 0, 0 SMs have finished; SM 0 at event ")
    assert message.count("waits for 3 signals of @qkv_done[1], which has had 2 of the 2 in a step") == 2
    assert "SM 2 at event " in message
    assert "\n" not in message


def test_a_wait_for_a_task_behind_it_is_a_deadlock(tagged):
    body = tagged.bodies[0]
    at = body.index("queue.run @down_proj[0, 0]")
    body.append(body.pop(at))
    with pytest.raises(ExecutionError, match=r"task @q_proj\[1, 0\] waits for tagged word @x\[1, 0, 0\]"):
        run(tagged)


def test_many_stuck_sms_are_summarised():
    shape = replace(SHAPE, wide=48, vocab=48, tiles=12)
    kernel = ExplicitKernel.of(queue_kernel(shape, 12))
    kernel.bodies[3].remove("queue.signal @x_done[0]")
    with pytest.raises(ExecutionError, match="SM 7 at event .*; and 4 more SMs$"):
        QueueInterpreter(kernel.parse(), RandomWeights(weight_shapes(shape))).step([1], 0)


def test_a_step_that_failed_can_be_run_again():
    interpreter = QueueInterpreter(parse(queue_kernel(SHAPE, 3)), WEIGHTS)
    interpreter.step([1], 0)
    with pytest.raises(ExecutionError, match=r"takes ids in \[0, 37\)"):
        interpreter.step([37], 1)
    again = interpreter.step([2], 1)
    expected = QueueInterpreter(parse(queue_kernel(SHAPE, 3)), WEIGHTS)
    expected.step([1], 0)
    assert np.array_equal(again.logits, expected.step([2], 1).logits)


@pytest.mark.parametrize("sm", range(3))
@pytest.mark.parametrize("counter", ["@x_done[0]", "@qkv_done[1]", "@attn_done[0]", "@mid_done[1]", "@act_done[0]"])
def test_a_removed_wait_is_a_poison_read_under_some_interleaving(explicit, sm, counter):
    waits = [e for e in explicit.bodies[sm] if e.startswith(f"queue.wait {counter}")]
    if not waits:  # this SM has no task in that phase
        pytest.skip("no such wait")
    explicit.bodies[sm].remove(waits[0])
    found = []
    for interleaving in adversarial(3):
        try:
            run(explicit, interleaving=interleaving)
        except ExecutionError as e:
            found.append(str(e))
    assert found
    for message in found:
        assert message.startswith(f"SM {sm}, task @")
        assert "reads @" in message
        assert "which was not written" in message


def test_a_wait_for_too_few_signals_is_found_by_starving_the_last_signaller(explicit):
    explicit.bodies[1] = [e.replace("@act_done[1] >= 3", "@act_done[1] >= 2") for e in explicit.bodies[1]]
    run(explicit)  # round-robin happens to be fair enough
    with pytest.raises(ExecutionError, match=r"SM 1, task @down_proj\[1, 1\] .*reads @act\[1, 0, \d+\]"):
        run(explicit, interleaving=Priority((1, 0, 2)))


def test_the_verifier_accepts_no_kernel_that_fails_here(explicit, tagged):
    random = Random(0)
    accepted = 0
    for kernel in [explicit, tagged] * 6:
        edited = deepcopy(kernel)
        waits = [(body, event) for body in edited.bodies for event in body if event.startswith("queue.wait")]
        body, event = random.choice(waits)
        body.remove(event)
        try:
            verify(edited.parse())
        except ScheduleError:
            continue
        accepted += 1
        expected = run(kernel).memory.arrays["logits"].copy()
        for interleaving in adversarial(3):
            assert np.array_equal(run(edited, interleaving=interleaving).memory.arrays["logits"], expected), event
    assert accepted < 12


def test_counters_are_never_reset(explicit):
    interpreter = run(explicit)
    assert interpreter.counters == [2 * n for n in interpreter.signals]
    assert interpreter.epoch == 2


def test_a_wrong_stream_order(explicit):
    stream = explicit.streams[2]
    stream[0], stream[1] = stream[1], stream[0]
    with pytest.raises(
        ExecutionError, match=r"SM 2, task @q_proj\[0, 2\] .*the tiles of @o_proj\[0, 2\] are next \(fetch 0\)"
    ):
        run(explicit)


def test_a_stream_that_ends_too_early(explicit):
    explicit.streams[0].pop()
    with pytest.raises(ExecutionError, match=r"SM 0, task @head\[0\] .*after all \d+ fetches of the stream were taken"):
        run(explicit)


def test_fetches_that_nobody_takes(explicit):
    explicit.streams[0].append("queue.fetch @head[1]")
    with pytest.raises(ExecutionError, match=r"SM 0: the step ended with 1 fetches left in the ring, .* @head\[1\]"):
        run(explicit)


def test_an_output_that_nobody_writes(explicit):
    explicit.bodies[2].remove("queue.run @head[2]")
    explicit.streams[2].pop()
    with pytest.raises(
        ExecutionError, match=r"task @choose\[\] .*reads @logits\[0, 26\], which was not written in this step"
    ):
        run(explicit)
    explicit.bodies[0] = [e for e in explicit.bodies[0] if "@choose" not in e]
    with pytest.raises(ExecutionError, match=r"without writing output element @logits\[0, 26\]"):
        run(explicit)


def test_an_output_that_is_written_twice(explicit):
    explicit.bodies[1].append("queue.run @head[0]")
    explicit.streams[1].append("queue.fetch @head[0]")
    with pytest.raises(ExecutionError, match=r"'task.store' writes @logits\[0, 0\], which was already written"):
        run(explicit)


def test_a_tagged_word_that_is_written_twice(tagged):
    tagged.bodies[1].insert(1, "queue.run @embedding[0]")
    with pytest.raises(ExecutionError, match=r"writes @x\[0, 0, 0\], which was already written"):
        run(tagged)


LEVELS = (
    lambda: GraphInterpreter(parse(graph_model(SHAPE)), WEIGHTS),
    lambda: TaskInterpreter(parse(task_program(SHAPE)), WEIGHTS),
    lambda: QueueInterpreter(parse(queue_kernel(SHAPE)), WEIGHTS),
    lambda: QueueInterpreter(parse(queue_kernel(SHAPE)), WEIGHTS, checked=False),
)


@pytest.mark.parametrize("level", range(4))
class TestStepArguments:
    def interpreter(self, level):
        return LEVELS[level]()

    @pytest.mark.parametrize("pos", [-1, 4])
    def test_position_out_of_range(self, level, pos):
        with pytest.raises(ExecutionError, match=f"positions 0 to 3, found {pos}"):
            self.interpreter(level).step([1], pos)

    @pytest.mark.parametrize("token", [-1, 37])
    def test_token_out_of_range(self, level, token):
        with pytest.raises(ExecutionError, match=rf"takes ids in \[0, 37\), found .*{token}"):
            self.interpreter(level).step([token], 0)

    def test_number_of_tokens(self, level):
        with pytest.raises(ExecutionError, match="1 tokens, found 2|has shape"):
            self.interpreter(level).step([1, 2], 0)

    def test_a_position_that_was_skipped(self, level):
        interpreter = self.interpreter(level)
        with pytest.raises(ExecutionError, match="since the last reset"):
            interpreter.step([1], 1)
        interpreter.reset()
        interpreter.step([1], 0)
        interpreter.step([1], 1)
        interpreter.reset()
        if level < 3:  # unchecked, later steps trust the caller
            with pytest.raises(ExecutionError, match="since the last reset"):
                interpreter.step([1], 1)


def test_inputs_by_name():
    interpreter = QueueInterpreter(parse(queue_kernel(SHAPE)), WEIGHTS)
    with pytest.raises(ExecutionError, match="the inputs of a step are token, found ids"):
        interpreter.execute({"ids": [1]}, 0)
    interpreter.reset()
    interpreter.execute({"token": [1]}, 0)


def test_a_weight_of_another_size():
    weights = RandomWeights({**weight_shapes(SHAPE), "1.down": (24, 41)})
    for make in (
        lambda: GraphInterpreter(parse(graph_model(SHAPE)), weights),
        lambda: QueueInterpreter(parse(queue_kernel(SHAPE)), weights),
    ):
        with pytest.raises(CheckpointError, match=r"tensor '1.down' has shape 24x41, the program declares 24x40"):
            make()


def test_loading_reports_progress():
    calls: list[tuple[str, int, int]] = []
    QueueInterpreter(parse(queue_kernel(SHAPE)), WEIGHTS, progress=lambda *call: calls.append(call))
    assert [done for _, done, _ in calls] == list(range(calls[-1][2] + 1))
    assert {what for what, _, _ in calls} == {"loading weights"}


RACY = """task.program @racy max_seq 4 tokens 1 {{
    task.buffer @in input : tensor<4xf32>
    task.buffer @s scratch : tensor<8xf32>
    task.buffer @out output : tensor<4xf32>
    task.family @start () {{
        %a = task.load @in[0 : 4] : tensor<4xf32>
        task.store %a, @s[0 : 4] : tensor<4xf32>
    }}
    task.family @shift () {{
        %a = task.load @s[0 : 4] : tensor<4xf32>
        %b = task.load @in[0 : 4] : tensor<4xf32>
        %c = task.add %b, %b : tensor<4xf32>
        task.store %c, @s[{where} : 4] : tensor<4xf32>
        %d = task.add %a, %b : tensor<4xf32>
        task.store %d, @out[0 : 4] : tensor<4xf32>
    }}
    task.order {{ task.call @start[] task.call @shift[] }}
}}"""


@pytest.mark.parametrize("where", ["0", "pos"])
def test_a_loaded_tile_is_a_value_not_a_view(where):
    interpreter = TaskInterpreter(parse(RACY.format(where=where)), WEIGHTS)
    interpreter.execute({"in": [1, 2, 3, 4]}, 1)
    assert interpreter.memory.arrays["out"].tolist() == [2, 4, 6, 8]


def test_keys_and_values_have_a_row_for_each_position():
    q, new = (create_ssa_value(TensorType(f32, [1, heads, 2, 2])) for heads in (2, 1))
    cached = create_ssa_value(TensorType(f32, [DYNAMIC_INDEX, 1, 2, 2]))
    attention = AttentionOp(q, cached, create_ssa_value(cached.type), new, new, 1.0)
    part = AttentionPartOp(*attention.operands, scale=1.0, part=Linear(), parts=2, block=1)
    for op in (attention, part):
        slots = {value: n for n, value in enumerate(dict.fromkeys((*op.operands, *op.results)))}
        step = _attention(op, slots) if op is attention else _attention_part(op, slots, 0)
        shapes = ((1, 2), (2, 1), (1, 1), (1, 1))
        values = [np.zeros((rows, heads, 2, 2), np.float32) for rows, heads in shapes] + [None, None]
        found = rf"'{op.name}' at position 1 needs the keys and values of 1 earlier positions, found 2 and 1"
        with pytest.raises(ExecutionError, match=found):
            step(values, 1)
