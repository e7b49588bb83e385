"""`plan-stream`: the weight ring of a kernel, and the order in which constant tiles enter it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import cast

from xdsl.context import Context
from xdsl.dialects.builtin import FixedBitwidthType, ModuleOp, TensorType
from xdsl.ir import Block, Operation, Region
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.attention_turn import work_bytes
from ..amk_ir.attrs import Ring, RingAttr
from ..amk_ir.segments import BLOCK_K, rows_bytes
from ..amk_ir.targets import Target, get_target
from ..dialects import queue, task
from .activation_memory import activation_bytes, partial_bytes, rotation_bytes
from .kernel_size import check_size
from .scale_room import STAGE_UNIT, scale_room
from .stage_size import USUAL_BYTES
from .stream_bytes import bytes_a_phase

_MAX_STAGES = 12
"""More stages than this were not measured to help."""
_FIXED_RESERVE = 8192
"""Shared memory in bytes for mbarriers, reductions over warps, partial sums and phase tables."""
_FEW_LOADS, _MORE_LOADS = 3, 4
"""Loads of a stage that keep an SM's share of the memory busy; those that keep it busier, and polls of words waiting for longer."""
_LONG_PHASE = 3
"""Rings that an SM streams in a phase, on average, from which on more loads are worth longer polls."""
_SHORT_RING = 4
"""Stages of a ring in which a stage that is being read is missed."""


@dataclass(frozen=True)
class PlanStreamPass(ModulePass):
    """Gives each kernel a weight ring and each program the stream that its body consumes: the same runs, in order.

    stages: number of ring stages; 0: as many as fit beside the activations, at most twelve. bytes: size of a stage, a
    multiple of 512; scales of quantised weights come on top. in_flight: loads outstanding at a time; few, so that polls do not queue
    behind them: 0 stands for 3, for 4 where an SM streams three rings of weights or more in a phase, on average, or for all stages
    of a ring of at most 4, which could not be kept full otherwise.
    room: bytes for scales in a stage, at least: kernels that share weights cut them into the same stages, whatever else they have.
    """

    name = "plan-stream"

    stages: int = 0
    bytes: int = USUAL_BYTES
    in_flight: int = 0
    room: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.bytes < STAGE_UNIT or self.bytes % STAGE_UNIT:
            raise PassFailedException(
                f"plan-stream: bytes must be a positive multiple of {STAGE_UNIT}, found {self.bytes}"
            )
        if self.stages < 0 or self.in_flight < 0:
            raise PassFailedException(
                f"plan-stream: expected stages >= 0 and in-flight >= 0, found {self.stages} and {self.in_flight}"
            )
        if self.room < 0 or self.room % STAGE_UNIT:
            raise PassFailedException(f"plan-stream: room must be 0 or a multiple of {STAGE_UNIT}, found {self.room}")
        for kernel in op.ops:
            if isinstance(kernel, queue.KernelOp):
                stage_bytes = self.bytes + max(self.room, scale_room(kernel, self.bytes))
                stages = self._stages(kernel, stage_bytes)
                in_flight = self.in_flight or self._loads(kernel, stages)
                kernel.properties["ring"] = RingAttr(Ring(stages, stage_bytes, min(in_flight, stages)))
                streaming = {name for name, family in kernel.families.items() if family.streams}
                for program in kernel.programs:
                    _fill_stream(program, streaming)
                check_size(self.name, kernel)

    def _loads(self, kernel: queue.KernelOp, stages: int) -> int:
        if stages <= _SHORT_RING:
            return stages
        return _MORE_LOADS if bytes_a_phase(kernel) >= _LONG_PHASE * stages * self.bytes else _FEW_LOADS

    def _stages(self, kernel: queue.KernelOp, stage_bytes: int) -> int:
        target = get_target(kernel.target.data)
        if not target.is_cuda:
            return self.stages or 4  # a ring of a few stages, so that its limit is exercised
        held = max((activation_bytes(kernel, name, stage_bytes) for name in kernel.families), default=0)
        working = max(held, attention_bytes(kernel)) + partial_bytes(kernel) + rotation_bytes(kernel)
        room = target.shared_memory_per_block - working - _FIXED_RESERVE
        fitting = room // stage_bytes
        stages = self.stages or min(_MAX_STAGES, fitting)
        if stages < 1 or stages > fitting:
            raise PassFailedException(
                f"plan-stream: {max(stages, 1)} stages of {stage_bytes} bytes do not fit on {target.name}, "
                f"{_room(target, room)}; {_remedy(kernel, fitting)}"
            )
        return stages


def _remedy(kernel: queue.KernelOp, fitting: int) -> str:
    if fitting > 0:
        return f"use at most {fitting}"
    fewer = "" if kernel.tokens.value.data == 1 else ", or fewer tokens a step"
    return f"use smaller stages{fewer}"


def _room(target: Target, room: int) -> str:
    return f"{max(room, 0)} of {target.shared_memory_per_block} bytes are left beside what one task holds"


def attention_bytes(kernel: queue.KernelOp) -> int:
    """Shared memory for what an attention task holds, at most, or one that merges parts: all that it merges, beside the result
    if it multiplies that."""
    most = 0
    for family in kernel.families.values():
        for op in family.body.block.ops:
            if isinstance(op, task.AttentionOp | task.AttentionPartOp):
                tokens, heads, _, half = task.shape_of(op.q)
                element = cast(TensorType[FixedBitwidthType], op.k.type).element_type
                most = max(most, work_bytes(tokens, heads, task.shape_of(op.k)[1], 2 * half, element.size))
            elif isinstance(op, task.AttentionMergeOp):
                tokens, *row = task.shape_of(op.result)
                multiplies = any(isinstance(other, task.MatmulOp) for other in family.body.block.ops)
                result = rows_bytes(tokens, -(-prod(row) // BLOCK_K)) if multiplies else 0
                most = max(most, result + 4 * (prod(task.shape_of(op.sums)) + prod(task.shape_of(op.stats))))
    return most


def _fill_stream(program: queue.ProgramOp, streaming: set[str]) -> None:
    """Replaces the stream of `program` by the fetches that its body needs."""
    for op in tuple(program.stream.block.ops):
        op.detach()
        op.erase()
    program.stream.block.add_ops(_fetches(program.body.block.ops, streaming))


def _fetches(ops: Iterable[Operation], streaming: set[str]) -> list[Operation]:
    result: list[Operation] = []
    for op in ops:
        match op:
            case queue.RunOp() if op.family_name in streaming:
                placement = None if op.placement is None else op.placement.data
                result.append(queue.FetchOp(op.family, op.indices.data, placement))
            case queue.PhaseOp():
                result += _fetches(op.runs, streaming)
            case task.ForOp():
                if body := _fetches(op.body.block.ops, streaming):
                    result.append(task.ForOp(op.index.data, op.range.start, op.range.stop, Region(Block(body))))
            case _:
                pass
    return result
