"""C++ of attention: how it takes earlier rows from the ring, its bodies, and the merge of its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log, prod

from xdsl.ir import SSAValue

from ...amk_ir.attention_turn import GROUP, is_single, teams, work_bytes
from ...amk_ir.errors import CompileError
from ...dialects.task import AttentionMergeOp, AttentionOp, AttentionPartOp, FamilyOp, StreamOp, op_of, shape_of
from .caches import CacheLayout
from .context import EmitContext, attentions_of
from .coordinates import Coordinates, linear_text
from .limits import MOST_TOKENS
from .placement import PlacedTasks
from .quantized_text import finish_activations
from .source import SourceWriter
from .stores import store_loop
from .trace_points import PointKind
from .values import CONSUMERS, VECTOR, ElementLoop, Given, ValueWriter, write_finish, write_finished

MOST_DIM = 256
"""Elements of a head."""
TURN_QUERIES = 16
"""Queries whose sums a warp's registers hold."""
HELD_DIM = 128
"""Elements of a head whose keys and values, a lane's share of 16 positions, fit the registers."""

ATTEND, LOAD_ROWS, ATTEND_AFTER = "attend", "load_rows", "attend_after"
"""Functions of the kernel: an attention; its first rows to registers, and what follows that."""


@dataclass(frozen=True)
class AttentionPlan:
    """The constants of an attention: the parameters of `Attention` and `push_history` in device/*.cuh.

    Lengths in groups of 16 positions: block, of what is dealt to the `parts`; chunk, of a ring stage. turns: how many times
    earlier rows are read, each for a share of the queries.
    """

    op: AttentionOp | AttentionPartOp
    dim: int
    heads: int
    kv_heads: int
    tokens: int
    parts: int
    block: int
    chunk: int
    turns: int
    element: str
    keys: CacheLayout
    values: CacheLayout

    @staticmethod
    def of(context: EmitContext, family: FamilyOp) -> AttentionPlan:
        """The plan of a family with one attention; CompileError for what cannot be emitted."""
        name = family.sym_name.data
        op = attentions_of(family)[0]
        tokens, heads, _, half = shape_of(op.q)
        kv_heads, dim = shape_of(op.k)[1], 2 * half
        if dim > MOST_DIM:
            raise CompileError(
                f"family @{name}: head_dim {dim} is more than the {MOST_DIM} that attention is written for"
            )
        if tokens > MOST_TOKENS:
            raise CompileError(f"family @{name}: attention of at most {MOST_TOKENS} rows, found {tokens}")
        keys, values = (context.buffers[stream.region.buffer] for stream in cache_streams(op))
        if keys.element != values.element or keys.cache is None or values.cache is None:
            raise CompileError(f"family @{name}: keys and values must be stored alike")
        group_bytes = GROUP * keys.cache.row * keys.element_bytes
        chunk = min(teams(dim), context.ring.stage_bytes // group_bytes)
        if chunk < 1:
            raise CompileError(
                f"family @{name}: {GROUP} keys take {group_bytes} bytes, a ring stage has {context.ring.stage_bytes}; use "
                "larger stages"
            )
        # so that as many stages have a group of each team
        chunk = next(n for n in range(chunk, 0, -1) if teams(dim) % n == 0)
        parts, block = 1, 1
        if isinstance(op, AttentionPartOp):
            parts = op.parts.value.data
            if op.block.value.data % GROUP:
                raise CompileError(
                    f"family @{name}: positions are dealt to parts in multiples of {GROUP}, found {op.block.value.data}"
                )
            block = op.block.value.data // GROUP
            if parts > 1:
                chunk = next(n for n in range(min(chunk, block), 0, -1) if block % n == 0)
        turns = -(-heads // kv_heads * tokens // TURN_QUERIES)
        return AttentionPlan(
            op, dim, heads, kv_heads, tokens, parts, block, chunk, turns, keys.c_type, keys.cache, values.cache
        )

    @property
    def part(self) -> AttentionPartOp | None:
        """The op if there are several parts."""
        return self.op if isinstance(self.op, AttentionPartOp) else None

    @property
    def can_be_early(self) -> bool:
        """Whether the first keys and values can be in registers before the queries are there."""
        return (
            self.tokens == 1
            and is_single(self.tokens, self.heads, self.kv_heads)
            and self.dim <= HELD_DIM
            and teams(self.dim) % self.chunk == 0
            and self.element == "u16"
        )

    @property
    def c_type(self) -> str:
        numbers = (
            self.dim,
            self.heads,
            self.kv_heads,
            self.tokens,
            self.parts,
            self.block,
            self.chunk,
            self.turns,
        )
        return f"Attention<{', '.join(map(str, numbers))}, {self.element}>"

    @property
    def key_blocks(self) -> int:
        """Blocks of 32 elements of a query or key."""
        return self.keys.row // 32

    @property
    def work_bytes(self) -> int:
        """Shared memory of a task."""
        return work_bytes(self.tokens, self.heads, self.kv_heads, self.dim, 2 if self.element == "u16" else 4)

    def pointers(self, context: EmitContext, run: PlacedTasks) -> list[str]:
        """Statements that define `keys` and `values`, the first elements of a task's first head."""
        lines: list[str] = []
        for name, stream, layout in zip(
            ("keys", "values"), cache_streams(self.op), (self.keys, self.values), strict=True
        ):
            storage = context.buffers[stream.region.buffer]
            context.use_buffer(storage.name)
            *outer, _, head, _, _ = stream.region.substitute(run.bound).dims
            where = layout.head_text([linear_text(dim.start, run.task.own) for dim in (*outer, head)])
            lines.append(f"const {self.element}* const {name} = p.{storage.parameter} + {where};")
        return lines

    def part_text(self, run: PlacedTasks) -> str:
        """C++ number of the part of a task."""
        if self.part is None:
            return "0"
        return linear_text(self.part.part.data.substitute(run.bound), run.task.own)


def cache_streams(op: AttentionOp | AttentionPartOp) -> tuple[StreamOp, StreamOp]:
    """The streams of keys and values: `cache_layouts` has checked that they are."""
    k, v = op_of(op.k), op_of(op.v)
    assert isinstance(k, StreamOp) and isinstance(v, StreamOp)
    return k, v


def write_history_fetch(source: SourceWriter, context: EmitContext, fetch: PlacedTasks, operation: int) -> None:
    """The producer's side of the attention of one task, whose indices are defined."""
    plan = AttentionPlan.of(context, fetch.family)
    source.lines(plan.pointers(context, fetch))
    numbers = f"{plan.dim}, {plan.parts}, {plan.block}, {plan.chunk}, {plan.turns}"
    if context.token_loop is not None:
        # unlike weights, earlier rows may have been written by the step before
        source.line(f"if (any_driver(writer.is_stopped() || !await_step(watch, step, {operation}))) writer.stop();")
    heads = "" if plan.kv_heads == 1 else f"for (int kv = 0; kv < {plan.kv_heads}; ++kv) "
    at = (
        ("", "")
        if plan.kv_heads == 1
        else (f" + kv * {plan.keys.head_elements}", f" + kv * {plan.values.head_elements}")
    )
    source.line(
        f"{heads}push_history<{numbers}>(writer, keys{at[0]}, values{at[1]}, pos, {plan.part_text(fetch)}, {operation});"
    )


def write_attention(
    source: SourceWriter, context: EmitContext, run: PlacedTasks, op: AttentionOp | AttentionPartOp
) -> None:
    """A body with one attention: one task at a time."""
    loop = (
        f"if ({run.begin} < {run.end})"
        if run.most == 1
        else f"for (int task = {run.begin}; task < {run.end}; task += {run.step})"
    )
    task = run.begin if run.most == 1 else "task"
    name, plan = _write_type(source, context, run)
    with source.block(loop):
        source.line(f"const int tile = {task};")
        source.lines(run.index_lines())
        _write_task(source, context, run, plan, name)
        source.line("consumer_barrier();")
        context.trace.mark(source, "attention", run.text)
        given: dict[SSAValue, Given] = {}
        if isinstance(op, AttentionOp):
            given[op.result] = lambda at: f"{name}::result(work, {at.number(0, 2)}, {at.number(2, 4)})"
        else:
            given[op.sums] = lambda at: f"{name}::product(work, {at.number(0, 2)}, {at.number(2, 4)})"
            given[op.stats] = lambda at: f"{name}::stat(work, {at.number(0, 2)}, {at.number(2, 3)})"
        _write_stores(source, context, run, task, given)


def write_attended(source: SourceWriter, context: EmitContext, run: PlacedTasks, meanwhile: Callable[[], None]) -> None:
    """Attends for one task, whose indices are defined, and makes the result the `Activations x` of its matmuls.

    They overwrite the queries; ends with a barrier. meanwhile: writes what may be done while other warps still attend.
    """
    layout = context.streams[run.name].layout
    name, plan = _write_type(source, context, run)
    source.line(
        f'static_assert({plan.tokens * layout.activations * 4} <= {name}::MAXIMA_AT, "the activations leave the sums alone");'
    )
    _write_task(source, context, run, plan, name)
    context.trace.mark(source, "attention", run.text)
    meanwhile()
    source.line("consumer_barrier();")
    width = plan.heads * plan.dim
    source.line("const Activations x = activations(work);")
    pairs = plan.tokens * width // 2
    loop = f"for (u32 n = threadIdx.x; n < {pairs}; n += CONSUMERS)"
    with source.block(loop if pairs > CONSUMERS else f"if (const u32 n = threadIdx.x; n < {pairs})"):
        source.line("const u32 i = n * 2;")
        row = "" if plan.tokens == 1 else f"i / {width} * {layout.activations} + "
        source.line(f"const float2 two = {name}::results(work, i / {plan.dim}, i % {plan.dim});")
        source.line(f"x.put_two({row}i % {width}, two.x, two.y);")
    source.line(finish_activations(layout, plan.tokens))


def _write_type(source: SourceWriter, context: EmitContext, run: PlacedTasks) -> tuple[str, AttentionPlan]:
    """Defines the type of a run's attention; its name, and its plan."""
    plan, name = AttentionPlan.of(context, run.family), f"Attention{run.number}"
    context.need_work(plan.work_bytes)
    source.line(f"using {name} = {plan.c_type};")
    source.line(f'static_assert({name}::BYTES == {plan.work_bytes}, "as planned");')
    return name, plan


def _write_task(
    source: SourceWriter,
    context: EmitContext,
    run: PlacedTasks,
    plan: AttentionPlan,
    name: str,
) -> None:
    """Attends for one task: everything from its operands to results in the work area; a barrier has to follow."""
    operation = context.operation(f"task.stream in @{run.name}, consumed")
    trace, arguments = context.trace, f"at, pos, {plan.part_text(run)}, {operation}"
    source.lines(plan.pointers(context, run))
    is_early = plan.can_be_early and context.loads.has_early_rows
    if is_early:
        # as of FirstStages: without a value from the start, the registers would be taken in all of the step's loop
        source.line(f"{name}::HeldRows rows = {{}};")
        _write_call(source, context, f"{LOAD_ROWS}<{name}>", f"rows, {arguments}")
        if not trace.has_stages:
            trace.mark(source, "first rows", kind=PointKind.RING)
    _write_operands(source, context, run, plan, name)
    source.line("consumer_barrier();")
    trace.mark(source, "queries", run.text)
    if is_early:
        _write_call(source, context, f"{ATTEND_AFTER}<{name}>", f"rows, {arguments}")
    else:
        _write_call(source, context, f"{ATTEND}<{name}>", arguments)


def _write_call(source: SourceWriter, context: EmitContext, function: str, arguments: str) -> None:
    """A call that reads the ring, and notes so in traces of stages."""
    if not context.trace.has_stages:
        source.line(f"at = {function}({arguments});")
        return
    with source.block(""):
        source.line("Trace stages = trace;")
        source.line(f"at = {function}({arguments}, stages);")
        source.line("trace.next = stages.next;")


def _write_stores(
    source: SourceWriter, context: EmitContext, run: PlacedTasks, task: str, given: dict[SSAValue, Given]
) -> None:
    """Stores what task number `task` has put into the work area, which is free again after."""
    for store in run.family.stores:
        store_loop(context, run, store, given, (task, "1", 1)).write(source)
    source.line("consumer_barrier();")
    context.trace.mark(source, "results", run.text)


def _write_operands(
    source: SourceWriter, context: EmitContext, run: PlacedTasks, plan: AttentionPlan, name: str
) -> None:
    """Puts queries, new rows and the tail of the earlier ones into the work area; a barrier has to follow.

    Everything is under way before the first word is waited for.
    """
    dim, op = plan.dim, plan.op
    # exponents are of base 2
    scale = op.scale.value.data / log(2.0)
    loops: list[tuple[ValueWriter, ElementLoop, str | None]] = []
    for number, (value, heads, factor, put) in enumerate(
        (
            (op.q, plan.heads, f" * {scale!r}f", "put_query(work, {query}"),
            (op.k_new, plan.kv_heads, "", "put_key(work, pos, {row}, {head}"),
            (op.v_new, plan.kv_heads, "", "put_value(work, pos, {row}, {head}"),
        )
    ):
        values = ValueWriter(context, run.task, {}, f"operand{number}_")
        size = prod(shape_of(value))
        text = values.value(value, Coordinates.flat("i", shape_of(value)))
        # vectors of a head; else one by one
        by_rows = dim % VECTOR == 0
        at, given = ("first", "row") if by_rows else ("i", "one")
        where = put.format(query=f"{at} / {dim}", row=f"{at} / {heads * dim}", head=f"{at} / {dim} % {heads}")
        line = f"{name}::{where}, {at} % {dim}, {given});"
        values.lines += (
            [f"row[v] = {text}{factor};"] if by_rows else [f"const float one[1] = {{{text}{factor}}};", line]
        )
        loop = ElementLoop.of(values, str(size), size, context.loads.elements)
        loops.append((values, loop, line if by_rows else None))
    of_part = f"pos, {plan.part_text(run)}"
    meanwhile = ["tail.put(work, 0);"]
    if plan.kv_heads > 1:
        at = f"keys + kv * {plan.keys.head_elements}, values + kv * {plan.values.head_elements}"
        others = f"for (int kv = 1; kv < {plan.kv_heads}; ++kv)"
        meanwhile.append(f"{others} {name}::TailLoads({at}, {of_part}).put(work, kv);")
    with source.block(""):
        source.line(f"const {name}::TailLoads tail(keys, values, {of_part});")
        write_together(source, loops, meanwhile)
    if padding := plan.key_blocks * 32 - dim:
        with source.block(f"for (int i = threadIdx.x; i < {plan.tokens * plan.heads * padding}; i += CONSUMERS)"):
            source.line("const float zero[1] = {};")
            source.line(f"{name}::put_query(work, i / {padding}, {dim} + i % {padding}, zero);")


def write_merge(
    source: SourceWriter, context: EmitContext, run: PlacedTasks, merges: Sequence[AttentionMergeOp]
) -> None:
    """A body that merges the parts of an attention: one task at a time, its parts in the work area."""
    op = merges[0]
    if len(merges) > 1 or any(store.value is not op.result for store in run.family.stores):
        raise CompileError(f"family @{run.name}: one task.attention_merge a body, stored as it is")
    with source.block(f"for (int task = {run.begin}; task < {run.end}; task += {run.step})"):
        source.line("const int tile = task;")
        source.lines(run.index_lines())
        _write_parts(source, context, run, op, at=0)
        given: dict[SSAValue, Given] = {op.result: lambda at: _merged(op, at.number(0, 4), at.number(0, 2))}
        _write_stores(source, context, run, "task", given)


def write_merged(
    source: SourceWriter, context: EmitContext, run: PlacedTasks, op: AttentionMergeOp, meanwhile: Callable[[], None]
) -> None:
    """Merges the parts of an attention for one task, whose indices are defined, and makes the result the `Activations x` of its
    matmuls; as `write_attended`."""
    layout = context.streams[run.name].layout
    tokens, *row = shape_of(op.result)
    width, dim = prod(row), prod(row[1:])
    meanwhile()
    _write_parts(source, context, run, op, at=4 * tokens * layout.activations)
    source.line("const Activations x = activations(work);")
    with source.block(f"for (int i = threadIdx.x; i < {tokens * width}; i += CONSUMERS)"):
        where = "" if tokens == 1 else f"i / {width} * {layout.activations} + "
        source.line(f"x.put({where}i % {width}, {_merged(op, 'i', f'i / {dim}')});")
    source.line(finish_activations(layout, tokens))


def _write_parts(source: SourceWriter, context: EmitContext, run: PlacedTasks, op: AttentionMergeOp, at: int) -> None:
    """Brings what a task merges to `sums` and `stats`, in the work area from byte `at` on."""
    sums, stats = prod(shape_of(op.sums)), prod(shape_of(op.stats))
    context.need_work(at + 4 * (sums + stats))
    source.line(f"float* const sums = reinterpret_cast<float*>(work + {at});")
    source.line(f"float* const stats = sums + {sums};")
    loops: list[tuple[ValueWriter, ElementLoop, str | None]] = []
    for value, to, count in ((op.sums, "sums", sums), (op.stats, "stats", stats)):
        values = ValueWriter(context, run.task, {}, f"{to}_")
        text = values.value(value, Coordinates.flat("i", shape_of(value)))
        values.lines.append(f"row[v] = {text};")
        loop = ElementLoop.of(values, str(count), count, context.loads.elements)
        loops.append((values, loop, f"store_values({to} + first, row);"))
    write_together(source, loops)
    source.line("consumer_barrier();")
    context.trace.mark(source, "parts", run.text)


def _merged(op: AttentionMergeOp, element: str, query: str) -> str:
    """C++ of an element of the result, by the numbers of it and of its query."""
    parts, *row = shape_of(op.sums)
    return f"merged_attention<{parts}, {prod(row)}, {2 * prod(row[:2])}>(sums + ({element}), stats + ({query}) * 2)"


def write_together(
    source: SourceWriter, loops: Sequence[tuple[ValueWriter, ElementLoop, str | None]], meanwhile: Sequence[str] = ()
) -> None:
    """Loops over loaded elements: all is under way before the first word is waited for, if each has a single round.

    Beside each loop: what stores the vector `row` that its lines have set, if they do not store by themselves. `meanwhile`
    is executed before the waits.
    """
    with source.block(""):
        single = all(loop.is_single for _, loop, _ in loops)
        if single:
            source.line("const int base = threadIdx.x;")
            for values, loop, _ in loops:
                loop.write_issue(source, values)
        source.lines(meanwhile)
        if not single:
            for values, loop, put in loops:
                with loop.rounds(source):
                    loop.write_loads(source, values)
                    _write_loaded(source, values, loop, put)
                    write_finished(source, [values])
            return
        writers = [values for values, _, _ in loops]
        write_finish(source, writers)
        for values, loop, put in loops:
            _write_loaded(source, values, loop, put)
        write_finished(source, writers)


def _write_loaded(source: SourceWriter, values: ValueWriter, loop: ElementLoop, put: str | None) -> None:
    """What is made of the loaded elements of a round."""
    if put is None:
        loop.write_elements(source, values.lines)
    else:
        loop.write_rows(source, values, put)
