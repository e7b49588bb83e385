"""C++ loops of the consumers over what tasks store."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xdsl.ir import SSAValue

from ...dialects.task import StoreOp, shape_of
from .context import EmitContext
from .coordinates import Coordinates
from .placement import PlacedTasks
from .source import SourceWriter
from .values import ElementLoop, Given, ValueWriter, is_traced, write_finish, write_finished


@dataclass
class StoreLoop:
    """A loop of the consumers over the elements that some tasks of a run store, in text."""

    values: ValueWriter
    loop: ElementLoop
    prelude: list[str]

    @property
    def is_single(self) -> bool:
        """Whether a thread has one round of elements, so that its loads can be written apart from the rest."""
        return self.loop.is_single

    @property
    def has_event(self) -> bool:
        """Whether a traced kernel notes a wait in it."""
        return is_traced([self.values], is_late=self.is_single)

    def write(self, source: SourceWriter) -> None:
        with source.block(""):
            self.loop.write(source, self.values, self.prelude)

    def write_issue(self, source: SourceWriter) -> None:
        """Starts the loads of a single round; `base` must be this thread's number."""
        self.loop.write_issue(source, self.values, self.prelude)

    def write_rest(self, source: SourceWriter) -> None:
        """What follows the start of the loads of a single round."""
        write_finish(source, [self.values], is_late=True)
        self.loop.write_elements(source, self.values.lines, self.prelude)
        write_finished(source, [self.values], is_late=True)


def store_loop(
    context: EmitContext,
    run: PlacedTasks,
    store: StoreOp,
    given: dict[SSAValue, Given],
    tasks: tuple[str, str, int],
    prefix: str = "load",
) -> StoreLoop:
    """The loop for one store of the `tasks` (number of the first, how many, how many at most); `slot` numbers the task."""
    first, count, most = tasks
    shape = shape_of(store.value)
    size = prod(shape)
    values = ValueWriter(context, run.task, given, prefix)
    values.store(store, Coordinates.flat("e", shape))
    prelude = [f"const int slot = i / {size}, e = i % {size};", f"const int tile = {first} + slot * {run.step};"]
    total = str(size) if count == "1" else f"{count} * {size}"
    if most == 1:
        prelude = ["const int e = i;", f"const int tile = {first};"]
    loop = ElementLoop.of(values, total, most * size, context.loads.elements)
    return StoreLoop(values, loop, [*prelude, *run.index_lines()])
