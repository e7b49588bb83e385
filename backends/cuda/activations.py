"""C++ that puts the activations of matrix products into shared memory: rows that are loaded, computed, or normed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod

from xdsl.ir import SSAValue

from ...amk_ir.errors import CompileError
from ...amk_ir.segments import BLOCK_K
from ...dialects.task import (
    AttentionMergeOp,
    AttentionOp,
    AttentionPartOp,
    FamilyOp,
    MatmulOp,
    RmsNormOp,
    op_of,
    shape_of,
)
from .argmax import ARGMAX_OPS
from .attention import write_attended, write_merged
from .context import EmitContext, attentions_of, weight_streams
from .coordinates import INDEX_PREFIX, Coordinates, Segment
from .fragments import FragmentLayout
from .placement import PlacedTasks
from .quantized_text import finish_activations
from .rows import GATHERED_TOGETHER, RowGather, write_rows
from .source import SourceWriter
from .values import ElementLoop, Given, ValueWriter, write_finished


def ops_of(family: FamilyOp, kind: type[MatmulOp | RmsNormOp]) -> list[SSAValue]:
    """The results of the ops of one kind in a family."""
    return [op.results[0] for op in family.body.block.ops if isinstance(op, kind)]


def matmuls_of(family: FamilyOp) -> list[MatmulOp]:
    """The matmuls in the order of their streams; CompileError unless they share their activations."""
    matmuls: list[MatmulOp] = []
    for stream, _ in weight_streams(family):
        user = next(iter(stream.result.uses)).operation
        assert isinstance(user, MatmulOp)  # checked when the packing was planned
        matmuls.append(user)
    name = family.sym_name.data
    for op in family.body.block.ops:
        if isinstance(op, MatmulOp) and op not in matmuls:
            raise CompileError(f"family @{name}: the weight of a task.matmul must be a task.stream")
    if len({m.x for m in matmuls}) != 1:
        raise CompileError(f"family @{name}: its matmuls multiply different activations; split it into families")
    for op in family.body.block.ops:
        if isinstance(op, (AttentionOp, AttentionPartOp, AttentionMergeOp, *ARGMAX_OPS)) and not (
            isinstance(op, AttentionOp | AttentionMergeOp)
            and op.result is matmuls[0].x
            and len(list(op.result.uses)) == len(matmuls)
        ):
            raise CompileError(
                f"family @{name}: '{op.name}' beside a task.matmul cannot be emitted, unless it is a task.attention or "
                "task.attention_merge that the matmul alone reads"
            )
    return matmuls


def prologue_text(context: EmitContext, run: PlacedTasks) -> str | None:
    """C++ that puts the activations of a matmul family into shared memory; None if they differ from task to task of an SM."""
    if attentions_of(run.family):
        return None  # nobody else has them
    source = SourceWriter()
    write_activations(source, context, run)
    used = set(re.findall(rf"\b{INDEX_PREFIX}(\w+)", source.text))
    return source.text if used <= run.steady else None


def write_activations(
    source: SourceWriter, context: EmitContext, run: PlacedTasks, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Puts the activations of a run's matmuls into shared memory, split; ends with a barrier.

    meanwhile: writes what needs no activations, where it is done while they are waited for.
    """
    match op_of(matmuls_of(run.family)[0].x):
        case AttentionOp():
            write_attended(source, context, run, meanwhile)
        case AttentionMergeOp() as merge:
            write_merged(source, context, run, merge, meanwhile)
        case _:
            meanwhile()
            _write_computed(source, context, run)
    context.trace.read(source)


