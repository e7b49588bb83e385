"""Executes a `task.program` in its `task.order`, tile by tile."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from xdsl.ir import Block

from ...amk_ir.errors import ExecutionError
from ...dialects.task import CallOp, ForOp, ProgramOp
from .memory import Memory
from .step import StepResult, check_position, read_result, token_input
from .tasks import TaskTable
from .weights import Progress, WeightProvider, no_progress


class TaskInterpreter:
    """A program with its buffers: one sequence at a time.

    seed: None runs the tasks of one call in ascending order, a number in a random order (they may run in any).
    checked: reads of unwritten elements and second writes of outputs raise ExecutionError.
    """

    def __init__(
        self,
        program: ProgramOp,
        weights: WeightProvider,
        *,
        seed: int | None = None,
        checked: bool = True,
        progress: Progress = no_progress,
    ):
        self.program = program
        self.checked = checked
        self.memory = Memory(program.buffers, weights, progress)
        self._random = None if seed is None else random.Random(seed)
        families = tuple(program.families.values())
        self._domains = [family.domain for family in families]
        self._tasks = TaskTable(families, self.memory)
        number = {name: i for i, name in enumerate(program.families)}
        self._calls: list[tuple[int, range]] = []
        self._unroll(program.order.body.block, {}, number)

    def _unroll(self, block: Block, scope: Mapping[str, int], number: Mapping[str, int]) -> None:
        """Appends the calls of `block` as (family, its range of task numbers)."""
        for op in block.ops:
            match op:
                case ForOp():
                    for value in op.range:
                        self._unroll(op.body.block, {**scope, op.index.data: value}, number)
                case CallOp():
                    family = number[op.family.string_value()]
                    domain = self._domains[family]
                    bound = [i.evaluate(scope) for i in op.indices.data]
                    rest = domain.shape[len(bound) :]
                    first = domain.flatten([*bound, *(0 for _ in rest)])
                    self._calls.append((family, range(first, first + prod(rest))))
                case _:
                    raise ExecutionError(f"an order holds calls and loops, found '{op.name}'")

    def reset(self) -> None:
        """Forgets the state: the next step is at position 0."""
        self.memory.reset()

    def execute(self, inputs: Mapping[str, Any], pos: int) -> None:
        """Runs one step on the buffers of `memory`; `inputs` are the input buffers' values by name.

        Raises:
            ExecutionError: position, inputs or a token id out of range, or an access that the semantics forbid.
        """
        check_position(pos, self.program.max_pos)
        self.memory.start_step(inputs, poisoned=self.checked)
        for family, numbers in self._calls:
            order = list(numbers)
            if self._random is not None:
                self._random.shuffle(order)
            for number in order:
                task = self._tasks.get(family, number)
                try:
                    task.run(pos, self.checked)
                except ExecutionError as e:
                    raise ExecutionError(f"task {task.name} at position {pos}: {e}") from None
        if self.checked:
            self.memory.check_outputs()

    def step(self, tokens: Sequence[int], pos: int) -> StepResult:
        """Runs one step of a decoder: `tokens` from position `pos` on. Raises like `execute`."""
        self.execute({token_input(self.memory): tokens}, pos)
        return read_result(self.memory)
