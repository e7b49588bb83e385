"""`drop-outputs`: a program that only leaves its state behind."""

from __future__ import annotations

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.attrs import BufferKind
from ..dialects import task
from .family_bodies import ProgramIndex, programs


@dataclass(frozen=True)
class DropOutputsPass(ModulePass):
    """Removes the outputs `names` of each program (none given: all), and every family and buffer that only they need.

    What is left writes state, or an output that was not named: of a decoder without outputs, all but the final norm, the
    head and the argmax. Such a step fills the KV cache with tokens of a prompt.
    """

    name = "drop-outputs"

    names: tuple[str, ...] = ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for program in programs(op):
            outputs = [name for name, b in program.buffers.items() if b.kind.data is BufferKind.OUTPUT]
            if unknown := [name for name in self.names if name not in outputs]:
                raise PassFailedException(
                    f"drop-outputs: program @{program.sym_name.data} has no output @{unknown[0]}, expected some of "
                    f"{', '.join('@' + name for name in outputs) or 'none'}"
                )
            _drop(program, frozenset(self.names or outputs))


def _drop(program: task.ProgramOp, dropped: frozenset[str]) -> None:
    index = ProgramIndex(program)
    # from what has to stay to everything that it reads
    pending = [
        name
        for name, b in index.buffers.items()
        if b.kind.data in (BufferKind.STATE, BufferKind.OUTPUT) and name not in dropped
    ]
    kept = set(pending)
    families: set[str] = set()
    while pending:
        for family in index.writers[pending.pop()]:
            if family in families:
                continue
            families.add(family)
            op = index.families[family]
            # a family stays as it is: what else it stores stays as well
            touched = {access.region.buffer for access in (*op.loads, *op.stores)}
            pending += touched - kept
            kept |= touched
    if not families:
        raise PassFailedException(
            f"drop-outputs: nothing would be left of program @{program.sym_name.data}: it has no state and no other output"
        )
    unused = [op for name, calls in index.calls.items() if name not in families for op in calls]
    loops = [op for op in program.order.walk() if isinstance(op, task.ForOp)]
    unused += [op for name, op in index.families.items() if name not in families]
    # inputs stay: whoever runs the program writes them
    unused += [op for name, op in index.buffers.items() if name not in kept and op.kind.data is not BufferKind.INPUT]
    for op in unused:
        op.detach()
        op.erase()
    for loop in reversed(loops):
        if not loop.body.block.ops:
            loop.detach()
            loop.erase()
