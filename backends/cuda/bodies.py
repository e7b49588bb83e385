"""C++ of task bodies, by what a body contains: matmuls, an attention, an argmax, or only pointwise ops."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

from xdsl.ir import SSAValue

from ...amk_ir.errors import CompileError
from ...amk_ir.segments import BLOCK_K, Segments, partials_bytes
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
from .argmax import ARGMAX_OPS, argmaxes_of, write_argmax
from .attention import write_attended, write_attention, write_merge
from .context import EmitContext, attentions_of, weight_streams
from .coordinates import INDEX_PREFIX, Coordinates, Segment, sum_text
from .fragments import FragmentLayout
from .limits import MOST_TOKENS
from .placement import PlacedTasks
from .quantized_text import finish_activations, gathered_text, multiply_text, segment_text
from .rows import GATHERED_TOGETHER, RowGather, write_rows
from .source import SourceWriter
from .stores import StoreLoop, store_loop
from .values import (
    ElementLoop,
    Given,
    ValueWriter,
    write_finished,
)

MAX_GROUPS = 16
"""Groups of 8 weight rows whose sums a thread keeps in registers."""


def ops_of(family: FamilyOp, kind: type[MatmulOp | RmsNormOp]) -> list[SSAValue]:
    """The results of the ops of one kind in a family."""
    return [op.results[0] for op in family.body.block.ops if isinstance(op, kind)]


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
        shared = _prologue_text(context, run) if segments is None else ""
        last = position + 1
        if shared is not None and segments is None and INDEX_PREFIX not in shared:
            while (
                last < len(runs)
                and ops_of(runs[last].family, MatmulOp)
                and context.segments(runs[last].name, runs[last].most) is None
                and shared == _prologue_text(context, runs[last])
            ):
                last += 1
        _write_matmuls(source, context, runs[position:last], shared)
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


# ---- pointwise -------------------------------------------------------------------------------------------------------


def _write_pointwise(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> None:
    """All elements of all the SM's tasks in one loop."""
    with source.block(f"if ({run.begin} < {run.end})"):
        source.line(f"const int tasks = ({run.end} - {run.begin} + {run.step - 1}) / {run.step};")
        for store in run.family.stores:
            store_loop(context, run, store, {}, (run.begin, "tasks", run.most)).write(source)
        context.trace.mark(source, "results", run.text)


# ---- rows: loops that may contain one rms_norm -------------------------------------------------------------------------


def _write_norm_rows(
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
        _write_norm_rows(
            source,
            context,
            run,
            norm,
            (lambda t, text: f"row[{t} * {at}] = {text};", lambda t: f"row[{t} * {at}]"),
            [lambda values, at, store=store: values.store(store, at) for store in run.family.stores],
        )
        source.line("consumer_barrier();")
        context.trace.mark(source, "results", run.text)


# ---- matmul ----------------------------------------------------------------------------------------------------------


def _matmuls(family: FamilyOp) -> list[MatmulOp]:
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
            isinstance(op, AttentionOp) and op.result is matmuls[0].x and len(list(op.result.uses)) == len(matmuls)
        ):
            raise CompileError(
                f"family @{name}: '{op.name}' beside a task.matmul cannot be emitted, unless it is a task.attention that the "
                "matmul alone reads"
            )
    return matmuls


def _prologue_text(context: EmitContext, run: PlacedTasks) -> str | None:
    """C++ that puts the activations of a matmul family into shared memory; None if they differ from task to task of an SM."""
    if attentions_of(run.family):
        return None  # nobody else has them
    source = SourceWriter()
    _write_activations(source, context, run)
    used = set(re.findall(rf"\b{INDEX_PREFIX}(\w+)", source.text))
    return source.text if used <= run.steady else None


