"""All dependences between the phases of a compact kernel, exact over the iterations of its loops.

Phases are unrolled over loops (hundreds of instances for a large model), but not over SMs or tiles: within one phase
instance, the tiles of a family are one box. Boxes are supersets, so dependences may be found that are none, never the
other way round; for the boxes that tilings of whole dimensions give, they are exact.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from xdsl.ir import Block, Operation
from xdsl.utils.exceptions import PassFailedException

from ..amk_ir.attrs import BufferKind
from ..amk_ir.linear import POSITION, Linear
from ..dialects import queue, task
from .effects import Box, Effects, EffectTable


@dataclass(frozen=True)
class Phase:
    """A phase of the program, or a run in its place, and the loops around it, outermost first."""

    op: queue.PhaseOp | queue.RunOp
    loops: tuple[task.ForOp, ...]
    effects: Effects

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(run.family_name for run in self.runs)

    @property
    def runs(self) -> tuple[queue.RunOp, ...]:
        return self.op.runs if isinstance(self.op, queue.PhaseOp) else (self.op,)


@dataclass(frozen=True)
class Instance:
    """One execution of a phase, in the sequential order of all."""

    phase: int
    indices: Mapping[str, int]


@dataclass
class BufferUse:
    """How the phases use one buffer. Instances are numbered in sequential order."""

    buffer: task.BufferOp
    writers: dict[int, tuple[Box, ...]] = field(default_factory=dict[int, "tuple[Box, ...]"])
    """Boxes by phase."""
    readers: dict[int, tuple[Box, ...]] = field(default_factory=dict[int, "tuple[Box, ...]"])
    edges: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    """Pairs of instances (earlier, later) whose order matters."""
    is_written_once: bool = True
    """No element is written again after it was written or read."""

    @cached_property
    def slots(self) -> bool:
        """Whether every access chooses a slot by one index of the first dimension."""
        boxes = [b for boxes in (*self.writers.values(), *self.readers.values()) for b in boxes]
        return all(slot_of(b) is not None for b in boxes)


def slot_of(box: Box) -> Linear | None:
    """The only element of the first dimension that a box contains, linear in the loop indices."""
    low, high = box.intervals[0]
    return low if high - low == Linear(constant=1) and POSITION not in low.names else None


@dataclass
class Dependences:
    """The phases of a kernel, their instances in order, and the uses of each buffer that any phase writes."""

    phases: list[Phase] = field(default_factory=list[Phase])
    instances: list[Instance] = field(default_factory=list[Instance])
    uses: dict[str, BufferUse] = field(default_factory=dict[str, BufferUse])

    @staticmethod
    def of(kernel: queue.KernelOp) -> Dependences:
        if len(kernel.programs) != 1:
            raise PassFailedException(
                f"insert-sync: kernel @{kernel.sym_name.data} has {len(kernel.programs)} programs, expected one for all "
                "SMs, as place-tasks makes it"
            )
        result = Dependences()
        table = EffectTable(kernel)
        result._collect_phases(table, kernel.programs[0].body.block, ())
        numbers: dict[Operation, int] = {phase.op: number for number, phase in enumerate(result.phases)}
        result.instances = list(_unroll(kernel.programs[0].body.block, {}, numbers))
        result._collect_uses(kernel)
        for use in result.uses.values():
            result._find_edges(use, kernel.max_pos)
        return result

    def instances_of(self, phase: int) -> list[int]:
        return [i for i, instance in enumerate(self.instances) if instance.phase == phase]

    def _collect_phases(self, table: EffectTable, block: Block, loops: tuple[task.ForOp, ...]) -> None:
        for op in block.ops:
            match op:
                case task.ForOp():
                    self._collect_phases(table, op.body.block, (*loops, op))
                case queue.PhaseOp():
                    self.phases.append(Phase(op, loops, table.of(op)))
                    _check_inside(table, op)
                case _:
                    raise PassFailedException(
                        f"insert-sync: expected phases of runs only, as place-tasks makes them, found '{op.name}'"
                    )

    def _collect_uses(self, kernel: queue.KernelOp) -> None:
        buffers = kernel.buffers
        for number, phase in enumerate(self.phases):
            for box in dict.fromkeys(phase.effects.writes):
                use = self.uses.setdefault(box.buffer, BufferUse(buffers[box.buffer]))
                use.writers[number] = (*use.writers.get(number, ()), box)
        for number, phase in enumerate(self.phases):
            for box in dict.fromkeys(phase.effects.reads):
                if (use := self.uses.get(box.buffer)) is not None:
                    use.readers[number] = (*use.readers.get(number, ()), box)
                elif buffers[box.buffer].kind.data in (BufferKind.SCRATCH, BufferKind.OUTPUT):
                    raise PassFailedException(f"insert-sync: @{box.buffer} is read but never written")

    def _find_edges(self, use: BufferUse, max_pos: int) -> None:
        ranges = {POSITION: (0, max_pos)}
        # by slot where there are slots: accesses of different layers never meet
        writes: defaultdict[Linear | None, list[tuple[int, Box]]] = defaultdict(list)
        reads: defaultdict[Linear | None, list[tuple[int, Box]]] = defaultdict(list)
        for number, instance in enumerate(self.instances):
            for found, boxes in ((writes, use.writers), (reads, use.readers)):
                for box in boxes.get(instance.phase, ()):
                    concrete = _instantiate(box, instance.indices)
                    found[slot_of(concrete) if use.slots else None].append((number, concrete))
        for slot, written in writes.items():
            for position, (first, box) in enumerate(written):
                for second, other in written[position + 1 :]:
                    if first != second and box.overlaps(other, ranges):
                        use.edges.add((first, second))
                        use.is_written_once = False
                for second, other in reads[slot]:
                    if first != second and box.overlaps(other, ranges):
                        use.edges.add((min(first, second), max(first, second)))
                        use.is_written_once &= first < second
        if use.buffer.kind.data is BufferKind.SCRATCH:
            self._check_written_first(use, reads, writes, max_pos)

    def _check_written_first(
        self,
        use: BufferUse,
        reads: Mapping[Linear | None, list[tuple[int, Box]]],
        writes: Mapping[Linear | None, list[tuple[int, Box]]],
        max_pos: int,
    ) -> None:
        ranges = {POSITION: (0, max_pos)}
        for slot, found in reads.items():
            for number, box in found:
                if not any(first <= number and b.overlaps(box, ranges) for first, b in writes.get(slot, ())):
                    instance = self.instances[number]
                    where = ", ".join(f"{n} = {v}" for n, v in instance.indices.items())
                    raise PassFailedException(
                        f"insert-sync: @{use.buffer.sym_name.data} is read by "
                        f"@{', @'.join(self.phases[instance.phase].families)}"
                        f"{f' at {where}' if where else ''} before anything writes what it reads"
                    )


def _check_inside(table: EffectTable, phase: queue.PhaseOp) -> None:
    """The runs of one phase are not ordered among SMs, so they must not depend on each other."""
    runs = phase.runs
    effects = [table.of(run) for run in runs]
    ranges = table.ranges(phase)
    for i, ours in enumerate(effects):
        for j, theirs in enumerate(effects[:i]):
            if ours.conflicts(theirs, ranges):
                raise PassFailedException(
                    f"insert-sync: @{runs[j].family_name} and @{runs[i].family_name} share a phase but depend on each "
                    "other; put them into two phases"
                )


def _instantiate(box: Box, indices: Mapping[str, int]) -> Box:
    return Box(box.buffer, tuple((low.substitute(indices), high.substitute(indices)) for low, high in box.intervals))


def _unroll(block: Block, indices: Mapping[str, int], numbers: Mapping[Operation, int]) -> Iterator[Instance]:
    for op in block.ops:
        if isinstance(op, task.ForOp):
            for value in op.range:
                yield from _unroll(op.body.block, {**indices, op.index.data: value}, numbers)
        elif isinstance(op, queue.PhaseOp):
            yield Instance(numbers[op], indices)