def _write_computed(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> None:
    """Activations that are loaded and computed element by element, or a norm's."""
    x = matmuls_of(run.family)[0].x
    shape = shape_of(x)
    layout = context.streams[run.name].layout
    norms = [value for value in ops_of(run.family, RmsNormOp) if _depends_on(x, value)]
    if len(norms) > 1:
        raise CompileError(f"family @{run.name}: at most one task.rms_norm before a matmul, found {len(norms)}")
    norm = op_of(norms[0]) if norms else None
    assert norm is None or isinstance(norm, RmsNormOp)
    if norm is not None and shape_of(norm.x) != shape:
        raise CompileError(f"family @{run.name}: task.rms_norm of {shape_of(norm.x)} for activations of {shape}")
    at = "i" if shape[0] == 1 else f"t * {layout.activations} + i"
    source.line("const Activations x = activations(work);")
    if deferred_norm(run) is not None:
        source.line(f"float squares[{shape[0]}] = {{}};  // of this thread's elements of each row")
    source.line("{")
    if norm is None or norm.result is x:
        _write_row_activations(source, context, run, x, norm)
    else:

        def put(values: ValueWriter, where: Coordinates) -> None:
            values.lines.append(f"x.put({at}, {values.value(x, where)});")

        def put_raw(_: str, text: str) -> str:
            return f"x.put_raw({at}, {text});"

        def get_raw(_: str) -> str:
            return f"x.get_raw({at})"

        write_norm_rows(source, context, run, norm, (put_raw, get_raw), [put])
    source.line(f"}}\n{finish_activations(layout, shape[0])}")
    context.need_work(4 * shape[0] * layout.activations)


def write_sums_place(source: SourceWriter, run: PlacedTasks) -> None:
    """Where the sums of squares of a run's activations go, if its products are scaled by them."""
    if deferred_norm(run) is not None:
        source.line("float* const norm_sums = control.norm_sums[norm_flip];\nnorm_flip ^= 1;")


def norm_sums_text(run: PlacedTasks, tokens: int) -> str:
    """What puts them there, if the products are scaled by them: behind the barrier of the activations, which others wait at. The
    barrier behind the products makes them known."""
    if deferred_norm(run) is None:
        return ""
    return f"for (int t = 0; t < {tokens}; ++t) put_norm_sum(norm_sums, t, squares[t]);"


def gather_of(context: EmitContext, run: PlacedTasks) -> RowGather | None:
    """What gathers the activations of a run, if the first product of an SM is made meanwhile: of long rows, in whole stages."""
    x, layout = matmuls_of(run.family)[0].x, context.streams[run.name].layout
    norm = op_of(x) if deferred_norm(run) is not None else None
    assert norm is None or isinstance(norm, RmsNormOp)
    if context.tokens == 1 or not context.loads.gathers or context.segments(run.name, run.most) is not None:
        return None
    if not isinstance(layout, FragmentLayout) or layout.k <= GATHERED_TOGETHER:
        return None
    if layout.zeroed_k > layout.k or GATHERED_TOGETHER // BLOCK_K % layout.chunk_blocks:
        return None
    return RowGather.of(context, run, x, norm)


def deferred_norm(run: PlacedTasks) -> str | None:
    """Where the activations of a run's matmuls are a norm itself: `width, eps` in C++.

    Its scale is a factor of the whole row, so it is applied to the products: then nobody waits for the sum of squares.
    """
    norm = op_of(matmuls_of(run.family)[0].x)
    if not isinstance(norm, RmsNormOp):
        return None
    return f"{float(prod(shape_of(norm.x)[1:]))!r}f, {norm.eps.value.data!r}f"


def _write_row_activations(
    source: SourceWriter, context: EmitContext, run: PlacedTasks, x: SSAValue, norm: RmsNormOp | None
) -> None:
    """Activations that are known element by element; of a norm, all but its scale, and its sums of squares."""
    shape = shape_of(x)
    if shape[0] > 1:
        write_rows(source, context, run, x, norm, str(context.streams[run.name].layout.activations))
        return
    width = prod(shape[1:])
    where = Coordinates((Segment("0", shape[:1]), Segment("i", shape[1:])))
    values = ValueWriter(context, run.task, {})
    text = values.value(x if norm is None else norm.x, where)
    if norm is not None:
        weight = values.value(norm.weight, where.select(range(1, len(shape))))
        values.lines.append(f"squares[0] += {text} * {text};")
        text = f"{text} * {weight}"
    loop = ElementLoop.of(values, str(width), width, context.loads.elements)
    if values.has_words:
        source.line("hold_off();")
    with loop.rounds(source):
        loop.write_loads(source, values)
        if loop.vector > 1:
            values.lines.append(f"row[v] = {text};")
            loop.write_rows(source, values, "x.put_four(first, row);")
        else:
            loop.write_elements(source, [*values.lines, f"x.put(i, {text});"])
        write_finished(source, [values])


def _depends_on(value: SSAValue, on: SSAValue) -> bool:
    op = op_of(value)
    return value is on or (op is not None and any(_depends_on(operand, on) for operand in op.operands))


# ---- norms ------------------------------------------------------------------------------------------------------------


def write_norm_rows(
    source: SourceWriter,
    context: EmitContext,
    run: PlacedTasks,
    norm: RmsNormOp,
    raw: tuple[Callable[[str, str], str], Callable[[str], str]],
    finish: Sequence[Callable[[ValueWriter, Coordinates], None]],
) -> None:
    """Evaluates what is made of `norm`, element by element, each `finish` in a loop of its own after the norm's sums.

    raw: (put, get) statements that keep the value to be normed, at element number `t * width + i` of its own.
    """
    shape = shape_of(norm.x)
    tokens, width = shape[0], prod(shape[1:])
    at = Coordinates((Segment("t", (tokens,)), Segment("i", shape[1:])))
    row = "t" if tokens > 1 else "0"

    def loop(values: ValueWriter) -> None:
        source.unrolled(tokens)
        with source.block(f"for (int t = 0; t < {tokens}; ++t)"):
            # a thread reads back what it wrote, so all loops are dealt out alike
            replace(ElementLoop.of(values, str(width), width, context.loads.elements), vector=1).write(source, values)

    values = ValueWriter(context, run.task, {})
    text = values.value(norm.x, at)
    values.lines.append(raw[0](row, text))
    values.lines.append(f"sums[{row}] += {text} * {text};")
    source.line(f"float sums[{tokens}] = {{}};")
    loop(values)
    source.line("consumer_sum(sums, control.norm_sums[2]);")
    source.unrolled(tokens)
    source.line(
        f"for (int t = 0; t < {tokens}; ++t) "
        f"sums[t] = 1.0f / sqrtf(sums[t] / {float(width)!r}f + {norm.eps.value.data!r}f);"
    )
    given: dict[SSAValue, Given] = {}
    for number, write in enumerate(finish):
        values = ValueWriter(context, run.task, given, f"load{number}_")
        given[norm.result] = _normed(run, norm, at, row, raw[1], values)
        write(values, at)
        loop(values)


def _normed(
    run: PlacedTasks, norm: RmsNormOp, at: Coordinates, row: str, get: Callable[[str], str], values: ValueWriter
) -> Given:
    def given(wanted: Coordinates) -> str:
        if wanted != at:
            raise CompileError(f"family @{run.name}: the elements of a task.rms_norm must be used in place")
        weight = values.value(norm.weight, at.select(range(1, len(at.shape))))
        return f"{get(row)} * sums[{row}] * {weight}"

    return given
