"""C++ of the argmax of rows: of whole rows, of parts of rows, and of rows from their parts."""

from __future__ import annotations

from xdsl.ir import SSAValue

from ...amk_ir.errors import CompileError
from ...dialects.task import ArgmaxMergeOp, ArgmaxOp, ArgmaxPartOp, FamilyOp, LoadOp, op_of, shape_of
from .context import EmitContext
from .coordinates import Coordinates, Segment, address_of, row_major_strides
from .placement import PlacedTasks
from .source import SourceWriter
from .values import PLAIN_UNROLL, ElementLoop, ValueWriter

ARGMAX_OPS = (ArgmaxOp, ArgmaxPartOp, ArgmaxMergeOp)


def argmaxes_of(family: FamilyOp) -> list[ArgmaxOp | ArgmaxPartOp | ArgmaxMergeOp]:
    """The argmaxes of a family, of all kinds."""
    return [op for op in family.body.block.ops if isinstance(op, ARGMAX_OPS)]


def write_argmax(
    source: SourceWriter, context: EmitContext, run: PlacedTasks, op: ArgmaxOp | ArgmaxPartOp | ArgmaxMergeOp
) -> None:
    """A body with one argmax: task after task, row after row, each by all consumers."""
    tokens = shape_of(op.x)[0]
    if any(store.value is not op.result for store in run.family.stores):
        raise CompileError(f"family @{run.name}: an argmax must be stored as it is")
    with source.block(f"for (int tile = {run.begin}; tile < {run.end}; tile += {run.step})"):
        source.lines(run.index_lines())
        if isinstance(op, ArgmaxMergeOp):
            _write_parts(source, context, run, op)
        with source.block(f"for (int t = 0; t < {tokens}; ++t)"):
            if isinstance(op, ArgmaxMergeOp):
                parts, stride = shape_of(op.x)[1], op.stride.value.data
                source.line(f"Best best = share_best_part<{parts}, {stride}>(parts + t * {2 * parts});")
            else:
                _write_row(source, context, run, op.x)
            source.line("best = consumer_best(best, control.best);")
            if isinstance(op, ArgmaxPartOp):
                _store_part(source, context, run, op)
            else:
                _store_index(source, context, run, tokens)
            source.line("consumer_barrier();")
        context.trace.mark(source, "results", run.text)


def _write_row(source: SourceWriter, context: EmitContext, run: PlacedTasks, x: SSAValue) -> None:
    """Defines `best`, of this consumer's share of row `t`."""
    tokens, width = shape_of(x)
    values = ValueWriter(context, run.task, {})
    if (row := _plain_row(context, run, x)) is not None:
        source.line(f"Best best = share_best<{width}>({row});")
        return
    source.line("Best best = {__int_as_float(0xff800000), NO_INDEX};")
    text = values.value(x, Coordinates((Segment("t", (tokens,)), Segment("i", (width,)))))
    values.lines.append(f"best.take({text}, i);")
    ElementLoop.of(values, str(width), width, PLAIN_UNROLL).write(source, values)


def _plain_row(context: EmitContext, run: PlacedTasks, x: SSAValue) -> str | None:
    """A pointer to row `t` of a loaded tile whose rows are f32 at multiples of 16 bytes; None for any other value."""
    load = op_of(x)
    if not isinstance(load, LoadOp):
        return None
    storage, region = context.buffers[load.region.buffer], load.region.substitute(run.bound)
    *outer, stride = row_major_strides(storage.shape)
    # every start, and the step from row to row, is a multiple of four elements; columns are neighbours
    starts = [d.start * n for d, n in zip(region.dims, (*outer, stride), strict=True)]
    steps = [c for start in starts for c in (start.constant, *(n for _, n in start.terms))]
    rows = [n for d, n in zip(region.dims[:-1], outer, strict=True) if d.kept and d.extent > 1]
    if storage.tagged or storage.element != "f32" or any(n % 4 for n in (*steps, *rows)):
        return None
    if not region.dims[-1].kept or any(d.limit is not None for d in region.dims):
        return None
    context.use_buffer(storage.name)
    tokens, width = shape_of(x)
    at = Coordinates((Segment("t", (tokens,)), Segment("0", (width,))))
    return f"p.{storage.parameter} + ({address_of(region, storage.shape, at, run.task.own).offset})"


def _write_parts(source: SourceWriter, context: EmitContext, run: PlacedTasks, op: ArgmaxMergeOp) -> None:
    """Defines `parts`: what was found in all parts of all rows, in shared memory."""
    shape = shape_of(op.x)
    size = shape[0] * shape[1] * shape[2]
    context.need_work(4 * size)
    source.line("float* const parts = reinterpret_cast<float*>(work);")
    values = ValueWriter(context, run.task, {})
    text = values.value(op.x, Coordinates.flat("i", shape))
    values.lines.append(f"parts[i] = {text};")
    ElementLoop.of(values, str(size), size, context.loads.elements).write(source, values)
    source.line("consumer_barrier();")


def _store_part(source: SourceWriter, context: EmitContext, run: PlacedTasks, op: ArgmaxPartOp) -> None:
    at = Coordinates((Segment("t", shape_of(op.result)[:1]), Segment("i", (2,))))
    for store in run.family.stores:
        values = ValueWriter(context, run.task, {op.result: lambda at: f"best.part({at.dims[1]})"})
        values.store(store, at)
        ElementLoop.of(values, "2", 2, 1).write(source, values)


def _store_index(source: SourceWriter, context: EmitContext, run: PlacedTasks, tokens: int) -> None:
    for store in run.family.stores:
        storage = context.buffers[store.region.buffer]
        if storage.tagged:
            raise CompileError(f"family @{run.name}: an argmax must be stored to a plain buffer")
        context.use_buffer(storage.name)
        values = ValueWriter(context, run.task, {})
        address = values.address(store.region, Coordinates((Segment("t", (tokens,)),)))
        inside = f" && {address.inside}" if address.inside else ""
        source.line(
            f"if (threadIdx.x == 0{inside}) {context.pointer(storage)}[{address.offset}] = static_cast<int>(best.index);"
        )
