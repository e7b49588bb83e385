"""How much an SM streams between two hand-offs."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from xdsl.ir import Operation

from ..amk_ir.attrs import BufferKind
from ..amk_ir.quantized_type import QuantizedType
from ..dialects import queue, task


def bytes_a_phase(kernel: queue.KernelOp) -> float:
    """Bytes of packed weights, without scales, that an SM streams in a phase of its program: the mean of all phases and SMs."""
    phases = streamed = 0
    for program in kernel.programs:
        of_program, of_all = _walk(kernel, program.body.block.ops, 1)
        phases += of_program * len(program.sms)
        streamed += of_all
    return streamed / phases if phases else 0.0


def _walk(kernel: queue.KernelOp, ops: Iterable[Operation], times: int) -> tuple[int, int]:
    """The phases of an SM, and the bytes of all SMs, in `ops`, which are executed so many times."""
    phases = streamed = 0
    for op in ops:
        found = (0, 0)
        match op:
            case task.ForOp():
                found = _walk(kernel, op.body.block.ops, times * len(op.range))
            case queue.PhaseOp():
                found = (times, _walk(kernel, op.runs, times)[1])
            case queue.RunOp():
                found = (0, times * _run_bytes(kernel, op))
            case _:
                pass
        phases, streamed = phases + found[0], streamed + found[1]
    return phases, streamed


def _run_bytes(kernel: queue.KernelOp, run: queue.RunOp) -> int:
    family = kernel.families[run.family_name]
    bits = 0
    for op in family.streams:
        buffer = kernel.buffers[op.region.buffer]
        if buffer.kind.data is BufferKind.WEIGHT:
            element = op.result.type.get_element_type()
            each = element.format.code_bits if isinstance(element, QuantizedType) else 16
            bits += each * prod(op.region.tile_shape)
    return prod(family.domain.shape[len(run.indices.data) :]) * bits // 8
