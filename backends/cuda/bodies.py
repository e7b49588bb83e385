"""C++ of task bodies, by what a body contains: matmuls, an attention, an argmax, or only pointwise ops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, prod

from xdsl.ir import SSAValue

from ...amk_ir.errors import CompileError
from ...amk_ir.linear import POSITION, Linear
from ...dialects.task import (
    ArgmaxOp,
    AttentionOp,
    FamilyOp,
    LoadOp,
    MatmulOp,
    RmsNormOp,
    StoreOp,
    op_of,
    shape_of,
)
from .context import EmitContext
from .coordinates import INDEX_PREFIX, Coordinates, Segment, linear_text, row_major_strides, sum_text
from .placement import PlacedTasks
from .source import SourceWriter
from .values import (
    CONSUMERS,
    PLAIN_UNROLL,
    Given,
    ValueWriter,
    unroll_for,
    write_elements,
    write_loads,
    write_pointwise_loop,
)

MAX_GROUPS = 16
"""Groups of 8 weight rows whose sums a thread keeps in registers."""


def ops_of(family: FamilyOp, kind: type[MatmulOp | AttentionOp | ArgmaxOp | RmsNormOp]) -> list[SSAValue]:
    """The results of the ops of one kind in a family."""
    return [op.results[0] for op in family.body.block.ops if isinstance(op, kind)]


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
    attentions, argmaxes = ops_of(run.family, AttentionOp), ops_of(run.family, ArgmaxOp)
    source.line(f"// {run.text}")
    if len(attentions) + len(argmaxes) > 1:
        raise CompileError(f"family @{run.name}: one attention or argmax a body, found {len(attentions + argmaxes)}")
    if attentions:
        _write_attention(source, context, run)
    elif argmaxes:
        _write_argmax(source, context, run)
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
    total: str
    unroll: int
    prelude: list[str]
    single: bool
    """Whether a thread has one round of elements, so that its loads can be written apart from the rest."""

    def write(self, source: SourceWriter) -> None:
        with source.block(""):
            write_pointwise_loop(source, self.values, self.total, self.unroll, self.prelude)

    def write_loads(self, source: SourceWriter) -> None:
        """The loads alone, of a single round; `base` must be this thread's number."""
        write_loads(source, self.values, self.total, self.unroll, self.prelude)

    def write_elements(self, source: SourceWriter) -> None:
        """What follows the loads of a single round."""
        write_elements(source, self.total, self.unroll, self.prelude, self.values.lines)


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
    total = f"{count} * {size}"
    if most == 1:
        prelude = ["const int e = i;", f"const int tile = {first};"]
        total = str(size)
    unroll = unroll_for(most * size, context.unroll)
    single = most * size <= CONSUMERS * unroll
    return _StoreLoop(values, total, unroll, [*prelude, *run.index_lines()], single)


# ---- rows: loops that may contain one rms_norm -------------------------------------------------------------------------


