"""C++ that puts several rows of activations into shared memory: the loads of as many rows as possible are issued together.

One row after the other would wait for memory once a row.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod

from xdsl.ir import SSAValue

from ...amk_ir.errors import CompileError
from ...amk_ir.segments import BLOCK_K, THREADS, Segments
from ...dialects.task import LoadOp, RmsNormOp, op_of, shape_of
from .context import EmitContext
from .coordinates import Coordinates, Segment, row_major_strides
from .placement import PlacedTasks
from .source import SourceWriter
from .trace_points import PointKind
from .values import VECTOR, ElementLoop, ValueWriter, write_finish, write_finished


def write_rows(
    source: SourceWriter,
    context: EmitContext,
    run: PlacedTasks,
    x: SSAValue,
    norm: RmsNormOp | None,
    stride: str,
    segments: Segments | None = None,
) -> None:
    """Puts the rows of `x` into `Activations x`, `stride` elements apart; of a norm, all but its scale, and its sums.

    `base` must be this thread's number; of a norm, the squares of its elements are added to `squares[row]`. With `segments`,
    the part of each row that is segment number `segment`.
    """
    shape = shape_of(x)
    tokens = shape[0]
    if segments is None and (gather := RowGather.of(context, run, x, norm)) is not None:
        gather.write_wait(source, context)
        source.line(gather.text(stride, "squares" if norm is not None else "nullptr"))
        return
    budget = 8 * context.loads.elements // 3  # vectors; a thread has little else under way here
    rows = [_Row.of(context, run, x, norm, t, budget, segments) for t in range(tokens)]
    if not rows[0].loop.is_single:
        for row in rows:
            row.write(source, stride, alone=True)
        return
    # Who writes an element of one row writes that of the others at the same time. So only the first row is polled until
    # it is there: polls of all rows would keep the memory busy, and have to be repeated row by row.
    together = max(1, budget // rows[0].loop.unroll)
    for first, last in ((0, 1), *((n, n + together) for n in range(1, tokens, together))):
        with source.block(""):
            for row in rows[first:last]:
                row.loop.write_issue(source, row.values)
            for row in rows[first:last]:
                row.write(source, stride, alone=False)


GATHERED_TOGETHER = 4 * THREADS
"""Elements of a row that consumer threads gather with one vector each; as RowGather::SEGMENT, device/gather_rows.cuh."""


@dataclass(frozen=True)
class RowGather:
    """Rows that lie in memory as they are multiplied, as tagged words, and are copied by the hardware (device/gather_rows.cuh).

    width: elements of a row. place: of the first row's words: buffer, element. step: elements from row to row. weights: of a
    norm, if it is one.
    """

    width: int
    place: str
    step: int
    weights: str | None
    operation: int

    @staticmethod
    def of(context: EmitContext, run: PlacedTasks, x: SSAValue, norm: RmsNormOp | None) -> RowGather | None:
        """What gathers the rows of `x`; None if they do not lie like that."""
        load, shape = op_of(x if norm is None else norm.x), shape_of(x)
        if not isinstance(load, LoadOp) or prod(shape[1:]) % VECTOR:
            return None
        values = ValueWriter(context, run.task, {})
        storage = values.storage(load.region)
        first = values.address(load.region, Coordinates((Segment("0", shape[:1]), Segment("i", shape[1:]))))
        if not storage.tagged or first.run != "i" or first.inside:
            return None
        origin = Segment("0", shape[1:])
        weights = None
        if norm is not None:
            weight = op_of(norm.weight)
            if not isinstance(weight, LoadOp) or values.storage(weight.region).quantized is not None:
                return None
            at = values.address(weight.region, Coordinates((Segment("i", shape[1:]),)))
            if at.run != "i" or at.inside:
                return None
            context.use_buffer(weight.region.buffer)
            begin = values.address(weight.region, Coordinates((origin,))).offset
            weights = f"p.{values.storage(weight.region).parameter} + ({begin})"
        context.use_buffer(storage.name)
        rows = next(axis for axis, dim in enumerate(load.region.dims) if dim.kept)
        step = row_major_strides(storage.shape)[rows]
        operation = context.operation(f"the read of {load.region}", load.region.buffer)
        begin = values.address(load.region, Coordinates((Segment("0", shape[:1]), origin))).offset
        return RowGather(prod(shape[1:]), f"p.{storage.parameter}, {begin}", step, weights, operation)

    def write_wait(self, source: SourceWriter, context: EmitContext) -> None:
        """Waits for words of the first row, before all others are copied."""
        if self.weights is not None:
            source.line(f"prefetch_row<{self.width}>({self.weights});")
        source.line("hold_off();")
        source.line(f"await_row<{self.width}>({self.place}, epoch, watch, {self.operation});")
        context.trace.mark(source, context.operations[self.operation].text, kind=PointKind.WORDS)

    @property
    def _rows(self) -> str:
        return f"{self.place}, {self.step}, {self.weights or 'static_cast<const Unweighted*>(nullptr)'}"

    def text(self, stride: str, squares: str) -> str:
        """The call that gathers all rows, `stride` elements apart."""
        return f"gather<{self.width}, {stride}>({self._rows}, {squares}, epoch, {self.operation});"

    def product_arguments(self, norm_sums: str) -> str:
        """What a product that gathers the rows meanwhile takes after its own arguments."""
        return f"{self._rows}, {norm_sums}, epoch, {self.operation}"


class _Row:
    """One row: its values, as text, and the loop over its elements."""

    def __init__(self, values: ValueWriter, text: str, loop: ElementLoop, number: int):
        self.values, self.text, self.loop, self.number = values, text, loop, number

    @staticmethod
    def of(
        context: EmitContext,
        run: PlacedTasks,
        x: SSAValue,
        norm: RmsNormOp | None,
        number: int,
        budget: int,
        segments: Segments | None,
    ) -> _Row:
        shape = shape_of(x)
        where = Coordinates((Segment(str(number), shape[:1]), Segment("i", shape[1:])))
        values = ValueWriter(context, run.task, {}, f"row{number}_")
        text = values.value(x if norm is None else norm.x, where)
        if norm is not None:
            weight = values.value(norm.weight, where.select(range(1, len(shape))))
            values.lines.append(f"squares[{number}] += {text} * {text};")
            text = f"{text} * {weight}"
        width = prod(shape[1:])
        if segments is not None:
            size = segments.blocks * BLOCK_K
            _shift(run, values, text, size)
            loop = ElementLoop.of(values, str(size), size, budget)
            loop = replace(loop, total="size") if width % size else loop
        else:
            loop = ElementLoop.of(values, str(width), width, budget)
        return _Row(values, text, loop, number)

    def write(self, source: SourceWriter, stride: str, alone: bool) -> None:
        """Awaits the loads, issued before unless `alone`, and stores the row."""
        at = f"{self.number} * {stride} + "
        with source.block(""):
            if alone:
                with self.loop.rounds(source):
                    self.loop.write_loads(source, self.values)
                    self._write_elements(source, at)
                    write_finished(source, [self.values])
            else:
                write_finish(source, [self.values])
                self._write_elements(source, at)
                write_finished(source, [self.values])

    def _write_elements(self, source: SourceWriter, at: str) -> None:
        lines = self.values.lines
        if self.loop.vector > 1:
            self.values.lines = [*lines, f"row[v] = {self.text};"]
            self.loop.write_rows(source, self.values, f"x.put_four({at}first, row);")
        else:
            self.loop.write_elements(source, [*lines, f"x.put({at}i, {self.text});"])


def _shift(run: PlacedTasks, values: ValueWriter, text: str, size: int) -> None:
    """Makes `i` count from the start of segment number `segment`, of `size` elements."""
    if any(re.search(r"\bi\b", line) for line in (*values.lines, text)) or any(
        leaf.address.run != "i" or leaf.address.inside for leaf in values.leaves
    ):
        raise CompileError(
            f"family @{run.name}: its activations do not fit into shared memory, and are no pointwise function of "
            "neighbours in memory that could be computed a part at a time; use fewer tokens a step"
        )
    values.leaves = [
        replace(leaf, address=replace(leaf.address, offset=f"{leaf.address.offset} + segment * {size}"))
        for leaf in values.leaves
    ]
