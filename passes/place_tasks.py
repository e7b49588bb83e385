"""`place-tasks`: from a sequential order of calls to one program for all SMs of a target, without synchronisation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, Region
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.attrs import Placement
from ..amk_ir.errors import TargetError
from ..amk_ir.linear import Linear
from ..amk_ir.targets import Target, get_target
from ..dialects import queue, task
from .effects import Effects, EffectTable
from .family_bodies import programs
from .kernel_size import check_size

_MAX_VIRTUAL_SMS = 1024
"""On targets without GPUs: a bound that keeps schedules small enough to verify."""


@dataclass(frozen=True)
class PlaceTasksPass(ModulePass):
    """Converts each `task.program` to a compact `queue.kernel` of `sms` SMs (0: as many as the target has).

    Adjacent calls that do not depend on each other share a phase. Placement is cyclic, and each family starts where
    the one before it ended, across layers too, so that all SMs get about the same number of tasks at any time.
    """

    name = "place-tasks"

    target: str = "sm_90a"
    sms: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        try:
            target = get_target(self.target)
        except TargetError as e:
            raise PassFailedException(f"place-tasks: {e}") from e
        sms = grid_size("place-tasks", target, self.sms)
        for program in programs(op):
            body = _Placer(EffectTable(program), sms).place(program.order.body.block, Linear())[0]
            moved = tuple(child for child in program.body.block.ops if not isinstance(child, task.OrderOp))
            for child in moved:
                child.detach()
            queue_program = queue.ProgramOp(0, sms, Region(Block()), Region(Block(body)))
            kernel = queue.KernelOp(
                program.sym_name.data,
                target.name,
                sms,
                program.max_seq.value.data,
                program.tokens.value.data,
                Region(Block([*moved, queue_program])),
            )
            kernel.attributes |= program.attributes
            check_size(self.name, kernel)
            op.body.block.insert_op_before(kernel, program)
            program.detach()
            program.erase()


def grid_size(name: str, target: Target, sms: int) -> int:
    """The option `sms` of the pass `name`, checked before anything is made that grows with it; 0 is the target's."""
    if sms < 0:
        raise PassFailedException(f"{name}: sms must be at least 1, or 0 for the target's, found {sms}")
    most = max((gpu.num_sms for gpu in target.gpus), default=_MAX_VIRTUAL_SMS)
    if sms > most:
        raise PassFailedException(f"{name}: target '{target.name}' has at most {most} SMs, found {sms}")
    return sms or target.num_sms


@dataclass
class _Phase:
    """Calls that may run side by side."""

    calls: list[task.CallOp] = field(default_factory=list[task.CallOp])
    effects: Effects = field(default_factory=Effects)


@dataclass
class _Placer:
    table: EffectTable
    sms: int

    def place(self, block: Block, start: Linear) -> tuple[list[Operation], Linear]:
        """The phases and loops for a block of calls whose first task goes to SM `start`, and the SM after the last."""
        result: list[Operation] = []
        for item in self._phases(block.ops):
            if isinstance(item, task.ForOp):
                # each iteration starts where the one before it ended
                index, values = item.index.data, item.range
                _, end = self.place(item.body.block, Linear())
                first = Linear.of(index) - values.start
                offset = Linear.make({n: c * end.constant for n, c in first.terms}, first.constant * end.constant)
                body, _ = self.place(item.body.block, self._wrapped(start + offset))
                result.append(task.ForOp(index, values.start, values.stop, Region(Block(body))))
                start = self._wrapped(start + end.constant * len(values))
            else:
                runs: list[Operation] = []
                for call in item.calls:
                    runs.append(queue.RunOp(call.family, call.indices.data, Placement("cyclic", start)))
                    start = self._wrapped(start + self._count(call))
                result.append(queue.PhaseOp(Region(Block(runs))))
        return result, start

    def _phases(self, ops: Iterable[Operation]) -> list[_Phase | task.ForOp]:
        """Groups adjacent calls: one joins the phase before it if it depends on nothing in it."""
        result: list[_Phase | task.ForOp] = []
        for op in ops:
            if isinstance(op, task.ForOp):
                result.append(op)
                continue
            assert isinstance(op, task.CallOp)
            effects = self.table.of(op)
            last = result[-1] if result else None
            if not isinstance(last, _Phase) or last.effects.conflicts(effects, self.table.ranges(op)):
                last = _Phase()
                result.append(last)
            last.calls.append(op)
            last.effects = last.effects + effects
        return result

    def _count(self, call: task.CallOp) -> int:
        """Number of tasks of a call."""
        family = self.table.families[call.family.string_value()]
        return prod(family.domain.shape[len(call.indices.data) :])

    def _wrapped(self, sm: Linear) -> Linear:
        return Linear.make({n: c % self.sms for n, c in sm.terms}, sm.constant % self.sms)