def _write_rows(
    source: SourceWriter,
    context: EmitContext,
    run: PlacedTasks,
    norm: RmsNormOp | None,
    shape: tuple[int, ...],
    raw: tuple[Callable[[str, str], str], Callable[[str], str]],
    finish: Sequence[Callable[[ValueWriter, Coordinates], None]],
) -> None:
    """Evaluates values of `shape` [T, *k] element by element, each `finish` in a loop of its own.

    raw: (put, get) statements that keep the value to be normed, at element number `t * width + i` of its own.
    """
    tokens, width = shape[0], prod(shape[1:])
    at = Coordinates((Segment("t", (tokens,)), Segment("i", shape[1:])))
    row = "t" if tokens > 1 else "0"
    given: dict[SSAValue, Given] = {}

    def loop(values: ValueWriter) -> None:
        source.unrolled(tokens)
        with source.block(f"for (int t = 0; t < {tokens}; ++t)"):
            write_pointwise_loop(source, values, str(width), unroll_for(width, context.unroll))

    finishing: list[ValueWriter] = []
    for number, write in enumerate(finish):
        values = ValueWriter(context, run.task, given, f"load{number}_")
        if norm is not None:
            given[norm.result] = _normed(run, norm, at, row, raw[1], values)
        write(values, at)
        finishing.append(values)
    if norm is None:
        for values in finishing:
            loop(values)
        return
    # One round of loads a thread: the norm's weights can be under way while it waits for the values.
    ahead = tokens == 1 and width <= CONSUMERS * context.unroll
    if ahead:
        source.line("const int base = threadIdx.x;")
        for values in finishing:
            write_loads(source, values, str(width), unroll_for(width, context.unroll))
    values = ValueWriter(context, run.task, {})
    text = values.value(norm.x, at)
    values.lines.append(raw[0](row, text))
    values.lines.append(f"sums[{row}] += {text} * {text};")
    source.line(f"float sums[{tokens}] = {{}};")
    loop(values)
    source.line("consumer_sum(sums, reduce_scratch);")
    source.unrolled(tokens)
    source.line(
        f"for (int t = 0; t < {tokens}; ++t) "
        f"sums[t] = 1.0f / sqrtf(sums[t] / {float(width)!r}f + {norm.eps.value.data!r}f);"
    )
    for values in finishing:
        if ahead:
            write_elements(source, str(width), unroll_for(width, context.unroll), [], values.lines)
        else:
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
        _write_rows(
            source,
            context,
            run,
            norm,
            shape,
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
        if isinstance(op, AttentionOp | ArgmaxOp):
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
    stride = f"activation_stride({layout.k_blocks})"
    at = "i" if shape[0] == 1 else f"t * {stride} + i"

    def put(values: ValueWriter, where: Coordinates) -> None:
        values.lines.append(f"x.put({at}, {values.value(x, where)});")

    source.line(f"const Activations x = activations(work, {shape[0]} * {stride});\n{{")
    _write_rows(
        source,
        context,
        run,
        norm,
        shape,
        (lambda _, text: f"x.put_raw({at}, {text});", lambda _: f"x.get_raw({at})"),
        [put],
    )
    if layout.k % 32:
        with source.block(f"for (int t = 0; t < {shape[0]}; ++t)"):
            source.line(f"const int i = {layout.k} + threadIdx.x;")
            source.line(f"if (i < {layout.k_blocks * 32}) x.put({at}, 0.0f);")
    source.line("}\nconsumer_barrier();")
    context.need_work(4 * shape[0] * (layout.k_blocks | 1) * 32)


def _depends_on(value: SSAValue, on: SSAValue) -> bool:
    op = op_of(value)
    return value is on or (op is not None and any(_depends_on(operand, on) for operand in op.operands))


def _write_matmuls(source: SourceWriter, context: EmitContext, runs: Sequence[PlacedTasks], shared: str | None) -> None:
    """Runs over one set of activations (`shared`), or one run whose activations belong to each task."""
    owns = " || ".join(f"{run.begin} < {run.end}" for run in runs)
    with source.block(f"if ({owns})"):
        if shared is not None:
            source.line(shared.rstrip("\n"))
        for run in runs:
            source.line(f"// {run.text}")
            with source.block(""):
                _write_matmul(source, context, run, shared is not None)


def _write_matmul(source: SourceWriter, context: EmitContext, run: PlacedTasks, is_shared: bool) -> None:
    matmuls = _matmuls(run.family)
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
    operation = context.operation(f"task.stream in @{run.name}, consumed")
    shape = f"{layout.k_blocks}, {layout.groups}, {layout.chunk_blocks}, {tokens}"

    with source.block(f"for (int first = {run.begin}; first < {run.end}; first += {run.step * batch})"):
        if not is_shared:
            source.line("const int tile = first;")
            source.lines(run.index_lines())
            _write_activations(source, context, run)
        source.line("float* partial = partials + flip * PARTIAL_FLOATS;")
        given: dict[SSAValue, Given] = {
            matmul.result: _product(layout.groups, tokens, slot if batch > 1 else 0, part.first_row)
            for matmul, part in zip(matmuls, stream.parts, strict=True)
        }
        loops = [
            _store_loop(context, run, store, given, ("first", "count", batch), f"load{number}_")
            for number, store in enumerate(run.family.stores)
        ]
        if batch == 1:
            source.line("constexpr int count = 1;")
        else:
            left = f"({run.end} - first + {run.step - 1}) / {run.step}"
            source.line(f"const int left = {left}, count = left < {batch} ? left : {batch};")
        # what the results are combined with (residuals, biases, frequencies) is under way during the product
        source.line("const int base = threadIdx.x;")
        for loop in loops:
            if loop.single:
                loop.write_loads(source)
        if batch == 1:
            source.line(f"matvec<{shape}>(reader, x, partial, watch, {operation});")
        else:
            source.line(
                "for (int slot = 0; slot < count; ++slot)\n"
                f"    matvec<{shape}>(reader, x, partial + slot * {slot}, watch, {operation});"
            )
        source.line("consumer_barrier();")
        source.line("flip ^= 1;")
        for loop in loops:
            if loop.single:
                loop.write_elements(source)
            else:
                loop.write(source)


def _product(groups: int, tokens: int, slot: int, first_row: int) -> Given:
    def given(at: Coordinates) -> str:
        row = sum_text([(at.number(1, len(at.shape)), 1)], first_row)
        partial = f"partial + slot * {slot}" if slot else "partial"
        return f"product<{groups}, {tokens}>({partial}, {at.number(0, 1)}, {row})"

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
            op, shape[0], shape[1], shape_of(op.k)[1], dim, keys, values, *strides, context.unroll, element
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
        """As `activation_stride` in device/matvec.cuh."""
        return (self.blocks | 1) * 32

    @property
    def scratch(self) -> int:
        """Floats of scratch; as `attention_scratch` in device/attention.cuh."""
        most = 8 if self.dim <= 64 else 4 if self.dim <= 128 else 2
        return 8 * min(self.heads // self.kv_heads * self.tokens, most) * (self.dim + 2)


def _write_attention(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> None:
    attention = _Attention.of(context, run)
    op, dim, stride = attention.op, attention.dim, attention.query_stride
    shape = shape_of(op.q)
    size, rows = prod(shape), attention.tokens * attention.heads
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
        source.line(f"const Activations queries = activations(work, {rows * stride});")
        source.line(f"float* attended = reinterpret_cast<float*>(work) + {rows * stride};")
        values = ValueWriter(context, run.task, {})
        # scores are exponents of base 2
        scale = op.scale.value.data / log(2.0)
        query = values.value(op.q, Coordinates.flat("i", shape))
        values.lines.append(f"queries.put(i / {dim} * {stride} + i % {dim}, {query} * {scale!r}f);")
        write_pointwise_loop(source, values, str(size), unroll_for(size, context.unroll))
        if dim % 32:
            padding = 32 * attention.blocks - dim
            with source.block(f"for (int i = threadIdx.x; i < {rows * padding}; i += CONSUMERS)"):
                source.line(f"queries.put(i / {padding} * {stride} + {dim} + i % {padding}, 0.0f);")
        source.line("consumer_barrier();")
        source.line(
            f"attention<{dim}, {attention.heads}, {attention.kv_heads}, {attention.tokens}, "
            f"{attention.position_stride}, {attention.head_stride}>("
            f"{cached}, {keys}, {cached_values}, queries, attended, attended + {size}, pos);"
        )
        given: dict[SSAValue, Given] = {op.result: lambda at: f"attended[{at.number(0, len(at.shape))}]"}
        for store in run.family.stores:
            _store_loop(context, run, store, given, (first, "1", 1)).write(source)
        if started and not once:
            source.line(f"{cached} = {attention.tile_type}();")
        source.line("consumer_barrier();")


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


# ---- argmax ----------------------------------------------------------------------------------------------------------


def _write_argmax(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> None:
    op = op_of(ops_of(run.family, ArgmaxOp)[0])
    assert isinstance(op, ArgmaxOp)
    tokens, width = shape_of(op.x)
    with source.block(f"for (int tile = {run.begin}; tile < {run.end}; tile += {run.step})"):
        source.lines(run.index_lines())
        with source.block(f"for (int t = 0; t < {tokens}; ++t)"):
            values = ValueWriter(context, run.task, {})
            if (row := _plain_row(context, values, op.x)) is not None:
                source.line(f"Best best = share_best<{width}>({row});")
            else:
                source.line("Best best = {__int_as_float(0xff800000), NO_INDEX};")
                text = values.value(op.x, Coordinates((Segment("t", (tokens,)), Segment("i", (width,)))))
                values.lines.append(f"best.take({text}, i);")
                write_pointwise_loop(source, values, str(width), unroll_for(width, PLAIN_UNROLL))
            source.line("best = consumer_best(best, best_scratch);")
            for store in run.family.stores:
                storage = context.buffers[store.region.buffer]
                if store.value is not op.result or storage.tagged:
                    raise CompileError(f"family @{run.name}: an argmax must be stored as it is, to a plain buffer")
                context.use_buffer(storage.name)
                address = values.address(store.region, Coordinates((Segment("t", (tokens,)),)))
                inside = f" && {address.inside}" if address.inside else ""
                source.line(
                    f"if (threadIdx.x == 0{inside}) p.{storage.parameter}[{address.offset}] = "
                    "static_cast<int>(best.index);"
                )
            source.line("consumer_barrier();")


def _plain_row(context: EmitContext, values: ValueWriter, x: SSAValue) -> str | None:
    """A pointer to row `t` of a loaded tile whose rows are f32 at multiples of 16 bytes; None for any other value."""
    load = op_of(x)
    if not isinstance(load, LoadOp):
        return None
    storage, dims = values.storage(load.region), load.region.dims
    tokens, width = shape_of(x)
    whole = storage.shape == (tokens, width) and all(d.start == Linear() and d.limit is None for d in dims)
    if storage.tagged or storage.element != "f32" or not whole or (tokens > 1 and width % 4):
        return None
    context.use_buffer(storage.name)
    return f"p.{storage.parameter} + t * {width}"
