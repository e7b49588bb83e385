"""C++ of task bodies, by what a body contains: matmuls, an attention, an argmax, or only pointwise ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log, prod

from xdsl.ir import SSAValue

from ...amk_ir.errors import CompileError
from ...amk_ir.linear import POSITION
from ...dialects.task import (
    AttentionOp,
    FamilyOp,
    LoadOp,
    MatmulOp,
    RmsNormOp,
    StoreOp,
    op_of,
    shape_of,
)
from .argmax import ARGMAX_OPS, argmaxes_of, write_argmax
from .context import EmitContext
from .coordinates import INDEX_PREFIX, Coordinates, Segment, linear_text, row_major_strides, sum_text
from .placement import PlacedTasks
from .quantized_text import activations_text, finish_activations, multiply_text, put_four
from .source import SourceWriter
from .values import (
    ElementLoop,
    Given,
    ValueWriter,
)

MAX_GROUPS = 16
"""Groups of 8 weight rows whose sums a thread keeps in registers."""


def activation_stride(k_blocks: int) -> int:
    """Elements from one row of split activations to the next; as in device/matvec.cuh."""
    return k_blocks * 32 + 4


def ops_of(family: FamilyOp, kind: type[MatmulOp | AttentionOp | RmsNormOp]) -> list[SSAValue]:
    """The results of the ops of one kind in a family."""
    return [op.results[0] for op in family.body.block.ops if isinstance(op, kind)]


def has_barrier_before_stores(family: FamilyOp) -> bool:
    """Whether all consumers pass a barrier between the start of a task and what it stores."""
    return bool(ops_of(family, MatmulOp) or ops_of(family, AttentionOp))


def write_run_group(source: SourceWriter, context: EmitContext, runs: Sequence[PlacedTasks]) -> None:
    """Consecutive runs: those that multiply the same activations share them in shared memory."""
    position = 0
    while position < len(runs):
        run = runs[position]
        if not ops_of(run.family, MatmulOp):
            _write_single(source, context, run)
            position += 1
            continue
        shared = _prologue_text(context, run)
        last = position + 1
        if shared is not None:
            while (
                last < len(runs)
                and ops_of(runs[last].family, MatmulOp)
                and shared == _prologue_text(context, runs[last])
            ):
                last += 1
        _write_matmuls(source, context, runs[position:last], shared)
        position = last


def _write_single(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> None:
    attentions, argmaxes = ops_of(run.family, AttentionOp), argmaxes_of(run.family)
    source.line(f"// {run.text}")
    if len(attentions) + len(argmaxes) > 1:
        raise CompileError(
            f"family @{run.name}: one attention or argmax a body, found {len(attentions) + len(argmaxes)}"
        )
    if attentions:
        _write_attention(source, context, run)
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
            _store_loop(context, run, store, {}, (run.begin, "tasks", run.most)).write(source)


@dataclass
class _StoreLoop:
    """A loop of the consumers over the elements that some tasks of a run store, in text."""

    values: ValueWriter
    loop: ElementLoop
    prelude: list[str]

    @property
    def is_single(self) -> bool:
        """Whether a thread has one round of elements, so that its loads can be written apart from the rest."""
        return self.loop.is_single

    def write(self, source: SourceWriter) -> None:
        with source.block(""):
            self.loop.write(source, self.values, self.prelude)

    def write_issue(self, source: SourceWriter) -> None:
        """Starts the loads of a single round; `base` must be this thread's number."""
        self.loop.write_issue(source, self.values, self.prelude)

    def write_rest(self, source: SourceWriter) -> None:
        """What follows the start of the loads of a single round."""
        self.loop.write_finish(source, self.values)
        self.loop.write_elements(source, self.values.lines, self.prelude)


def _store_loop(
    context: EmitContext,
    run: PlacedTasks,
    store: StoreOp,
    given: dict[SSAValue, Given],
    tasks: tuple[str, str, int],
    prefix: str = "load",
) -> _StoreLoop:
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
    return _StoreLoop(values, loop, [*prelude, *run.index_lines()])


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
    source.line("consumer_sum(sums, control.norm_sums);")
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


# ---- matmul ----------------------------------------------------------------------------------------------------------


