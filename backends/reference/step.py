"""What the interpreters of all levels share: the result of a step, and the check of its position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...amk_ir.errors import ExecutionError
from .memory import Memory
from .numerics import F32, Ids


@dataclass(frozen=True)
class StepResult:
    """logits: [T, vocab] float32. next_tokens: [T] int32, the argmax of each row. Copies: a later step keeps them."""

    logits: F32
    next_tokens: Ids


def check_position(pos: int, max_pos: int) -> None:
    """Raises ExecutionError unless `pos` is in [0, max_pos]."""
    if not 0 <= pos <= max_pos:
        raise ExecutionError(f"a step can start at positions 0 to {max_pos}, found {pos}")


def read_result(memory: Memory) -> StepResult:
    """The step's result: the one float output is the logits, the one integer output the next tokens.

    Raises:
        ExecutionError: the program has other outputs.
    """
    outputs = [memory.arrays[name] for name in memory.outputs]
    logits = [a for a in outputs if a.dtype == np.float32]
    ids = [a for a in outputs if a.dtype != np.float32]
    if len(logits) != 1 or len(ids) != 1:
        raise ExecutionError(
            f"a decoder step has one float output and one id output, found {', '.join(memory.outputs) or 'none'}"
        )
    return StepResult(logits[0].copy(), ids[0].copy())


def token_input(memory: Memory) -> str:
    """The name of the one input buffer, the token ids."""
    inputs = memory.inputs
    if len(inputs) != 1:
        raise ExecutionError(f"a decoder step has one input, the token ids, found {', '.join(inputs) or 'none'}")
    return inputs[0]
