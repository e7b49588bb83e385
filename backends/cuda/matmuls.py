"""C++ of matrix products: runs of tasks that multiply, between the activations that they share and what they store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from xdsl.ir import SSAValue

from ...amk_ir.errors import CompileError
from ...amk_ir.segments import BLOCK_K, Segments, partials_bytes
from ...dialects.task import RmsNormOp, shape_of
from .activations import (
    deferred_norm,
    gather_of,
    matmuls_of,
    norm_sums_text,
    ops_of,
    write_activations,
    write_sums_place,
)
from .context import EmitContext, attentions_of
from .coordinates import INDEX_PREFIX, Coordinates, sum_text
from .first_stages import first_stages, held_stages
from .fragments import FragmentLayout
from .limits import MOST_TOKENS
from .placement import PlacedTasks, most_of_all
from .quantized_fragments import QuantizedLayout
from .quantized_text import LOAD_FIRST, MULTIPLY_AFTER, first_stages_text, gathered_text, multiply_text, segment_text
from .rows import GATHERED_TOGETHER, RowGather, write_rows
from .source import SourceWriter
from .stores import StoreLoop, store_loop
from .trace_points import PointKind
from .values import Given

MAX_GROUPS = 16
"""Groups of 8 weight rows whose sums a thread keeps in registers."""


def write_matmuls(source: SourceWriter, context: EmitContext, runs: Sequence[PlacedTasks], shared: str | None) -> None:
    """Runs over one set of activations, which `shared` makes, or one run whose activations belong to each task."""
    owns = " || ".join(f"{run.begin} < {run.end}" for run in runs)
    matmuls = [_Matmul.of(context, run, shared is not None) for run in runs]
    first = matmuls[0]

    def write_shared() -> None:
        assert shared is not None
        source.line(shared.rstrip("\n"))
        context.trace.store(source, "activations", ", ".join(run.text for run in runs))
        first.write_norm_sums(source)

    with source.block(f"if ({owns})"):
        source.line("const int base = threadIdx.x;")
        if shared is not None and INDEX_PREFIX in shared:
            source.lines(runs[0].steady_lines())
        # what the products are combined with (residuals, biases, frequencies) is under way before the wait for activations
        for matmul in matmuls:
            if matmul.is_once:
                matmul.write_early(source)
        if shared is None:
            first.write(source)
            return
        write_sums_place(source, runs[0])
        first.gather = gather_of(context, runs[0])
        if first.gather is None:
            most = most_of_all(runs)
            if _are_together(context, matmuls, most):
                _write_together(source, context, matmuls, most, write_shared)
                return
            first.is_alone = len(runs) == first.run.most == 1
            first.write_first_stages(source, f"{runs[0].begin} < {runs[0].end}" if len(runs) > 1 else "")
            write_shared()
        elif len(runs) > 1:
            with source.block(f"if ({runs[0].begin} >= {runs[0].end})"):
                write_shared()
        for matmul in matmuls:
            source.line(f"// {matmul.run.text}")
            with source.block(""):
                matmul.write(source)


def _are_together(context: EmitContext, matmuls: Sequence[_Matmul], most: int) -> bool:
    """Whether runs are multiplied by one function, and scaled alike, with room for the partial sums of all tasks of an SM, `most` at
    most: then they share a barrier, and code."""
    first = matmuls[0]
    room = context.partial_bytes // (4 * first.slot)
    return (
        len(matmuls) > 1
        and most <= room
        and all(matmul.segments is None and matmul.function == first.function for matmul in matmuls)
        and all(deferred_norm(matmul.run) == deferred_norm(first.run) for matmul in matmuls)
    )


def _write_together(
    source: SourceWriter,
    context: EmitContext,
    matmuls: Sequence[_Matmul],
    most: int,
    write_activations: Callable[[], None],
) -> None:
    """Runs of which an SM has `most` tasks at most, multiplied one after the other, then all that they store."""
    first = matmuls[0]
    counts = [f"count_{matmul.run.number}" for matmul in matmuls]
    names = ", ".join(dict.fromkeys(f"@{matmul.run.name}" for matmul in matmuls))
    first.operation = context.operation(f"task.stream in {names}, consumed")
    context.partial_floats = max(context.partial_floats, most * first.slot)
    first.is_alone = most == 1
    first.write_first_stages(source)
    write_activations()
    source.line("const float* const products = partials + flip * PARTIAL_FLOATS;")
    if most == 1:
        first.write_product(source, "flip * PARTIAL_FLOATS")
    else:
        with source.block(f"for (int slot = 0; slot < {' + '.join(counts)}; ++slot)"):
            first.write_product(source, f"flip * PARTIAL_FLOATS + slot * {first.slot}", "slot > 0")
    source.line("consumer_barrier();\nflip ^= 1;")
    first.write_scales(source)
    for n, matmul in enumerate(matmuls):
        source.line(f"// {matmul.run.text}")
        with source.block(f"if ({counts[n]} > 0)"):
            before = f" + ({' + '.join(counts[:n])}) * {first.slot}" if n and most > 1 else ""
            source.line(f"const float* const partial = products{before};")
            matmul.write_results(source)


@dataclass
class _Matmul:
    """A run of tasks that multiply; `batch` of them, neighbours on their SM, between two barriers.

    function: what multiplies. slot: floats of partial sums a task. loops: what the tasks of a batch store.
    segments: of the activations, if they are not held at once. gather: of the activations, if an SM's first product does it.
    is_early: whether the first stages of an SM's first task are in registers before its activations are there. is_alone: whether an SM
    makes one product with them.
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
    is_early: bool = False
    is_alone: bool = False

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
            for matmul, part in zip(matmuls_of(run.family), stream.parts, strict=True)
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

    @property
    def _first_stages(self) -> int:
        return first_stages(self.context, self.run)

    def write_early(self, source: SourceWriter) -> None:
        """What needs no activations, of a run with one batch an SM, which may have no tasks here."""
        run = self.run
        source.line(f"const int first_{run.number} = {run.begin};")
        source.line(
            f"const int count_{run.number} = "
            f"first_{run.number} < {run.end} ? ({run.end} - first_{run.number} + {run.step - 1}) / {run.step} : 0;"
        )
        self._write_issue(source)

    def write_first_stages(self, source: SourceWriter, condition: str = "") -> None:
        """Brings the first stages of a task into registers; condition: whether an SM has such a one, in C++, "" if so."""
        if self._first_stages == 0:
            return
        self.is_early = True
        layout = self.context.streams[self.run.name].layout
        # without a value from the start, the registers would be taken in all of the step's loop
        source.line(f"{first_stages_text(layout, self.context.tokens, self._first_stages)} held = {{}};")
        with source.block(f"if ({condition})" if condition else ""):
            self._load_first_stages(source)

    def _load_first_stages(self, source: SourceWriter) -> None:
        self._call_traced(source, LOAD_FIRST, f"held, at, {self.operation}", self._loaded_events)
        if not self.context.trace.has_stages:
            self.context.trace.mark(source, "first weights", kind=PointKind.RING)

    @property
    def _loaded_events(self) -> int:
        """The events of the ring when first stages are in registers: one of codes, whose scales may be needed, is not given back."""
        return 1 if isinstance(self.context.streams[self.run.name].layout, QuantizedLayout) else 2 * self._first_stages

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
            write_sums_place(source, run)
            write_activations(source, self.context, run, lambda: self.write_first_stages(source))
            self.context.trace.store(source, "activations", run.text)
            self.write_norm_sums(source)
        source.line("const float* const partial = partials + flip * PARTIAL_FLOATS;")
        if self.segments is not None:
            self._write_segments(source, self.segments)
        else:
            self._write_products(source)
        source.line("consumer_barrier();\nflip ^= 1;")
        self.write_scales(source)
        self.write_results(source)

    def write_norm_sums(self, source: SourceWriter) -> None:
        """Unless the product does it, which takes as long as they do."""
        tokens = self.context.tokens
        if (text := norm_sums_text(self.run, tokens)) and not self._sums_meanwhile:
            source.unrolled(tokens)
            source.line(text)

    @property
    def _sums_meanwhile(self) -> bool:
        """Whether sums of squares are made while a product is: of the one product of an SM."""
        return self.is_early and self.context.tokens == 1 and self.is_alone and deferred_norm(self.run) is not None

    def write_scales(self, source: SourceWriter) -> None:
        """What products of a norm are multiplied by, behind the barrier that makes its sums of squares known."""
        if (deferred := deferred_norm(self.run)) is not None:
            source.line(f"const NormScales scales = {{norm_sums, {deferred}}};")

    def write_results(self, source: SourceWriter) -> None:
        """What follows the barrier behind the products of a batch."""
        run, trace = self.run, self.context.trace
        trace.read(source)
        waits = any(loop.has_event for loop in self.loops)
        if waits:
            trace.store(source, "products", run.text)
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
        slots = "" if self.batch == 1 else f" + slot * {self.slot}"
        at = f"flip * PARTIAL_FLOATS{slots}"
        # a task with activations of its own is the first one that multiplies them
        is_first = [f"first_{run.number} == {run.begin}"] if self.is_shared and not self.is_once else []
        is_first += [] if self.batch == 1 else ["slot == 0"]
        with source.block("" if self.batch == 1 else f"for (int slot = 0; slot < count_{run.number}; ++slot)"):
            if self.gather is None:
                self.write_product(source, at, f"!({' && '.join(is_first)})" if is_first else "")
                return
            layout = self.context.streams[run.name].layout
            assert isinstance(layout, FragmentLayout)
            with source.block(f"if ({' && '.join(is_first)})" if is_first else ""):
                self.gather.write_wait(source, self.context)
                gathering = self.gather.product_arguments("nullptr" if deferred_norm(run) is None else "norm_sums")
                held = held_stages(self.context, layout, GATHERED_TOGETHER // BLOCK_K // layout.chunk_blocks)
                self._call(
                    source, gathered_text(layout, held), f"at, {at}, {self.operation}, {gathering}", layout.chunks
                )
            if is_first:
                with source.block("else"):
                    self.write_product(source, at)

    def write_product(self, source: SourceWriter, partial_at: str, reloads: str = "") -> None:
        """One product. reloads: whether the first stages are not in registers yet, in C++; "" if it is as `is_early` says."""
        layout = self.context.streams[self.run.name].layout
        if not self.is_early:
            self._call(source, self.function, f"at, {partial_at}, {self.operation}", layout.chunks)
            return
        if reloads:
            with source.block(f"if ({reloads})"):
                self._load_first_stages(source)
        events = 2 * layout.chunks - self._loaded_events
        meanwhile = f"[&] {{ {norm_sums_text(self.run, 1)} }}" if self._sums_meanwhile else ""
        self._call_traced(source, MULTIPLY_AFTER, f"held, at, {partial_at}, {self.operation}", events, meanwhile)

    def _call(self, source: SourceWriter, function: str, arguments: str, stages: int) -> None:
        """A call that takes so many stages from the ring."""
        self._call_traced(source, function, arguments, 2 * stages)

    def _call_traced(self, source: SourceWriter, function: str, arguments: str, events: int, last: str = "") -> None:
        """A call that notes so many events of the ring, two a stage, if the trace has any. last: an argument behind the trace."""
        has_stages = self.context.trace.has_stages
        source.line(f"at = {function}({arguments}{', trace' if has_stages else ''}{f', {last}' if last else ''});")
        if has_stages and events:
            source.line(f"trace.next += {events};")

    def _write_segments(self, source: SourceWriter, segments: Segments) -> None:
        """All products of a batch: with the first segment of the activations, then with the next one."""
        run = self.run
        x = matmuls_of(run.family)[0].x
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
                arguments = f"at, slot, segment, {last}, partial_at, {self.operation}"
                source.line(f"const int partial_at = flip * PARTIAL_FLOATS + slot * {self.slot};")
                sizes = {f"if (segment < {last})": segments.blocks, "else": segments.last_blocks}
                if segments.last_blocks == segments.blocks:
                    sizes = {"": segments.blocks}
                for condition, blocks in sizes.items():
                    with source.block(condition):
                        function = segment_text(layout, blocks, segments.blocks)
                        self._call(source, function, arguments, -(-blocks // segments.chunk_blocks))


def _product(run: PlacedTasks, groups: int, tokens: int, slot: int, first_row: int) -> Given:
    scale = "" if deferred_norm(run) is None else " * scales.of({0})"

    def given(at: Coordinates) -> str:
        row = sum_text([(at.number(1, len(at.shape)), 1)], first_row)
        partial = f"partial + slot * {slot}" if slot else "partial"
        token = at.number(0, 1)
        return f"product<{groups}, {tokens}>({partial}, {token}, {row}){scale.format(token)}"

    return given
