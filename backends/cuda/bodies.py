"""C++ of task bodies, by what a body contains: matmuls, an attention, an argmax, or only pointwise ops."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xdsl.ir import SSAValue

from ...amk_ir.errors import CompileError
from ...dialects.task import AttentionMergeOp, FamilyOp, MatmulOp, RmsNormOp, op_of, shape_of
from .activations import ops_of, prologue_text, write_norm_rows
from .argmax import argmaxes_of, write_argmax
from .attention import write_attention, write_merge
from .context import EmitContext, attentions_of
from .coordinates import INDEX_PREFIX
from .matmuls import write_matmuls
from .placement import PlacedTasks
from .source import SourceWriter
from .stores import store_loop


def has_barrier_before_stores(family: FamilyOp) -> bool:
    """Whether all consumers pass a barrier between the start of a task and what it stores."""
    return bool(ops_of(family, MatmulOp) or attentions_of(family))


def write_run_group(source: SourceWriter, context: EmitContext, runs: Sequence[PlacedTasks]) -> None:
    """Consecutive runs: those that multiply the same activations share them in shared memory."""
    position = 0
    while position < len(runs):
        run = runs[position]
        if not ops_of(run.family, MatmulOp):
            _write_single(source, context, run)
            position += 1
            continue
        segments = context.segments(run.name, run.most)
        shared = prologue_text(context, run) if segments is None else ""
        last = position + 1
        if shared is not None and segments is None and INDEX_PREFIX not in shared:
            while (
                last < len(runs)
                and ops_of(runs[last].family, MatmulOp)
                and context.segments(runs[last].name, runs[last].most) is None
                and shared == prologue_text(context, runs[last])
            ):
                last += 1
        write_matmuls(source, context, runs[position:last], shared)
        position = last


def _write_single(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> None:
    attentions, argmaxes = attentions_of(run.family), argmaxes_of(run.family)
    source.line(f"// {run.text}")
    if len(attentions) + len(argmaxes) > 1:
        raise CompileError(
            f"family @{run.name}: one attention or argmax a body, found {len(attentions) + len(argmaxes)}"
        )
    if attentions:
        write_attention(source, context, run, attentions[0])
    elif merges := [op for op in run.family.body.block.ops if isinstance(op, AttentionMergeOp)]:
        write_merge(source, context, run, merges)
    elif argmaxes:
        write_argmax(source, context, run, argmaxes[0])
    elif norms := ops_of(run.family, RmsNormOp):
        _write_norm(source, context, run, norms)
    else:
        _write_pointwise(source, context, run)


def _write_pointwise(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> None:
    """All elements of all the SM's tasks in one loop."""
    with source.block(f"if ({run.begin} < {run.end})"):
        source.line(f"const int tasks = ({run.end} - {run.begin} + {run.step - 1}) / {run.step};")
        for store in run.family.stores:
            store_loop(context, run, store, {}, (run.begin, "tasks", run.most)).write(source)
        context.trace.mark(source, "results", run.text)


def _write_norm(source: SourceWriter, context: EmitContext, run: PlacedTasks, norms: Sequence[SSAValue]) -> None:
    """A body with one rms_norm and pointwise ops: one task at a time, its row in shared memory."""
    norm = op_of(norms[0])
    assert isinstance(norm, RmsNormOp)
    shape = shape_of(norm.x)
    if len(norms) > 1 or any(shape_of(store.value) != shape for store in run.family.stores):
        raise CompileError(f"family @{run.name}: a body has one task.rms_norm, and stores tiles of its shape {shape}")
    context.need_work(4 * prod(shape))
    with source.block(f"for (int tile = {run.begin}; tile < {run.end}; tile += {run.step})"):
        source.lines(run.index_lines())
        source.line("float* row = reinterpret_cast<float*>(work);")
        at = f"{prod(shape[1:])} + i"
        write_norm_rows(
            source,
            context,
            run,
            norm,
            (lambda t, text: f"row[{t} * {at}] = {text};", lambda t: f"row[{t} * {at}]"),
            [lambda values, at, store=store: values.store(store, at) for store in run.family.stores],
        )
        source.line("consumer_barrier();")
        context.trace.mark(source, "results", run.text)
