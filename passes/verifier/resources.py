"""Whether a kernel fits its target: all blocks resident at once, ring and activations in shared memory."""

from __future__ import annotations

from collections.abc import Iterator

from ...amk_ir.targets import TARGETS, Target
from ...dialects.queue import KernelOp
from ..activation_memory import activation_bytes
from ..scale_room import STAGE_UNIT
from .diagnostics import Diagnostic, plural
from .failures import Rule


def resident_blocks(target: Target) -> int | None:
    """The greatest grid whose blocks are all resident on some GPU of a target; None where SMs are virtual."""
    if not target.is_cuda:
        return None
    return max([target.num_sms, *(gpu.num_sms for gpu in target.gpus)])


def check_resources(kernel: KernelOp) -> Iterator[Diagnostic]:
    """The grid is resident at once, and the ring and the widest activations fit into a block's shared memory."""
    target = TARGETS[kernel.target.data]
    limit = resident_blocks(target)
    if limit is not None and kernel.num_sms > limit:
        yield Diagnostic(
            Rule.RESOURCES,
            f"the kernel has a block for each of {kernel.num_sms} SMs, target {target.name} has at most {limit}: "
            "blocks that are not resident never signal",
            f"place the tasks on {limit} SMs or fewer (place-tasks sms)",
            ops=(kernel,),
        )
    ring = 0 if kernel.ring is None else kernel.ring.data.total_bytes
    stage_bytes = STAGE_UNIT if kernel.ring is None else kernel.ring.data.stage_bytes
    # a lower bound: backends know theirs
    held = {name: activation_bytes(kernel, name, stage_bytes) for name in kernel.families}
    name = max(held, key=lambda name: held[name], default="")
    widest = held.get(name, 0)
    if ring + widest > target.shared_memory_per_block:
        activations = f" and the activations of @{name} {widest}" if widest else ""
        yield Diagnostic(
            Rule.RESOURCES,
            f"the ring takes {ring} bytes{activations}, a block of target {target.name} has "
            f"{target.shared_memory_per_block}",
            _smaller(kernel, widest, target),
            ops=(kernel,),
        )


def _smaller(kernel: KernelOp, widest: int, target: Target) -> str:
    """What to do about a ring and `widest` bytes of activations that do not fit together."""
    tile = "tile the reduction dimension of the matmul, so that its activations take less"
    room = target.shared_memory_per_block - widest
    if kernel.ring is None or room < STAGE_UNIT:
        return tile
    ring = kernel.ring.data
    if fitting := room // ring.stage_bytes:
        remedy = f"use at most {plural(fitting, 'ring stage')} of {ring.stage_bytes} bytes (plan-stream)"
    else:
        remedy = f"use ring stages of at most {room // STAGE_UNIT * STAGE_UNIT} bytes (plan-stream)"
    return remedy if ring.total_bytes > target.shared_memory_per_block else f"{remedy}, or {tile}"