def _matmuls(family: FamilyOp) -> list[MatmulOp]:
    """The matmuls in the order of their streams; CompileError unless they share their activations."""
    matmuls: list[MatmulOp] = []
    for stream in family.streams:
        user = next(iter(stream.result.uses)).operation
        assert isinstance(user, MatmulOp)  # checked when the packing was planned
        matmuls.append(user)
    name = family.sym_name.data
    for op in family.body.block.ops:
        if isinstance(op, MatmulOp) and op not in matmuls:
            raise CompileError(f"family @{name}: the weight of a task.matmul must be a task.stream")
        if isinstance(op, (AttentionOp, *ARGMAX_OPS)):
            raise CompileError(f"family @{name}: '{op.name}' beside a task.matmul cannot be emitted")
    if len({m.x for m in matmuls}) != 1:
        raise CompileError(f"family @{name}: its matmuls multiply different activations; split it into families")
    return matmuls


def _prologue_text(context: EmitContext, run: PlacedTasks) -> str | None:
    """C++ that puts the activations of a matmul family into shared memory; None if they differ from task to task."""
    source = SourceWriter()
    _write_activations(source, context, run)
    return None if INDEX_PREFIX in source.text else source.text


def _write_activations(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> None:
    """Puts the activations of a run's matmuls into shared memory, split; ends with a barrier."""
    x = _matmuls(run.family)[0].x
    shape = shape_of(x)
    layout = context.streams[run.name].layout
    norms = [value for value in ops_of(run.family, RmsNormOp) if _depends_on(x, value)]
    if len(norms) > 1:
        raise CompileError(f"family @{run.name}: at most one task.rms_norm before a matmul, found {len(norms)}")
    norm = op_of(norms[0]) if norms else None
    assert norm is None or isinstance(norm, RmsNormOp)
    if norm is not None and shape_of(norm.x) != shape:
        raise CompileError(f"family @{run.name}: task.rms_norm of {shape_of(norm.x)} for activations of {shape}")
    row = "" if shape[0] == 1 else f"t * {layout.activations} + "
    at = f"{row}i"
    source.line(f"{activations_text(layout)}\n{{")
    by_fours = False
    if norm is None or norm.result is x:
        by_fours = _write_row_activations(source, context, run, x, norm, row)
    else:

        def put(values: ValueWriter, where: Coordinates) -> None:
            values.lines.append(f"x.put({at}, {values.value(x, where)});")

        def put_raw(_: str, text: str) -> str:
            return f"x.put_raw({at}, {text});"

        def get_raw(_: str) -> str:
            return f"x.get_raw({at})"

        _write_norm_rows(source, context, run, norm, (put_raw, get_raw), [put])
    if layout.zeroed_k > layout.k:
        with source.block(f"for (int t = 0; t < {shape[0]}; ++t)"):
            source.line(f"const int i = {layout.k} + threadIdx.x;")
            source.line(f"if (i < {layout.zeroed_k}) x.put({at}, 0.0f);")
    source.line(f"}}\n{finish_activations(layout, shape[0], by_fours)}")
    context.mark(source, "activations")
    if (deferred := _deferred_norm(run)) is not None:
        source.line(f"const NormScales<{shape[0]}> scales(control.norm_sums, {deferred});")
    context.need_work(4 * shape[0] * layout.activations)


def _deferred_norm(run: PlacedTasks) -> str | None:
    """Where the activations of a run's matmuls are a norm itself: `width, eps` in C++.

    Its scale is a factor of the whole row, so it is applied to the products: then nobody waits for the sum of squares.
    """
    norm = op_of(_matmuls(run.family)[0].x)
    if not isinstance(norm, RmsNormOp):
        return None
    return f"{float(prod(shape_of(norm.x)[1:]))!r}f, {norm.eps.value.data!r}f"


def _write_row_activations(
    source: SourceWriter, context: EmitContext, run: PlacedTasks, x: SSAValue, norm: RmsNormOp | None, row: str
) -> bool:
    """Activations that are known element by element; of a norm, all but its scale, and its sums of squares.

    Returns whether they are put by fours.
    """
    shape = shape_of(x)
    tokens, width = shape[0], prod(shape[1:])
    where = Coordinates((Segment("t", (tokens,)), Segment("i", shape[1:])))
    values = ValueWriter(context, run.task, {})
    text = values.value(x if norm is None else norm.x, where)
    if norm is not None:
        weight = values.value(norm.weight, where.select(range(1, len(shape))))
        values.lines.append(f"square += {text} * {text};")
        text = f"{text} * {weight}"
    loop = ElementLoop.of(values, str(width), width, context.loads.elements)
    source.unrolled(tokens)
    with source.block(f"for (int t = 0; t < {tokens}; ++t)"):
        if norm is not None:
            source.line("float square = 0.0f;")
        with loop.rounds(source):
            loop.write_loads(source, values)
            if loop.vector > 1:
                values.lines.append(f"row[v] = {text};")
                loop.write_rows(source, values, f"x.{put_four(context.streams[run.name].layout)}({row}first, row);")
            else:
                loop.write_elements(source, [*values.lines, f"x.put({row}i, {text});"])
        if norm is not None:
            source.line("put_norm_sum(control.norm_sums, t, square);")
    return loop.vector > 1


def _depends_on(value: SSAValue, on: SSAValue) -> bool:
    op = op_of(value)
    return value is on or (op is not None and any(_depends_on(operand, on) for operand in op.operands))


def _write_matmuls(source: SourceWriter, context: EmitContext, runs: Sequence[PlacedTasks], shared: str | None) -> None:
    """Runs over one set of activations (`shared`), or one run whose activations belong to each task."""
    owns = " || ".join(f"{run.begin} < {run.end}" for run in runs)
    matmuls = [_Matmul.of(context, run, shared is not None) for run in runs]
    with source.block(f"if ({owns})"):
        source.line("const int base = threadIdx.x;")
        # what the products are combined with (residuals, biases, frequencies) is under way before the wait for activations
        for matmul in matmuls:
            if matmul.is_once:
                matmul.write_early(source)
        if shared is not None:
            source.line(shared.rstrip("\n"))
        for matmul in matmuls:
            source.line(f"// {matmul.run.text}")
            with source.block(""):
                matmul.write(source)


@dataclass
class _Matmul:
    """A run of tasks that multiply; `batch` of them, neighbours on their SM, between two barriers.

    function: what multiplies. slot: floats of partial sums a task. loops: what the tasks of a batch store.
    """

    context: EmitContext
    run: PlacedTasks
    is_shared: bool
    batch: int
    slot: int
    function: str
    operation: int
    loops: list[_StoreLoop]

    @staticmethod
    def of(context: EmitContext, run: PlacedTasks, is_shared: bool) -> _Matmul:
        stream = context.streams[run.name]
        layout, tokens = stream.layout, context.tokens
        if tokens > 8:
            raise CompileError(f"the CUDA backend multiplies at most 8 tokens a step, the kernel has {tokens}")
        if layout.groups > MAX_GROUPS:
            raise CompileError(
                f"family @{run.name}: a task has {layout.rows} weight rows, at most {MAX_GROUPS * 8} fit the registers"
            )
        slot = 8 * tokens * layout.groups * 8
        batch = max(1, min(run.most, context.partial_bytes // (4 * slot))) if is_shared else 1
        context.partial_floats = max(context.partial_floats, batch * slot)
        given: dict[SSAValue, Given] = {
            matmul.result: _product(run, layout.groups, tokens, slot if batch > 1 else 0, part.first_row)
            for matmul, part in zip(_matmuls(run.family), stream.parts, strict=True)
        }
        first, count = f"first_{run.number}", f"count_{run.number}"
        loops = [
            _store_loop(context, run, store, given, (first, count, batch), f"load{run.number}_{number}_")
            for number, store in enumerate(run.family.stores)
        ]
        operation = context.operation(f"task.stream in @{run.name}, consumed")
        return _Matmul(context, run, is_shared, batch, slot, multiply_text(layout), operation, loops)

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
            _write_activations(source, self.context, run)
        source.line("float* partial = partials + flip * PARTIAL_FLOATS;")
        product = f"at = {self.function}(at, flip * PARTIAL_FLOATS"
        if self.batch == 1:
            source.line(f"{product}, {self.operation});")
        else:
            source.line(
                f"for (int slot = 0; slot < count_{run.number}; ++slot)\n"
                f"    {product} + slot * {self.slot}, {self.operation});"
            )
        source.line("consumer_barrier();")
        self.context.mark(source, f"product of @{run.name}")
        source.line("flip ^= 1;")
        for loop in self.loops:
            if loop.is_single:
                loop.write_rest(source)
            else:
                loop.write(source)
        self.context.mark(source, f"results of @{run.name}")


def _product(run: PlacedTasks, groups: int, tokens: int, slot: int, first_row: int) -> Given:
    scale = "" if _deferred_norm(run) is None else " * scales.of({0})"

    def given(at: Coordinates) -> str:
        row = sum_text([(at.number(1, len(at.shape)), 1)], first_row)
        partial = f"partial + slot * {slot}" if slot else "partial"
        token = at.number(0, 1)
        return f"product<{groups}, {tokens}>({partial}, {token}, {row}){scale.format(token)}"

    return given


# ---- attention -------------------------------------------------------------------------------------------------------


def write_early_loads(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> None:
    """Loads, before the waits of an attention's run, what they need not be waited for: the start of its KV cache.

    Rows below `pos` were written by earlier launches: no task of this kernel stores to them, which is checked here, so
    no order of this launch's events can change what is read. All rows from `pos` on are read after the waits.
    """
    attentions = ops_of(run.family, AttentionOp)
    if not attentions:
        return
    attention = _Attention.of(context, run)
    if not (_is_append_only(context, attention.op.k) and _is_append_only(context, attention.op.v)):
        return
    context.started.add(run.number)
    name = f"cached_{run.number}"
    source.line(f"{attention.tile_type} {name};")
    with source.block(f"if ({run.begin} < {run.end})"):
        source.line(f"const int tile = {run.begin};")
        source.lines(run.index_lines())
        source.line(f"{name}.load({attention.keys}, {attention.values}, 0, pos);")
        q = op_of(attention.op.q)
        if run.most == 1 and isinstance(q, LoadOp) and context.buffers[q.region.buffer].tagged:
            # tagged words are awaited here: the wait for counters goes on meanwhile, and its barrier serves both
            context.asked.add(run.number)
            source.line("const Activations queries = activations(work);")
            _write_queries(source, context, run, attention)


def _is_append_only(context: EmitContext, tile: SSAValue) -> bool:
    """Whether all stores to the buffer of a loaded tile are to positions from `pos` on."""
    load = op_of(tile)
    assert isinstance(load, LoadOp)
    axis = next(axis for axis, d in enumerate(load.region.dims) if d.kept)
    starts = [
        store.region.dims[axis].start
        for family in context.kernel.families.values()
        for store in family.stores
        if store.region.buffer == load.region.buffer
    ]
    # indices are never negative
    return all(
        start.coefficient(POSITION) == 1 and start.constant >= 0 and all(c >= 0 for _, c in start.terms)
        for start in starts
    )


@dataclass(frozen=True)
class _Attention:
    """The attention of a run. keys, values: pointers to a task's first head. loads: 16-byte loads of a lane at a time."""

    op: AttentionOp
    tokens: int
    heads: int
    kv_heads: int
    dim: int
    keys: str
    values: str
    position_stride: int
    head_stride: int
    loads: int
    element: str

    @staticmethod
    def of(context: EmitContext, run: PlacedTasks) -> _Attention:
        op = op_of(ops_of(run.family, AttentionOp)[0])
        assert isinstance(op, AttentionOp)
        shape = shape_of(op.q)
        dim = 2 * shape[3]
        if dim > 256:
            raise CompileError(f"family @{run.name}: head_dim {dim} is more than the 256 that attention is written for")
        keys, strides, element = _cache(context, run, op.k, dim)
        values, value_strides, value_element = _cache(context, run, op.v, dim)
        if (strides, element) != (value_strides, value_element):
            raise CompileError(f"family @{run.name}: keys and values must be stored alike")
        return _Attention(
            op, shape[0], shape[1], shape_of(op.k)[1], dim, keys, values, *strides, context.loads.attention, element
        )

    @property
    def tile_type(self) -> str:
        return f"CachedTile<{self.dim}, {self.position_stride}, {self.loads}, {self.element}>"

    @property
    def blocks(self) -> int:
        """Blocks of 32 elements of a query."""
        return -(-self.dim // 32)

    @property
    def query_stride(self) -> int:
        return activation_stride(self.blocks)

    @property
    def scratch(self) -> int:
        """Floats of scratch; as `attention_scratch` in device/attention.cuh."""
        most = 8 if self.dim <= 64 else 4 if self.dim <= 128 else 2
        return 8 * min(self.heads // self.kv_heads * self.tokens, most) * (self.dim + 2)


def _write_attention(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> None:
    attention = _Attention.of(context, run)
    op, dim, stride = attention.op, attention.dim, attention.query_stride
    size, rows = prod(shape_of(op.q)), attention.tokens * attention.heads
    keys, cached_values, stop = attention.keys, attention.values, f"pos + {attention.tokens}"
    context.need_work(4 * (rows * stride + size + attention.scratch))
    started = run.number in context.started
    cached = f"cached_{run.number}"
    once = run.most == 1
    first = run.begin if once else "task"
    loop = (
        f"if ({run.begin} < {run.end})"
        if once
        else f"for (int task = {run.begin}; task < {run.end}; task += {run.step})"
    )
    with source.block(loop):
        source.line(f"const int tile = {first};")
        source.lines(run.index_lines())
        known = "pos" if once else f"task == {run.begin} ? pos : 0"
        if not started:
            source.line(f"{attention.tile_type} {cached};")
            known = "0"
        source.line(f"{cached}.load({keys}, {cached_values}, {known}, {stop});")
        source.line("const Activations queries = activations(work);")
        source.line(f"float* attended = reinterpret_cast<float*>(work) + {rows * stride};")
        if run.number not in context.asked:
            _write_queries(source, context, run, attention)
            source.line("consumer_barrier();")
        context.mark(source, f"queries of @{run.name}")
        source.line(
            f"attention<{dim}, {attention.heads}, {attention.kv_heads}, {attention.tokens}, "
            f"{attention.position_stride}, {attention.head_stride}>("
            f"{cached}, {keys}, {cached_values}, queries, attended, attended + {size}, pos);"
        )
        context.mark(source, f"attention of @{run.name}")
        given: dict[SSAValue, Given] = {op.result: lambda at: f"attended[{at.number(0, len(at.shape))}]"}
        for store in run.family.stores:
            _store_loop(context, run, store, given, (first, "1", 1)).write(source)
        if started and not once:
            source.line(f"{cached} = {attention.tile_type}();")
        source.line("consumer_barrier();")
        context.mark(source, f"results of @{run.name}")


def _write_queries(source: SourceWriter, context: EmitContext, run: PlacedTasks, attention: _Attention) -> None:
    """Puts the queries of a task into the work area, split and scaled. A barrier has to follow."""
    op, dim, stride = attention.op, attention.dim, attention.query_stride
    size, rows = prod(shape_of(op.q)), attention.tokens * attention.heads
    values = ValueWriter(context, run.task, {})
    # scores are exponents of base 2
    scale = op.scale.value.data / log(2.0)
    query = values.value(op.q, Coordinates.flat("i", shape_of(op.q)))
    values.lines.append(f"queries.put(i / {dim} * {stride} + i % {dim}, {query} * {scale!r}f);")
    ElementLoop.of(values, str(size), size, context.loads.elements).write(source, values)
    if dim % 32:
        padding = 32 * attention.blocks - dim
        with source.block(f"for (int i = threadIdx.x; i < {rows * padding}; i += CONSUMERS)"):
            source.line(f"queries.put(i / {padding} * {stride} + {dim} + i % {padding}, 0.0f);")


def _cache(context: EmitContext, run: PlacedTasks, value: SSAValue, dim: int) -> tuple[str, tuple[int, int], str]:
    """(pointer to the first head of the task, strides of positions and heads, C++ element) of a key or value tile."""
    load = op_of(value)
    if not isinstance(load, LoadOp) or context.buffers[load.region.buffer].tagged:
        raise CompileError(f"family @{run.name}: keys and values of an attention must be loaded from plain buffers")
    storage = context.buffers[load.region.buffer]
    context.use_buffer(storage.name)
    access = load.region.substitute(run.bound)
    all_strides = row_major_strides(storage.shape)
    kept = [axis for axis, d in enumerate(access.dims) if d.kept]
    strides = [all_strides[axis] for axis in kept]
    first = access.dims[kept[0]].start
    dense = strides[3] == 1 and strides[2] == dim // 2 and strides[0] % dim == 0 and strides[1] % dim == 0
    limited = any(d.limit is not None for d in access.dims)
    if not dense or limited or not (first.is_constant and first.constant == 0):
        raise CompileError(
            f"family @{run.name}: {access} is not [0 : pos + T, kv heads, 0 : 2, 0 : {dim // 2}] of whole heads"
        )
    terms = [
        (f"static_cast<long long>({linear_text(d.start, run.task.own)})", stride)
        for d, stride in zip(access.dims, all_strides, strict=True)
        if d.start.terms or d.start.constant
    ]
    return f"p.{storage.parameter} + ({sum_text(terms)})", (strides[0], strides[1]), storage.c_type
