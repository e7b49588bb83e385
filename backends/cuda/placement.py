"""Which tasks of a run an SM owns, as C++ and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from ...amk_ir.linear import Linear
from ...dialects.queue import PlacedOp
from ...dialects.task import FamilyOp
from .coordinates import INDEX_PREFIX, linear_text
from .values import TaskText


@dataclass(frozen=True)
class PlacedTasks:
    """A run or fetch: its family, the bound leading indices, and the tasks of each SM of its program.

    An SM's tasks are begin, begin + step, ... below end, in variables named after `number`.
    """

    op: PlacedOp
    family: FamilyOp
    sms: range
    number: int

    @property
    def name(self) -> str:
        return self.family.sym_name.data

    @property
    def text(self) -> str:
        """The op as IR writes it."""
        indices = ", ".join(map(str, self.op.indices.data))
        placement = "" if self.op.placement is None else f" on {self.op.placement.data}"
        return f"{self.op.name} @{self.name}[{indices}]{placement}"

    @property
    def bound(self) -> dict[str, Linear]:
        """Values of the bound indices by name."""
        return dict(zip(self.family.domain.names, self.op.indices.data, strict=False))

    @property
    def task(self) -> TaskText:
        return TaskText(self.family, self.bound)

    @property
    def own_domain(self) -> tuple[tuple[str, int], ...]:
        """The indices that the placement distributes."""
        return self.family.domain.data[len(self.op.indices.data) :]

    @property
    def count(self) -> int:
        """Tasks of all SMs together."""
        return prod(e for _, e in self.own_domain)

    @property
    def most(self) -> int:
        """The greatest number of tasks of one SM."""
        return -(-self.count // len(self.sms)) if self.op.placement is not None else 1

    @property
    def step(self) -> int:
        """From one task of an SM to its next one."""
        cyclic = self.op.placement is not None and self.op.placement.data.kind == "cyclic"
        return len(self.sms) if cyclic else 1

    @property
    def begin(self) -> str:
        return f"begin_{self.number}"

    @property
    def end(self) -> str:
        return f"end_{self.number}"

    @property
    def base(self) -> str:
        """C++ number, in the whole domain, of the first task of the run."""
        flat = Linear()
        for name, extent in self.family.domain.data:
            flat = flat * extent + self.bound.get(name, Linear())
        return linear_text(flat)

    def range_lines(self) -> list[str]:
        """Statements that define begin and end from `sm`, the number of the SM in its program."""
        if self.op.placement is None:
            return [f"const int {self.begin} = 0, {self.end} = 1;"]
        n, offset = len(self.sms), self.op.placement.data.offset
        if offset.is_constant:
            shifted = f"(sm + {-offset.constant % n}) % {n}"
        else:
            shifted = f"((sm - ({linear_text(offset)})) % {n} + {n}) % {n}"
        if self.op.placement.data.kind == "cyclic":
            return [f"const int {self.begin} = {shifted}, {self.end} = {self.count};"]
        return [
            f"const int share_{self.number} = {shifted};",
            f"const int {self.begin} = share_{self.number} * {self.count} / {n};",
            f"const int {self.end} = (share_{self.number} + 1) * {self.count} / {n};",
        ]

    @property
    def steady(self) -> frozenset[str]:
        """Own indices that all tasks of an SM share: inner ones whose values come round each time all SMs have had a task."""
        after, names = 1, set[str]()
        for name, extent in reversed(self.own_domain):
            after *= extent
            if self.op.placement is None or self.op.placement.data.kind != "cyclic" or len(self.sms) % after:
                break
            names.add(name)
        return frozenset(names)

    def steady_lines(self) -> list[str]:
        """Statements that define the `steady` indices."""
        return self._definitions(self.begin, self.steady)

    def index_lines(self, tile: str = "tile") -> list[str]:
        """Statements that define the task's own indices from its number `tile`."""
        return self._definitions(tile, frozenset(name for name, _ in self.own_domain))

    def _definitions(self, tile: str, names: frozenset[str]) -> list[str]:
        lines: list[str] = []
        after = self.count
        for position, (name, extent) in enumerate(self.own_domain):
            after //= extent
            text = tile if after == 1 else f"{tile} / {after}"
            if position > 0:
                text = f"{text} % {extent}"
            if name in names:
                lines.append(f"const int {INDEX_PREFIX}{name} = {text};")
        return lines


def most_of_all(runs: Sequence[PlacedTasks]) -> int:
    """The greatest number of tasks that an SM has in all `runs` of a program: exact where it is the same for all values of the
    loop indices, else at most so many."""
    sms = len(runs[0].sms)
    placements = [run.op.placement.data for run in runs if run.op.placement is not None]
    offsets = [placement.offset - placements[0].offset for placement in placements]
    kinds = {placement.kind for placement in placements}
    if len(placements) < len(runs) or kinds != {"cyclic"} or not all(offset.is_constant for offset in offsets):
        return sum(run.most for run in runs)
    tasks = [0] * sms
    for run, offset in zip(runs, offsets, strict=True):
        for number in range(run.count):
            tasks[(number + offset.constant) % sms] += 1
    return max(tasks)
