"""CUDA C++ of a `queue.kernel` in compact form: specialised to the model, the schedule and the target.

The text is thin: what does not depend on the plan is in the device library (device/*.cuh). One block runs on each SM;
its producer warp walks the stream regions and keeps the weight ring full, its eight consumer warps walk the bodies.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from xdsl.ir import Block, Operation

from ...amk_ir.errors import CompileError
from ...amk_ir.linear import Linear
from ...amk_ir.targets import Target, get_target
from ...dialects.queue import FetchOp, KernelOp, PhaseOp, PlacedOp, ProgramOp, RunOp, SignalOp, WaitOp
from ...dialects.schedule import Schedule
from ...dialects.task import ForOp
from .attention import ATTEND, ATTEND_AFTER, LOAD_ROWS
from .bodies import has_barrier_before_stores, write_run_group
from .context import EmitContext, Loads
from .coordinates import LOOP_PREFIX, linear_text
from .hazards import check_hazards
from .placement import PlacedTasks
from .plan import CounterStorage, KernelPlan
from .producer import write_fetch, write_loading
from .quantized_text import (
    LOAD_FIRST,
    MULTIPLY,
    MULTIPLY_AFTER,
    MULTIPLY_GATHERED,
    MULTIPLY_QUANTIZED,
    MULTIPLY_QUANTIZED_SEGMENT,
    MULTIPLY_SEGMENT,
)
from .sharing import check_shared
from .source import SourceWriter
from .trace_points import PointKind, TraceDetail

BLOCK_THREADS, MORE_THREADS = 288, 384
"""Eight consumer warps and a producer warp, or a warpgroup of which one warp works; as in device/types.cuh."""
LOADS = (
    Loads(6, weights=28),
    Loads(6, weights=28, more=True),
    Loads(6, weights=24, more=True),
    Loads(6, weights=8, anew=True, more=True),
    Loads(6),
    Loads(6, weights=8, rows=False),
    Loads(6, rows=False, more=True),
    Loads(6, rows=False, anew=True),
    Loads(6, rows=False, early=False),
    Loads(6, rows=False, early=False, anew=True),
    Loads(6, inline=False),
    Loads(6, inline=False, anew=True),
    Loads(2, inline=False, anew=True),
)
"""To be tried in this order, until no registers are spilled; `attempts` are those that a target can."""
LOADS_OF_ROWS = (
    Loads(3, weights=16),
    Loads(3, weights=16, more=True),
    Loads(3, early=False),
    Loads(3, inline=False),
    Loads(2, inline=False),
    Loads(3, early=False, gathers=False),
    Loads(3, inline=False, gathers=False),
    Loads(2, inline=False, gathers=False),
)
"""The same for steps of several tokens."""
PARTIAL_BYTES = 3072
"""Shared memory for the partial sums of one batch of tasks; there are two such buffers."""
CONTROL_BYTES = 1536
"""Shared memory, at most, of barriers, reductions and what waits need."""
ENTRY = "amk_step"
"""Name of the kernel's entry function."""
_PARTIAL = "float* partial = reinterpret_cast<float*>(shared + PARTIALS_AT) + partial_at;"
"""Where a function puts the partial sums of a task."""
MAX_EVENTS = 1000
"""Runs, fetches, waits and signals that are written out; more make the text too large for the compiler."""


def attempts(target: Target, tokens: int) -> tuple[Loads, ...]:
    """What is tried for a kernel of so many tokens a step, in this order."""
    return tuple(
        loads for loads in (LOADS if tokens == 1 else LOADS_OF_ROWS) if target.moves_registers or not loads.more
    )


@dataclass(frozen=True)
class DroppedSignal:
    """A fault for tests: SM `sm` does not signal `counter` from step `step` of a launch on. A wait for it then runs out of
    time."""

    counter: str
    sm: int
    step: int = 0


@dataclass(frozen=True)
class EmittedKernel:
    """CUDA C++ that includes the device library, and the plan to pack, load and launch it."""

    source: str
    plan: KernelPlan


