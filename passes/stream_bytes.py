"""How much an SM streams between two hand-offs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

from xdsl.ir import Operation

from ..amk_ir.attrs import BufferKind
from ..amk_ir.quantized_type import stream_bits
from ..dialects import queue, task


def bytes_a_phase(kernel: queue.KernelOp) -> float:
    """Bytes of packed weights, without scales, that an SM streams in a phase of its program: the mean of all phases and SMs."""
    phases = streamed = 0
    for program in kernel.programs:
        for op, times in _executed(program.body.block.ops):
            if isinstance(op, queue.PhaseOp):
                phases += times * len(program.sms)
            else:
                streamed += times * _run_bytes(kernel, op)
    return streamed / phases if phases else 0.0


def _executed(ops: Iterable[Operation], times: int = 1) -> Iterator[tuple[queue.PhaseOp | queue.RunOp, int]]:
    """The phases and runs in `ops`, which are executed `times` times, and how many times each is."""
    for op in ops:
        match op:
            case task.ForOp():
                yield from _executed(op.body.block.ops, times * len(op.range))
            case queue.PhaseOp():
                yield op, times
                yield from _executed(op.runs, times)
            case queue.RunOp():
                yield op, times
            case _:
                pass


def _run_bytes(kernel: queue.KernelOp, run: queue.RunOp) -> int:
    """Of all tasks of a run, whichever SMs they are on."""
    family = kernel.families[run.family_name]
    weights = (op for op in family.streams if kernel.buffers[op.region.buffer].kind.data is BufferKind.WEIGHT)
    bits = sum(stream_bits(op.result.type.get_element_type()) * prod(op.region.tile_shape) for op in weights)
    return prod(family.domain.shape[len(run.indices.data) :]) * bits // 8
