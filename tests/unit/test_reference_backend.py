"""What the runtime sees of the reference backend: it loads verified kernels only, and runs one sequence at a time."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from llama_kernels import LlamaShape, RandomWeights, parse, queue_kernel, weight_shapes

from amk.amk_ir.errors import ExecutionError, ScheduleError, UsageError
from amk.backends.reference.backend import ReferenceBackend
from amk.backends.reference.interleavings import Seeded
from amk.backends.reference.queue_interpreter import QueueInterpreter
from amk.dialects.queue import KernelOp, RunOp
from amk.passes.verify_schedule import VerifiedKernel, verify
from amk.runtime.backend import Executable

SHAPE = LlamaShape(max_seq=6)
WEIGHTS = RandomWeights(weight_shapes(SHAPE))

verified = cache(lambda: verify(parse(queue_kernel(SHAPE))))


def load(**options) -> Executable:
    return ReferenceBackend(**options).load(verified(), WEIGHTS)


@pytest.mark.parametrize(
    ("sms", "tagged", "placement"), [(1, False, "cyclic"), (3, True, "cyclic"), (4, True, "blocked")]
)
def test_the_hand_written_kernels_are_safe(sms, tagged, placement):
    assert isinstance(verify(parse(queue_kernel(SHAPE, sms, tagged, placement))), VerifiedKernel)


def test_an_unverified_kernel_is_refused():
    with pytest.raises(ScheduleError, match="only verified kernels can be loaded, found KernelOp"):
        ReferenceBackend().load(parse(queue_kernel(SHAPE)), WEIGHTS)  # type: ignore


def test_a_kernel_that_was_edited_after_verification_is_refused():
    kernel = verify(parse(queue_kernel(SHAPE)))
    op = kernel.kernel
    assert isinstance(op, KernelOp)
    next(o for o in op.walk() if isinstance(o, RunOp)).detach()
    with pytest.raises(ScheduleError, match="changed after it was verified"):
        ReferenceBackend().load(kernel, WEIGHTS)


def test_a_kernel_of_two_tokens_a_step_is_refused():
    shape = LlamaShape(tokens=2)
    with pytest.raises(UsageError, match="one token a step, @llama has 2"):
        ReferenceBackend().load(verify(parse(queue_kernel(shape))), RandomWeights(weight_shapes(shape)))


@pytest.mark.parametrize("options", [{}, {"checked": True}, {"checked": True, "interleaving": Seeded(1)}])
def test_steps_give_token_and_logits(options):
    executable = load(**options)
    interpreter = QueueInterpreter(parse(queue_kernel(SHAPE)), WEIGHTS)
    kept = []
    for pos, token in enumerate([3, 1, 4, 1, 5, 9]):
        expected = interpreter.step([token], pos)
        next_token, logits = executable.step(token, pos)
        assert next_token == expected.next_tokens[0]
        assert type(next_token) is int
        assert logits.shape == (37,)
        kept.append((logits, expected.logits[0]))
    for logits, expected in kept:  # a later step must not change what an earlier one returned
        assert np.array_equal(logits, expected)


def test_positions_must_be_run_in_order():
    executable = load()
    executable.step(1, 0)
    with pytest.raises(ExecutionError, match="position 2 needs all before it, of which only 1 were run"):
        executable.step(1, 2)
    executable.step(1, 1)
    first = executable.step(1, 1)[1]  # a step may be run again
    executable.reset()
    with pytest.raises(ExecutionError, match="position 1 needs all before it"):
        executable.step(1, 1)
    executable.step(1, 0)
    assert np.array_equal(executable.step(1, 1)[1], first)


@pytest.mark.parametrize("token", [-1, 37])
def test_a_bad_token_leaves_the_executable_usable(token):
    executable = load()
    executable.step(1, 0)
    with pytest.raises(ExecutionError, match=r"takes ids in \[0, 37\)"):
        executable.step(token, 1)
    executable.step(1, 1)


def test_close():
    executable = load()
    executable.close()
    executable.close()
    with pytest.raises(ExecutionError, match="closed"):
        executable.step(1, 0)