def _write_activations(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> None:
    """Puts the activations of a run's matmuls into shared memory, split; ends with a barrier."""
    x = _matmuls(run.family)[0].x
    if isinstance(op_of(x), AttentionOp):
        write_attended(source, context, run)
        return
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
    if _deferred_norm(run) is not None:
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

        _write_norm_rows(source, context, run, norm, (put_raw, get_raw), [put])
    source.line(f"}}\n{finish_activations(layout, shape[0])}")
    context.trace.read(source)
    if _deferred_norm(run) is not None:
        # behind the barrier, so that it waits for the activations alone; the barrier behind the products is theirs too
        source.unrolled(shape[0])
        source.line(f"for (int t = 0; t < {shape[0]}; ++t) put_norm_sum(norm_sums, t, squares[t]);")
    context.need_work(4 * shape[0] * layout.activations)


def _write_norm_sums(source: SourceWriter, run: PlacedTasks) -> None:
    """Where the sums of squares of a run's activations go, if its products are scaled by them."""
    if _deferred_norm(run) is not None:
        source.line("float* const norm_sums = control.norm_sums[norm_flip];\nnorm_flip ^= 1;")


def _gather_of(context: EmitContext, run: PlacedTasks) -> RowGather | None:
    """What gathers the activations of a run, if the first product of an SM is made meanwhile: of long rows, in whole stages."""
    x, layout = _matmuls(run.family)[0].x, context.streams[run.name].layout
    norm = op_of(x) if _deferred_norm(run) is not None else None
    assert norm is None or isinstance(norm, RmsNormOp)
    if context.tokens == 1 or not isinstance(layout, FragmentLayout) or layout.k <= GATHERED_TOGETHER:
        return None
    if layout.zeroed_k > layout.k or GATHERED_TOGETHER // BLOCK_K % layout.chunk_blocks:
        return None
    return RowGather.of(context, run, x, norm)


def _deferred_norm(run: PlacedTasks) -> str | None:
    """Where the activations of a run's matmuls are a norm itself: `width, eps` in C++.

    Its scale is a factor of the whole row, so it is applied to the products: then nobody waits for the sum of squares.
    """
    norm = op_of(_matmuls(run.family)[0].x)
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


def _write_matmuls(source: SourceWriter, context: EmitContext, runs: Sequence[PlacedTasks], shared: str | None) -> None:
    """Runs over one set of activations (`shared`), or one run whose activations belong to each task."""
    owns = " || ".join(f"{run.begin} < {run.end}" for run in runs)
    matmuls = [_Matmul.of(context, run, shared is not None) for run in runs]

    def write_shared() -> None:
        assert shared is not None
        source.line(shared.rstrip("\n"))
        context.trace.store(source, "activations", ", ".join(run.text for run in runs))

    with source.block(f"if ({owns})"):
        source.line("const int base = threadIdx.x;")
        if shared is not None and INDEX_PREFIX in shared:
            source.lines(runs[0].steady_lines())
        # what the products are combined with (residuals, biases, frequencies) is under way before the wait for activations
        for matmul in matmuls:
            if matmul.is_once:
                matmul.write_early(source)
        if shared is not None:
            _write_norm_sums(source, runs[0])
            matmuls[0].gather = _gather_of(context, runs[0])
            if matmuls[0].gather is None:
                write_shared()
            elif len(runs) > 1:
                with source.block(f"if ({runs[0].begin} >= {runs[0].end})"):
                    write_shared()
        for matmul in matmuls:
            source.line(f"// {matmul.run.text}")
            with source.block(""):
                matmul.write(source)


@dataclass
class _Matmul:
    """A run of tasks that multiply; `batch` of them, neighbours on their SM, between two barriers.

    function: what multiplies. slot: floats of partial sums a task. loops: what the tasks of a batch store.
    segments: of the activations, if they are not held at once. gather: of the activations, if an SM's first product does it.
    """

    context: EmitContext
    run: PlacedTasks
    is_shared: bool
    batch: int
    slot: int
    function: str
    operation: int
    loops: list[StoreLoop]
    segments: Segments | None
    gather: RowGather | None = None

    @staticmethod
    def of(context: EmitContext, run: PlacedTasks, is_shared: bool) -> _Matmul:
        stream = context.streams[run.name]
        layout, tokens = stream.layout, context.tokens
        if tokens > MOST_TOKENS:
            raise CompileError(
                f"the CUDA backend multiplies at most {MOST_TOKENS} tokens a step, the kernel has {tokens}"
            )
        if layout.groups > MAX_GROUPS:
            raise CompileError(
                f"family @{run.name}: a task has {layout.rows} weight rows, at most {MAX_GROUPS * 8} fit the registers"
            )
        slot = partials_bytes(tokens, layout.groups) // 4
        segments = context.segments(run.name, run.most)
        batch = max(1, min(run.most, context.partial_bytes // (4 * slot))) if is_shared else 1
        if segments is not None:
            if attentions_of(run.family):
                raise CompileError(
                    f"family @{run.name}: what it attends does not fit into shared memory; use fewer tokens a step"
                )
            batch = segments.batch
            context.need_work(segments.bytes)
        context.partial_floats = max(context.partial_floats, batch * slot)
        given: dict[SSAValue, Given] = {
            matmul.result: _product(run, layout.groups, tokens, slot if batch > 1 else 0, part.first_row)
            for matmul, part in zip(_matmuls(run.family), stream.parts, strict=True)
        }
        first, count = f"first_{run.number}", f"count_{run.number}"
        loops = [
            store_loop(context, run, store, given, (first, count, batch), f"load{run.number}_{number}_")
            for number, store in enumerate(run.family.stores)
        ]
        operation = context.operation(f"task.stream in @{run.name}, consumed")
        return _Matmul(context, run, is_shared, batch, slot, multiply_text(layout), operation, loops, segments)

    @property
    def is_once(self) -> bool:
        """Whether one batch has all tasks of an SM."""
        return self.run.most <= self.batch

    def write_early(self, source: SourceWriter) -> None:
        """What needs no activations, of a run with one batch an SM, which may have no tasks here."""
        run = self.run
        source.line(f"const int first_{run.number} = {run.begin};")
        source.line(
            f"const int count_{run.number} = "
            f"first_{run.number} < {run.end} ? ({run.end} - first_{run.number} + {run.step - 1}) / {run.step} : 0;"
        )
        self._write_issue(source)

    def _write_issue(self, source: SourceWriter) -> None:
        for loop in self.loops:
            if loop.is_single:
                loop.write_issue(source)

    def write(self, source: SourceWriter) -> None:
        """All batches; `base` is this thread's number."""
        run = self.run
        first, count = f"first_{run.number}", f"count_{run.number}"
        if self.is_once:
            with source.block(f"if ({count} > 0)"):
                self._write_batch(source)
            return
        step = run.step * self.batch
        with source.block(f"for (int {first} = {run.begin}; {first} < {run.end}; {first} += {step})"):
            if self.batch == 1:
                source.line(f"constexpr int {count} = 1;")
            else:
                left = f"({run.end} - {first} + {run.step - 1}) / {run.step}"
                source.line(f"const int left = {left}, {count} = left < {self.batch} ? left : {self.batch};")
            self._write_issue(source)
            self._write_batch(source)

    def _write_batch(self, source: SourceWriter) -> None:
        run = self.run
        if not self.is_shared:
            source.line(f"const int tile = first_{run.number};")
            source.lines(run.index_lines())
            _write_norm_sums(source, run)
            _write_activations(source, self.context, run)
            self.context.trace.store(source, "activations", run.text)
        source.line("float* partial = partials + flip * PARTIAL_FLOATS;")
        if self.segments is not None:
            self._write_segments(source, self.segments)
        else:
            self._write_products(source)
        trace = self.context.trace
        source.line("consumer_barrier();")
        trace.read(source)
        waits = any(loop.has_event for loop in self.loops)
        if waits:
            trace.store(source, "products", run.text)
        source.line("flip ^= 1;")
        if (deferred := _deferred_norm(run)) is not None:
            source.line(f"const NormScales<{self.context.tokens}> scales = {{norm_sums, {deferred}}};")
        for loop in self.loops:
            if loop.is_single:
                loop.write_rest(source)
            else:
                loop.write(source)
        if not waits:
            trace.store(source, "products", run.text)
        trace.mark(source, "results", run.text)

    def _write_products(self, source: SourceWriter) -> None:
        run = self.run
        layout = self.context.streams[run.name].layout
        traced = ", trace" if self.context.trace.has_stages else ""
        slots = "" if self.batch == 1 else f" + slot * {self.slot}"
        arguments = f"at, flip * PARTIAL_FLOATS{slots}, {self.operation}"
        with source.block("" if self.batch == 1 else f"for (int slot = 0; slot < count_{run.number}; ++slot)"):
            if self.gather is not None:
                assert isinstance(layout, FragmentLayout)
                norm_sums = "nullptr" if _deferred_norm(run) is None else "norm_sums"
                gathering = self.gather.product_arguments(norm_sums)
                is_first = [] if self.is_once else [f"first_{run.number} == {run.begin}"]
                is_first += [] if self.batch == 1 else ["slot == 0"]
                with source.block(f"if ({' && '.join(is_first)})" if is_first else ""):
                    self.gather.write_wait(source, self.context)
                    source.line(f"at = {gathered_text(layout)}({arguments}, {gathering}{traced});")
                if is_first:
                    source.line(f"else\n    at = {self.function}({arguments}{traced});")
            else:
                source.line(f"at = {self.function}({arguments}{traced});")
            self._skip_stages(source, layout.chunks)

    def _skip_stages(self, source: SourceWriter, stages: int) -> None:
        """After a call that has noted the stages that it took from the ring."""
        if self.context.trace.has_stages:
            source.line(f"trace.next += {2 * stages};  // two events a stage")

    def _write_segments(self, source: SourceWriter, segments: Segments) -> None:
        """All products of a batch: with the first segment of the activations, then with the next one."""
        run = self.run
        x = _matmuls(run.family)[0].x
        if ops_of(run.family, RmsNormOp):
            raise CompileError(
                f"family @{run.name}: the activations of a task.rms_norm do not fit into shared memory; use fewer tokens "
                "a step"
            )
        width, last = prod(shape_of(x)[1:]), segments.count - 1
        layout = self.context.streams[run.name].layout
        stride = f"activation_stride({segments.blocks})"
        source.line("#pragma unroll 1")
        with source.block(f"for (int segment = 0; segment < {segments.count}; ++segment)"):
            source.line("if (segment > 0) consumer_barrier();  // else others still multiply with the one before")
            if width % (segments.blocks * 32):
                source.line(
                    f"const int size = segment < {last} ? {segments.blocks * 32} : {width - last * segments.blocks * 32};"
                )
            source.line("const Activations x = activations(work);")
            write_rows(source, self.context, run, x, None, stride, segments)
            if width < segments.k_blocks * 32:
                with source.block(f"if (segment == {last})"):
                    source.line(f"const int i = {width - last * segments.blocks * 32} + threadIdx.x;")
                    with source.block(f"for (int t = 0; t < {segments.tokens}; ++t)"):
                        source.line(f"if (i < {segments.last_blocks * 32}) x.put(t * {stride} + i, 0.0f);")
            source.line("consumer_barrier();")
            self.context.trace.mark(source, "activations", run.text)
            with source.block(f"for (int slot = 0; slot < count_{run.number}; ++slot)"):
                traced = ", trace" if self.context.trace.has_stages else ""
                arguments = f"at, slot, segment, {last}, partial_at, {self.operation}{traced}"
                source.line(f"const int partial_at = flip * PARTIAL_FLOATS + slot * {self.slot};")
                sizes = {f"if (segment < {last})": segments.blocks, "else": segments.last_blocks}
                if segments.last_blocks == segments.blocks:
                    sizes = {"": segments.blocks}
                for condition, blocks in sizes.items():
                    with source.block(condition):
                        source.line(f"at = {segment_text(layout, blocks, segments.blocks)}({arguments});")
                        self._skip_stages(source, -(-blocks // segments.chunk_blocks))


def _product(run: PlacedTasks, groups: int, tokens: int, slot: int, first_row: int) -> Given:
    scale = "" if _deferred_norm(run) is None else " * scales.of({0})"

    def given(at: Coordinates) -> str:
        row = sum_text([(at.number(1, len(at.shape)), 1)], first_row)
        partial = f"partial + slot * {slot}" if slot else "partial"
        token = at.number(0, 1)
        return f"product<{groups}, {tokens}>({partial}, {token}, {row}){scale.format(token)}"

    return given
