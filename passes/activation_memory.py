"""The shared memory that the matrix products of a kernel take beside the weight ring."""

from __future__ import annotations

from math import prod

from xdsl.dialects.builtin import DYNAMIC_INDEX

from ..amk_ir.quantized_stages import QuantizedStages
from ..amk_ir.quantized_type import QuantizedType
from ..amk_ir.rope import turns_bytes
from ..amk_ir.segments import BLOCK_K, ELEMENT_BYTES, GROUP_ROWS, partials_bytes, plan_segments, stage_blocks
from ..amk_ir.targets import get_target
from ..dialects import queue, task

_PARTIAL_RESERVE = 6144
"""Bytes of partial sums that are part of what plan-stream reserves."""


def activation_bytes(kernel: queue.KernelOp, name: str, stage_bytes: int) -> int:
    """What a task of family `name` holds of the vectors that its matmuls read, beside a ring of stages of `stage_bytes`.

    Rows of several tokens that are too long are held a segment at a time (see `amk_ir/segments.py`).
    """
    family = kernel.families[name]
    inputs = {op.x: task.shape_of(op.x) for op in family.body.block.ops if isinstance(op, task.MatmulOp)}
    shapes = [shape for shape in inputs.values() if DYNAMIC_INDEX not in shape]
    if len(shapes) == 1 and family.streams and (held := _segment_bytes(kernel, name, shapes[0], stage_bytes)):
        return held
    return sum(ELEMENT_BYTES * prod(shape) for shape in shapes)


def _segment_bytes(kernel: queue.KernelOp, name: str, shape: tuple[int, ...], stage_bytes: int) -> int:
    """What the segments in which a streaming family holds activations of `shape` take; 0 if it holds all of them."""
    target = get_target(kernel.target.data)
    if not target.is_cuda:
        return 0
    family = kernel.families[name]
    tokens, k = shape[0], prod(shape[1:])
    groups, keeps_x = _groups(family, k), False
    element = family.streams[0].result.type.get_element_type()
    if isinstance(element, QuantizedType):
        stages = QuantizedStages(groups * GROUP_ROWS, k, stage_bytes, element.format)
        k_blocks, keeps_x = stages.k_blocks, stages.keeps_x
        chunk_blocks = stages.chunk_steps or stages.block_steps
    else:
        k_blocks = -(-k // BLOCK_K)
        chunk_blocks = max(1, stage_blocks(k_blocks, groups, stage_bytes))
    tasks = 1
    for program in kernel.programs:
        for op in program.body.walk():
            if isinstance(op, queue.RunOp) and op.family_name == name and op.placement is not None:
                own = prod(family.domain.shape[len(op.indices.data) :])
                tasks = max(tasks, -(-own // len(program.sms)))
    shared = target.shared_memory_per_block
    segments = plan_segments(tokens, k_blocks, chunk_blocks, groups, tasks, shared, keeps_x)
    return 0 if segments is None else segments.bytes


def _groups(family: task.FamilyOp, k: int) -> int:
    """Groups of eight weight rows of a task."""
    return max(1, -(-sum(prod(op.region.tile_shape) // k for op in family.streams) // GROUP_ROWS))


def partial_bytes(kernel: queue.KernelOp) -> int:
    """What the partial sums of eight warps take, twice, as far as it is more than what is reserved for them anyway."""
    most = 0
    for family in kernel.families.values():
        for op in family.body.block.ops:
            if isinstance(op, task.MatmulOp) and family.streams:
                tokens, *inner = task.shape_of(op.x)
                most = max(most, 2 * partials_bytes(tokens, _groups(family, prod(inner))))
    return max(0, most - _PARTIAL_RESERVE)


def rotation_bytes(kernel: queue.KernelOp) -> int:
    """What the cosines and sines of a step's positions take: of each buffer of frequencies, once."""
    buffers: dict[str, int] = {}
    for family in kernel.families.values():
        for op in family.body.block.ops:
            if isinstance(op, task.RopeOp) and isinstance(load := task.op_of(op.frequencies), task.LoadOp):
                name = load.region.buffer
                buffers[name] = turns_bytes(kernel.tokens.value.data, prod(kernel.buffers[name].shape))
    return sum(buffers.values())
