"""How large the stages of a weight ring are, unless an option says so."""

from __future__ import annotations

from math import prod

from xdsl.dialects.builtin import ModuleOp

from ..amk_ir.segments import GROUP_ROWS
from ..amk_ir.targets import Target
from ..dialects.graph import LinearOp
from ..dialects.task import shape_of

USUAL_BYTES, LARGE_BYTES = 16384, 24576
_LEAST_STAGES = 6
"""Of 24 KiB, for which a target must have shared memory."""


def stage_bytes(module: ModuleOp, target: Target) -> int:
    """24 KiB where eight whole rows of every matrix of a model, in bf16, fit into that, else 16 KiB.

    Where rows are short, a phase lasts as long as its hand-off, and weights that are in registers by then cost nothing: larger
    stages bring more there. It follows from the matrices alone, so kernels that share packed weights agree.
    """
    longest = max((prod(shape_of(op.x)[1:]) for op in module.walk() if isinstance(op, LinearOp)), default=0)
    fits = 0 < longest * GROUP_ROWS * 2 <= LARGE_BYTES
    return LARGE_BYTES if fits and target.shared_memory_per_block >= _LEAST_STAGES * LARGE_BYTES else USUAL_BYTES