def emit_kernel(
    kernel: KernelOp,
    drop_signal: DroppedSignal | None = None,
    loads: Loads = LOADS[0],
    trace: TraceDetail | None = None,
    token_loop: bool = False,
    resident: KernelPlan | None = None,
) -> EmittedKernel:
    """CUDA C++ of `kernel`, which the caller has verified. `loads`: those that a thread issues together.
    `trace`: the timestamps that each block takes. `token_loop`: whether a launch can run several steps.
    `resident`: plan of another kernel of the model, whose packed weights and state this one is to use.

    Raises CompileError: weights or state that the resident kernel stores otherwise, not a CUDA target, no ring, the explicit form, a body that cannot be expressed, or a token loop
    of steps that are not from one token id to one.
    """
    check_hazards(kernel)
    emitted = _Emitter(kernel, drop_signal, loads, PARTIAL_BYTES, trace, token_loop, resident).emit()
    limit = get_target(kernel.target.data).shared_memory_per_block
    if emitted.plan.dynamic_shared > limit:
        # more barriers, less memory: the sums of one task at a time
        emitted = _Emitter(kernel, drop_signal, loads, 0, trace, token_loop, resident).emit()
    if resident is not None:
        check_shared(emitted.plan, resident)
    return emitted


class _Emitter:
    """Writes one kernel."""

    def __init__(
        self,
        kernel: KernelOp,
        drop_signal: DroppedSignal | None,
        loads: Loads,
        partial_bytes: int,
        trace: TraceDetail | None,
        token_loop: bool,
        resident: KernelPlan | None,
    ):
        self.kernel = kernel
        self.drop = drop_signal
        self.name = kernel.sym_name.data
        self.target = get_target(kernel.target.data)
        if loads.more and not self.target.moves_registers:
            raise CompileError(f"kernel @{self.name}: {self.target.name} cannot move registers between warpgroups")
        if not self.target.is_cuda:
            raise CompileError(
                f"kernel @{self.name} is for target '{self.target.name}', the CUDA backend needs one of the sm_* targets"
            )
        self.context = EmitContext.of(kernel, loads, partial_bytes, trace, token_loop)
        self.context.resident = resident
        self.trace = self.context.trace
        self.counters = self._count_signals()
        self.placed: dict[Operation, PlacedTasks] = {}
        self.synced = False  # whether a consumer barrier follows everything written so far
        # plain buffers that the consumers may have accessed since their last barrier
        self.read: set[str] = set()
        self.written: set[str] = set()
        if drop_signal is not None and drop_signal.counter not in self.counters:
            raise CompileError(f"kernel @{self.name} has no counter @{drop_signal.counter}")
        events = sum(isinstance(op, RunOp | FetchOp | WaitOp | SignalOp) for op in kernel.walk())
        if events > MAX_EVENTS:
            raise CompileError(
                f"kernel @{self.name} spells out {events} events, the CUDA backend writes at most {MAX_EVENTS}: emit "
                "it from the compact form, before expand-queues"
            )

    def emit(self) -> EmittedKernel:
        body = self._entry()
        context, ring = self.context, self.context.ring
        partial_bytes = -(-2 * 4 * context.partial_floats // 128) * 128
        work_bytes = -(-context.work_bytes // 128) * 128
        turns_bytes = -(-context.turns_bytes // 128) * 128
        shared = ring.total_bytes + partial_bytes + work_bytes + turns_bytes + CONTROL_BYTES
        plan = KernelPlan(
            name=self.name,
            target=self.target.name,
            grid=self.kernel.num_sms,
            threads=MORE_THREADS if context.loads.more else BLOCK_THREADS,
            max_seq=self.kernel.max_seq.value.data,
            tokens=context.tokens,
            ring=ring,
            dynamic_shared=shared,
            buffers=tuple(b for b in context.buffers.values() if b.name in context.used),
            weights=tuple(b for b in context.buffers.values() if b.source is not None),
            streams=(*context.streams.values(), *context.borrowed.values()),
            counters=tuple(self.counters.values()),
            operations=tuple(context.operations),
            trace=self.trace.detail,
            trace_points=tuple(self.trace.points) if self.trace.detail else (),
            token_loop=context.token_loop,
        )
        source = SourceWriter()
        source.line(f"// @{self.name} for {self.target.name}: {plan.grid} blocks of {plan.threads} threads, one an SM.")
        ring_file = "ring_bulk.cuh" if self.target.has_bulk_copy else "ring_async.cuh"
        self.trace.write_defines(source)
        if context.loads.more:
            source.line("#define AMK_MORE_REGISTERS")
        is_quantized = any(b.quantized is not None for b in context.buffers.values())
        for name in (
            ring_file,
            "ring.cuh",
            "counters.cuh",
            "tagged.cuh",
            *(("quantized_matvec.cuh", "quantized_rows.cuh") if is_quantized else ("matvec.cuh",)),
            "cache.cuh",
            "attention.cuh",
            "gather.cuh",
            *(("turns.cuh",) if context.turns else ()),
            *(("gather_rows.cuh", "matvec_segment.cuh") if context.tokens > 1 else ()),
            *(("thread_number.cuh",) if self._is_crowded else ()),
            *(("registers.cuh",) if context.loads.more else ()),
            *(("token_loop.cuh",) if context.token_loop is not None else ()),
        ):
            source.line(f'#include "{name}"')
        source.line()
        source.line(f"using WeightRing = Ring<{ring.stages}, {ring.stage_bytes}, {ring.in_flight}>;")
        source.line(f"using WeightReader = RingReader<{ring.stages}, {ring.stage_bytes}, {ring.in_flight}>;")
        source.line(f"using WeightWriter = RingWriter<{ring.stages}, {ring.stage_bytes}, {ring.in_flight}>;")
        source.line(f"constexpr int PARTIAL_FLOATS = {context.partial_floats};")
        source.line(f"constexpr int PARTIALS_AT = {ring.total_bytes};")
        source.line(f"constexpr int WORK_AT = {ring.total_bytes + partial_bytes};")
        source.line(f"constexpr int TURNS_AT = {ring.total_bytes + partial_bytes + work_bytes};")
        source.line(f"constexpr int CONTROL_AT = {ring.total_bytes + partial_bytes + work_bytes + turns_bytes};")
        source.line()
        with source.block("struct Control", "};"):
            source.line(f"u64 full[{ring.stages}], empty[{ring.stages}];")
            source.line("Watch watch;")
            source.line(
                f"float norm_sums[3][{context.tokens} * CONSUMER_WARPS];  // of a group of runs, of the next one, of a norm alone"
            )
            source.line("Best best[CONSUMER_WARPS];")
            if context.token_loop is not None:
                source.line("StepEnd end;")
        source.line("extern __shared__ __align__(1024) u8 shared[];")
        source.line(f'static_assert(sizeof(Control) <= {CONTROL_BYTES}, "as planned");')
        source.line()
        write_loading(source, self.trace)
        self._write_multiply(source, is_quantized)
        with source.block("struct Parameters", "};"):
            for buffer in plan.buffers:
                kind = f"{'tagged ' if buffer.tagged else ''}{buffer.element}"
                source.line(f"{buffer.c_type}* {buffer.parameter};  // {'x'.join(map(str, buffer.shape))} {kind}")
            for stream in plan.streams:
                source.line(f"const u8* {stream.parameter};  // {stream.tasks} packed tasks")
            source.line("u32* counters;\nStuckRecord* records;\nu32* abort;")
            self.trace.write(source, "u64* trace;\nu64 trace_events;")
            source.line("u64 limit_ns;\nint pos;\nu32 epoch;")
            if context.token_loop is not None:
                source.line("TokenLoop loop;")
        source.line()
        for counter in plan.counters:
            if len(set(counter.totals)) > 1:
                totals = ", ".join(map(str, counter.totals))
                source.line(f"__constant__ const u32 total_{counter.name}[] = {{{totals}}};")
        source.line(body)
        return EmittedKernel(source.text, plan)

    def _entry(self) -> str:
        source = SourceWriter()
        programs = self.kernel.programs
        head = f'extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) {ENTRY}('
        with source.block(f"{head}const __grid_constant__ Parameters p)"):
            source.line("Control& control = *reinterpret_cast<Control*>(shared + CONTROL_AT);")
            source.line("Watch& watch = control.watch;")
            source.line("const WeightRing ring = {shared, control.full, control.empty};")
            with source.block("if (threadIdx.x == 0)"):
                for line in (
                    "records = p.records",
                    "abort = p.abort",
                    "limit_ns = p.limit_ns",
                    "phase = watch.step = 0",
                    "ended = 0",
                ):
                    source.line(f"watch.{line};")
                source.line("watch.block_abort = 0;\nWeightRing(ring).init();")
                if (loop := self.context.token_loop) is not None:
                    source.line(f"control.end.token = *p.b_{loop.token};")
            source.line("__syncthreads();")
            with source.block("if (threadIdx.x >= CONSUMERS)"):
                if self.context.loads.more:
                    source.line("give_registers();")
                source.line("if (!drives_ring()) return;")
                source.line("WeightLoads writer;")
                self.trace.write_begin(source, 1, "writer.trace")
                self.trace.write(source, "writer.trace.begin(p.trace_events);")
                loops = self.context.token_loop is not None
                if loops:
                    # ahead of the consumers, into the next step's weights
                    source.line("#pragma unroll 1")
                with source.block(
                    "for (int step = 0; step < p.loop.steps && !writer.is_stopped(); ++step)" if loops else ""
                ):
                    source.line(f"const int pos = p.pos{' + step' if loops else ''};")
                    for program in programs:
                        with self._program(source, program):
                            self._write_stream(source, program, program.stream.block)
                source.line("writer.finish(ring);")
                self.trace.write(source, "writer.trace.align(p.trace_events);\nwriter.trace.finish(p.trace_events);")
                source.line("return;")
            if self.context.loads.more:
                source.line("take_registers();")
            source.line("u32 at = 0;  // where this thread reads the ring")
            source.line("float* const partials = reinterpret_cast<float*>(shared + PARTIALS_AT);")
            source.line("u8* const work = shared + WORK_AT;")
            self.trace.write_begin(source, 0, "Trace trace")
            self.trace.mark(source, "start of the step")
            source.line("int flip = 0;  // which half of the partial sums the next batch uses")
            source.line("int norm_flip = 0;  // which norm sums the next group of runs uses")
            bodies = SourceWriter()
            for program in programs:
                with self._program(bodies, program):
                    self.synced = True
                    self.read, self.written = set(), set()
                    self._write_body(bodies, program, program.body.block)
            with self._steps(source):
                self._write_turns(source)
                source.line(bodies.text.rstrip("\n"))
            self.trace.write(source, "trace.finish(p.trace_events);")
        return source.text

    def _write_turns(self, source: SourceWriter) -> None:
        """The turns of the step, which the bodies read."""
        context = self.context
        for name, at in context.turns.items():
            storage = context.buffers[name]
            source.line(f"float2* const turns_{name} = reinterpret_cast<float2*>(shared + TURNS_AT + {at});")
            source.line(f"put_turns<{context.tokens}, {storage.elements}>(turns_{name}, p.{storage.parameter}, pos);")
        if context.turns:
            source.line("consumer_barrier();")

    @contextmanager
    def _steps(self, source: SourceWriter) -> Generator[None]:
        """What is written inside is a step: of one a launch, or of several, each of which begins after the one before."""
        loop = self.context.token_loop
        if loop is None:
            source.line("const int pos = p.pos;\nconst u32 epoch = p.epoch;")
            yield
            return
        source.line("#pragma unroll 1")
        with source.block("while (true)"):
            # what is used rarely is read from shared memory: registers are scarce
            self._write_thread_number(source)
            source.line("const int pos = p.pos + watch.step;\nconst u32 epoch = p.epoch + watch.step;")
            yield
            number = self.context.operation("the end of a step")
            arguments = f"p.loop, p.epoch, p.b_{loop.chosen}, control.end, watch, {number}"
            source.line("if (p.loop.steps == 1) break;")
            source.line(f"end_step<{self.kernel.num_sms}>({arguments});")
            with source.block("if (!control.end.goes_on)"):
                source.line("if (watch.ended) wake_producer(control.empty, at & 0xffff);\nbreak;")

    @property
    def _is_crowded(self) -> bool:
        """Whether registers are scarce: in kernels of several steps a launch, of several tokens a step, or after a failed try."""
        return self.context.token_loop is not None or self.context.tokens > 1 or self.context.loads.anew

    def _write_thread_number(self, source: SourceWriter) -> None:
        """In a loop of a crowded kernel: what depends on the thread is computed anew in each iteration. Kept in registers
        for all of them, it would leave too few for the rest."""
        if self._is_crowded:
            source.line("const ThreadNumber threadIdx = {thread_number()};")

    def _write_multiply(self, source: SourceWriter, is_quantized: bool) -> None:
        """The matrix product of one task."""
        source.line("// A task's product with the activations in the work area; returns where the ring is read next.")
        sizes, tokens = "int GROUPS, int K_BLOCKS, int CHUNK", self.context.tokens
        inline = self.context.loads.inline
        parameters, place = "u32 at, int partial_at, u32 operation", "reader, activations(shared + WORK_AT), partial"
        product = f"matvec<GROUPS, K_BLOCKS, CHUNK, {tokens}>({place}, control.watch, operation);"
        self._write_reading(source, f"template <{sizes}>", MULTIPLY, parameters, [_PARTIAL, product], inline)
        if self.context.loads.is_early:
            source.line("// Its first stages, to registers; and the product after that.")
            load = "first.load(reader, control.watch, operation);"
            template = "template <typename First>"
            self._write_reading(source, template, LOAD_FIRST, "First& first, u32 at, u32 operation", [load], inline)
            template = "template <typename First, typename Meanwhile = Nothing>"
            product = f"first.multiply({place}, control.watch, operation, meanwhile);"
            after, last = f"const First& first, {parameters}", ", Meanwhile meanwhile = {}"
            self._write_reading(source, template, MULTIPLY_AFTER, after, [_PARTIAL, product], inline, last)
        if is_quantized:
            product = f"quantized_matvec<Q, GROUPS, K_BLOCKS, CHUNK, {tokens}>({place}, control.watch, operation);"
            template = f"template <typename Q, {sizes}>"
            self._write_reading(source, template, MULTIPLY_QUANTIZED, parameters, [_PARTIAL, product], inline)
        source.line("// All of an attention task but its operands, likewise; out of line, it has registers of its own.")
        template, run = "template <typename Attention>", "reader, pos, part, control.watch, operation);"
        parameters = "u32 at, int pos, int part, u32 operation"
        inline = inline and self.context.tokens == 1
        attend = f"Attention::run(shared + WORK_AT, {run}"
        self._write_reading(source, template, ATTEND, parameters, [attend], inline, varies=True)
        if self.context.loads.has_early_rows and self.context.tokens == 1:
            source.line("// Its first rows, to registers; and the attention after that.")
            parameters = f"typename Attention::HeldRows& rows, {parameters}"
            load = f"Attention::load_first(rows, {run}"
            self._write_reading(source, template, LOAD_ROWS, parameters, [load], inline, varies=True)
            attend = f"Attention::run_early(shared + WORK_AT, rows, {run}"
            self._write_reading(source, template, ATTEND_AFTER, parameters, [attend], inline, varies=True)
        source.line()
        if self.context.tokens > 1:
            self._write_multiply_segment(source, is_quantized)
            self._write_gather(source)

    def _write_reading(
        self,
        source: SourceWriter,
        template: str,
        name: str,
        parameters: str,
        lines: Sequence[str],
        inline: bool,
        last: str = "",
        *,
        varies: bool = False,
    ) -> None:
        """A function that reads the ring from `at` on, and returns where it is read next. last: a parameter behind the trace.
        varies: whether the events that it notes are not known to who calls it, whose trace it moves on then."""
        source.line(template)
        trace, traced = (f", Trace{'&' if varies else ''} trace", ", trace") if self.trace.has_stages else ("", "")
        how = "forceinline" if inline else "noinline"
        with source.block(f"__device__ __{how}__ u32 {name}({parameters}{trace}{last})"):
            source.line("Control& control = *reinterpret_cast<Control*>(shared + CONTROL_AT);")
            source.line(
                f"WeightReader reader = {{{{shared, control.full, control.empty}}, at & 0xffff, at >> 16{traced}}};"
            )
            source.lines(lines)
            if traced and varies:
                source.line("trace.next = reader.trace.next;")
            source.line("return reader.stage | reader.parity << 16;")

    def _write_multiply_segment(self, source: SourceWriter, is_quantized: bool) -> None:
        source.line(
            "// A task's product with one segment of the activations; the sums of a batch are kept behind the segment."
        )
        tokens = self.context.tokens
        count = f"Sums<GROUPS, {tokens}>::COUNT"
        self._write_segment_product(source, "", MULTIPLY_SEGMENT, "matvec_segment<", "SEGMENT", count)
        if is_quantized:
            sums = f"CodesSums<Q, GROUPS, {tokens}>"
            self._write_segment_product(
                source,
                "typename Q, ",
                MULTIPLY_QUANTIZED_SEGMENT,
                "quantized_matvec_segment<Q, ",
                "SEGMENT * Q::BLOCK_STEPS",
                f"({count} + ({sums}::KEEPS_X ? {sums}::HALVES : 0))",
            )

    def _write_segment_product(
        self, source: SourceWriter, template: str, name: str, function: str, room: str, sums: str
    ) -> None:
        """room: blocks of 32 columns that a segment has room for. sums: that a thread keeps."""
        tokens = self.context.tokens
        lines = [
            _PARTIAL,
            f"constexpr int SUMS = {sums} * CONSUMERS;",
            f"constexpr int KEPT_AT = WORK_AT + 4 * {tokens} * activation_stride({room});",
            "float4* kept = reinterpret_cast<float4*>(shared + KEPT_AT) + slot * SUMS;",
            f"{function}GROUPS, BLOCKS, SEGMENT, CHUNK, {tokens}>(reader, activations(shared + WORK_AT), kept, "
            "segment == 0, segment == last, partial, control.watch, operation);",
        ]
        template = f"template <{template}int GROUPS, int BLOCKS, int SEGMENT, int CHUNK>"
        parameters = "u32 at, int slot, int segment, int last, int partial_at, u32 operation"
        self._write_reading(source, template, name, parameters, lines, inline=False)
        source.line()

    def _write_gather(self, source: SourceWriter) -> None:
        tokens = self.context.tokens
        words = "const u32* base, u32 from, u32 stride, const Weight* weights"
        source.line("// Several rows of tagged words become the activations of the next product.")
        source.line("template <int WIDTH, int STRIDE, typename Weight>")
        with source.block(f"__device__ __forceinline__ void gather({words}, float* squares, u32 epoch, u32 operation)"):
            source.line("Control& control = *reinterpret_cast<Control*>(shared + CONTROL_AT);")
            source.line(
                f"RowGather<{tokens}, WIDTH, STRIDE, Weight> rows = {{base, from, stride, weights, epoch, operation}};"
            )
            source.line("gather_rows(rows, activations(shared + WORK_AT), squares, control.watch);")
        source.line()
        source.line("// The same, and a task's product with them.")
        lines = [
            _PARTIAL,
            f"RowGather<{tokens}, K_BLOCKS * 32, activation_stride(K_BLOCKS), Weight> rows = {{base, from, stride, "
            "weights, epoch, gathering};",
            f"matvec_gathered<GROUPS, K_BLOCKS, CHUNK, {tokens}, HELD>(reader, rows, activations(shared + WORK_AT), "
            "norm_sums, partial, control.watch, operation);",
        ]
        template = "template <int GROUPS, int K_BLOCKS, int CHUNK, int HELD, typename Weight>"
        parameters = f"u32 at, int partial_at, u32 operation, {words}, float* norm_sums, u32 epoch, u32 gathering"
        self._write_reading(source, template, MULTIPLY_GATHERED, parameters, lines, inline=False)
        source.line()

    def _program(self, source: SourceWriter, program: ProgramOp):
        first, last = program.sms.start, program.sms.stop
        everywhere = first == 0 and last == self.kernel.num_sms
        block = source.block("" if everywhere else f"if (blockIdx.x >= {first} && blockIdx.x < {last})")
        source.line(f"// program of SMs {first} to {last}")
        self._sm_line = f"const int sm = blockIdx.x - {first};" if first else "const int sm = blockIdx.x;"
        return block

    # ---- streams -----------------------------------------------------------------------------------------------------

    def _write_stream(self, source: SourceWriter, program: ProgramOp, block: Block) -> None:
        if block is program.stream.block:
            source.line(self._sm_line)
        for op in block.ops:
            if isinstance(op, ForOp):
                with self._loop(source, op):
                    self._write_stream(source, program, op.body.block)
            elif isinstance(op, FetchOp):
                write_fetch(source, self.context, self._place(op, program))

    # ---- bodies ------------------------------------------------------------------------------------------------------

    def _write_body(self, source: SourceWriter, program: ProgramOp, block: Block) -> None:
        if block is program.body.block:
            source.line(self._sm_line)
        events: list[Operation] = []

        def flush() -> None:
            if events:
                with source.block(""):
                    self._write_events(source, program, events)
                events.clear()

        for op in block.ops:
            if isinstance(op, ForOp):
                flush()
                self._write_loop_body(source, program, op)
            elif isinstance(op, PhaseOp):
                flush()
                self._write_phase(source, program, op)
            else:
                events.append(op)
        flush()

    def _write_loop_body(self, source: SourceWriter, program: ProgramOp, op: ForOp) -> None:
        # An iteration begins with what is left of the one before, so the body is written once to find that out.
        read, written = set(self.read), set(self.written)
        for text in (SourceWriter(), source):
            self.synced = False
            self.read |= read
            self.written |= written
            with self._loop(text, op):
                self.trace.loops.append((op.index.data, op.range.start, op.range.stop))
                self._write_thread_number(text)
                self._write_body(text, program, op.body.block)
                self.trace.loops.pop()
        self.synced = False
        self.read |= read
        self.written |= written

    def _write_phase(self, source: SourceWriter, program: ProgramOp, phase: PhaseOp) -> None:
        runs = [self._place(run, program) for run in phase.runs]
        before, read, written = self.synced, set(self.read), set(self.written)
        with source.block(""):
            for run in runs:
                source.lines(run.range_lines())
            owned = " || ".join(f"{run.begin} < {run.end}" for run in runs)
            with source.block(f"if ({owned})"):
                self._write_events(source, program, list(phase.body.block.ops), ranges_written=True)
        source.line("if (threadIdx.x == 0) ++watch.phase;")
        # an SM without tasks has not executed any of this
        self.synced = self.synced and before
        self.read |= read
        self.written |= written

    def _write_events(
        self, source: SourceWriter, program: ProgramOp, events: list[Operation], ranges_written: bool = False
    ) -> None:
        """Runs, waits and signals in order; neighbours of one kind together."""
        position = 0
        while position < len(events):
            kind = type(events[position])
            last = position
            while last < len(events) and type(events[last]) is kind:
                last += 1
            group = events[position:last]
            position = last
            if kind is WaitOp:
                self._write_waits(source, [op for op in group if isinstance(op, WaitOp)])
            elif kind is SignalOp:
                self._write_signals(source, [op for op in group if isinstance(op, SignalOp)])
            else:
                runs = [self._place(op, program) for op in group if isinstance(op, RunOp)]
                self._write_runs(source, runs, ranges_written)

    def _write_runs(self, source: SourceWriter, runs: list[PlacedTasks], ranges_written: bool) -> None:
        if not ranges_written:
            for run in runs:
                source.lines(run.range_lines())
        # Neighbours are written as one group, without a barrier, unless one touches what another one writes. Tagged
        # words need none: who reads them polls them.
        group: list[PlacedTasks] = []
        read: set[str] = set()
        written: set[str] = set()

        def flush() -> None:
            # between the loads of a matmul or attention and what it stores is a barrier anyway
            late = all(has_barrier_before_stores(run.family) for run in group)
            if read & self.written or (not late and written & (self.read | self.written)):
                self._barrier(source)
            write_run_group(source, self.context, group)
            self.synced = False
            self.read |= read
            self.written |= written

        for run in runs:
            loads, stores = (
                {op.region.buffer for op in ops if not self.context.buffers[op.region.buffer].tagged}
                for ops in (run.family.loads, run.family.stores)
            )
            if loads & written or stores & (read | written):
                flush()
                group, read, written = [], set(), set()
            group.append(run)
            read |= loads
            written |= stores
        flush()

    def _barrier(self, source: SourceWriter) -> None:
        source.line("consumer_barrier();")
        self.synced = True
        self.read.clear()
        self.written.clear()

    def _write_waits(self, source: SourceWriter, waits: list[WaitOp]) -> None:
        for number, op in enumerate(waits):
            counter = self.counters[op.counter_name]
            index = linear_text(op.index.data + counter.offset)
            total = self._total(counter, op.index.data)
            if op.threshold is None:
                threshold = f"epoch * {total}"
            else:
                threshold = f"(epoch - 1) * {total} + ({linear_text(op.threshold.data)})"
            condition = "all" if op.threshold is None else f">= {op.threshold.data}"
            text = f"queue.wait @{op.counter_name}[{op.index.data}] {condition}"
            source.line(f"// {text}")
            source.line(
                f"if (threadIdx.x == {number % 256}) "
                f"wait_counter(p.counters, {index}, {threshold}, watch, {self.context.operation(text)});"
            )
        self._barrier(source)
        names = dict.fromkeys(f"queue.wait @{op.counter_name}[{op.index.data}]" for op in waits)
        self.trace.mark(source, "wait for counters", ", ".join(names), PointKind.COUNTER)

    def _write_signals(self, source: SourceWriter, signals: list[SignalOp]) -> None:
        if not self.synced:
            self._barrier(source)
        for op in signals:
            counter = self.counters[op.counter_name]
            index = linear_text(op.index.data + counter.offset)
            dropped = self.drop is not None and self.drop.counter == op.counter_name
            condition = f" && blockIdx.x != {self.drop.sm}" if dropped and self.drop is not None else ""
            if condition and self.drop is not None and self.drop.step:
                condition = f" && (blockIdx.x != {self.drop.sm} || watch.step < {self.drop.step})"
            source.line(f"// queue.signal @{op.counter_name}[{op.index.data}]")
            source.line(f"if (threadIdx.x == 0{condition}) signal_counter(p.counters + ({index}) * COUNTER_STRIDE);")
        names = dict.fromkeys(f"queue.signal @{op.counter_name}[{op.index.data}]" for op in signals)
        self.trace.mark(source, "signal", ", ".join(names))

    def _total(self, counter: CounterStorage, index: Linear) -> str:
        if len(set(counter.totals)) == 1:
            return f"{counter.totals[0]}u"
        return f"total_{counter.name}[{linear_text(index)}]"

    # ---- common ------------------------------------------------------------------------------------------------------

    def _loop(self, source: SourceWriter, op: ForOp):
        index = LOOP_PREFIX + op.index.data
        source.line("#pragma unroll 1")
        return source.block(f"for (int {index} = {op.range.start}; {index} < {op.range.stop}; ++{index})")

    def _place(self, op: PlacedOp, program: ProgramOp) -> PlacedTasks:
        if op not in self.placed:
            family = self.kernel.families[op.family_name]
            self.placed[op] = PlacedTasks(op, family, program.sms, len(self.placed))
        return self.placed[op]

    def _count_signals(self) -> dict[str, CounterStorage]:
        """The counters, with the signals that a step gives to each element."""
        signals = Schedule.from_kernel(self.kernel).signals
        result: dict[str, CounterStorage] = {}
        offset = 0
        for name, op in self.kernel.counters.items():
            size = op.size.value.data
            result[name] = CounterStorage(name, offset, tuple(int(n) for n in signals[offset : offset + size]))
            offset += size
        return result
