"""CUDA C++ of a `queue.kernel` in compact form: specialised to the model, the schedule and the target.

The text is thin: what does not depend on the plan is in the device library (device/*.cuh). One block runs on each SM;
its producer warp walks the stream regions and keeps the weight ring full, its eight consumer warps walk the bodies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from xdsl.ir import Block, Operation

from ...amk_ir.errors import CompileError
from ...amk_ir.linear import Linear
from ...amk_ir.targets import get_target
from ...dialects.queue import FetchOp, KernelOp, PhaseOp, PlacedOp, ProgramOp, RunOp, SignalOp, WaitOp
from ...dialects.schedule import Schedule
from ...dialects.task import ForOp
from .bodies import write_early_loads, write_run_group
from .context import EmitContext
from .coordinates import LOOP_PREFIX, linear_text
from .hazards import check_hazards
from .placement import PlacedTasks
from .plan import CounterStorage, KernelPlan
from .source import SourceWriter

BLOCK_THREADS = 288
"""Eight consumer warps and a producer warp; as in device/types.cuh."""
UNROLL = 8
"""Loads that a thread issues together: enough to cover their latency, few enough for the registers."""
PARTIAL_BYTES = 3072
"""Shared memory for the partial sums of one batch of tasks; there are two such buffers."""
STATIC_SHARED = 1024
"""Shared memory, at most, of barriers and reductions; the compiler reports the exact size."""
ENTRY = "amk_step"
"""Name of the kernel's entry function."""
MAX_EVENTS = 1000
"""Runs, fetches, waits and signals that are written out; more make the text too large for the compiler."""


@dataclass(frozen=True)
class DroppedSignal:
    """A fault for tests: SM `sm` never signals `counter`. A wait for it then runs out of time."""

    counter: str
    sm: int


@dataclass(frozen=True)
class EmittedKernel:
    """CUDA C++ that includes the device library, and the plan to pack, load and launch it."""

    source: str
    plan: KernelPlan


def emit_kernel(kernel: KernelOp, drop_signal: DroppedSignal | None = None, unroll: int = UNROLL) -> EmittedKernel:
    """CUDA C++ of `kernel`, which the caller has verified. `unroll`: loads that a thread issues together.

    Raises CompileError: not a CUDA target, no ring, the explicit form, or a body that cannot be expressed.
    """
    check_hazards(kernel)
    emitted = _Emitter(kernel, drop_signal, unroll, PARTIAL_BYTES).emit()
    limit = get_target(kernel.target.data).shared_memory_per_block
    if emitted.plan.dynamic_shared + STATIC_SHARED <= limit:
        return emitted
    # more barriers, less memory: the sums of one task at a time
    return _Emitter(kernel, drop_signal, unroll, 0).emit()


class _Emitter:
    """Writes one kernel."""

    def __init__(self, kernel: KernelOp, drop_signal: DroppedSignal | None, unroll: int, partial_bytes: int):
        self.kernel = kernel
        self.drop = drop_signal
        self.name = kernel.sym_name.data
        self.target = get_target(kernel.target.data)
        if not self.target.is_cuda:
            raise CompileError(
                f"kernel @{self.name} is for target '{self.target.name}', the CUDA backend needs one of the sm_* targets"
            )
        self.context = EmitContext.of(kernel, unroll, partial_bytes)
        self.counters = self._count_signals()
        self.placed: dict[Operation, PlacedTasks] = {}
        self.synced = False  # whether a consumer barrier follows everything written so far
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
        shared = ring.total_bytes + partial_bytes + -(-context.work_bytes // 128) * 128
        plan = KernelPlan(
            name=self.name,
            target=self.target.name,
            grid=self.kernel.num_sms,
            threads=BLOCK_THREADS,
            max_seq=self.kernel.max_seq.value.data,
            tokens=context.tokens,
            ring=ring,
            dynamic_shared=shared,
            buffers=tuple(b for b in context.buffers.values() if b.name in context.used),
            weights=tuple(b for b in context.buffers.values() if b.source is not None),
            streams=tuple(context.streams.values()),
            counters=tuple(self.counters.values()),
            operations=tuple(context.operations),
        )
        source = SourceWriter()
        source.line(f"// @{self.name} for {self.target.name}: {plan.grid} blocks of {plan.threads} threads, one an SM.")
        ring_file = "ring_bulk.cuh" if self.target.has_bulk_copy else "ring_async.cuh"
        for name in (ring_file, "ring.cuh", "counters.cuh", "tagged.cuh", "matvec.cuh", "attention.cuh", "gather.cuh"):
            source.line(f'#include "{name}"')
        source.line()
        source.line(f"using WeightRing = Ring<{ring.stages}, {ring.stage_bytes}, {ring.in_flight}>;")
        source.line(f"using WeightReader = RingReader<{ring.stages}, {ring.stage_bytes}, {ring.in_flight}>;")
        source.line(f"using WeightWriter = RingWriter<{ring.stages}, {ring.stage_bytes}, {ring.in_flight}>;")
        source.line(f"constexpr int PARTIAL_FLOATS = {context.partial_floats};")
        source.line(f"constexpr int PARTIALS_AT = {ring.total_bytes};")
        source.line(f"constexpr int WORK_AT = {ring.total_bytes + partial_bytes};")
        source.line()
        with source.block("struct Parameters", "};"):
            for buffer in plan.buffers:
                kind = f"{'tagged ' if buffer.tagged else ''}{buffer.element}"
                source.line(f"{buffer.c_type}* {buffer.parameter};  // {'x'.join(map(str, buffer.shape))} {kind}")
            for stream in plan.streams:
                source.line(f"const u8* {stream.parameter};  // {stream.tasks} packed tasks")
            source.line("u32* counters;\nStuckRecord* records;\nu32* abort;\nu64 limit_ns;\nint pos;\nu32 epoch;")
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
        tokens = self.context.tokens
        head = f'extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1) {ENTRY}('
        with source.block(f"{head}const __grid_constant__ Parameters p)"):
            source.line("extern __shared__ __align__(1024) u8 shared[];")
            stages = self.context.ring.stages
            source.line(f"__shared__ u64 full[{stages}], empty[{stages}];")
            source.line(f"__shared__ float reduce_scratch[{tokens} * CONSUMER_WARPS];")
            source.line("__shared__ Best best_scratch[CONSUMER_WARPS];")
            source.line("__shared__ volatile u32 block_abort;")
            source.line("const int pos = p.pos;")
            source.line("const bool is_producer = threadIdx.x >= CONSUMERS;")
            source.line("const WeightRing ring = {shared, full, empty};")
            with source.block("if (threadIdx.x == 0)"):
                source.line("block_abort = 0;")
                source.line("WeightRing(ring).init();")
            source.line("__syncthreads();")
            source.line("Watch watch = {p.records, p.abort, &block_abort, p.limit_ns, blockIdx.x, 0, is_producer};")
            with source.block("if (is_producer)"):
                source.line("if (!drives_ring()) return;")
                source.line("WeightWriter writer = {ring};")
                for program in programs:
                    with self._program(source, program):
                        self._write_stream(source, program, program.stream.block)
                source.line("writer.finish();")
                source.line("return;")
            source.line("WeightReader reader = {ring};")
            source.line("float* const partials = reinterpret_cast<float*>(shared + PARTIALS_AT);")
            source.line("u8* const work = shared + WORK_AT;")
            source.line("int flip = 0;  // which half of the partial sums the next batch uses")
            for program in programs:
                with self._program(source, program):
                    self.synced = True
                    self._write_body(source, program, program.body.block)
        return source.text

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
                self._write_fetch(source, self._place(op, program))

    def _write_fetch(self, source: SourceWriter, fetch: PlacedTasks) -> None:
        stream = self.context.streams[fetch.name]
        layout = stream.layout
        operation = self.context.operation(f"queue.fetch @{fetch.name}")
        source.line(f"// {fetch.text}")
        with source.block(""):
            source.lines(fetch.range_lines())
            with source.block(f"for (int tile = {fetch.begin}; tile < {fetch.end}; tile += {fetch.step})"):
                source.line(
                    f"const u8* task = p.{stream.parameter} + static_cast<u64>({fetch.base} + tile) * {layout.task_bytes};"
                )
                last = layout.task_bytes - (layout.chunks - 1) * layout.chunk_bytes
                if layout.chunks > 1:
                    source.line("#pragma unroll 1")
                    source.line(
                        f"for (int chunk = 0; chunk < {layout.chunks - 1}; ++chunk)\n"
                        f"    writer.push(task + chunk * {layout.chunk_bytes}, {layout.chunk_bytes}, watch, {operation});"
                    )
                at = (layout.chunks - 1) * layout.chunk_bytes
                source.line(f"writer.push(task + {at}, {last}, watch, {operation});")

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
                self.synced = False
                with self._loop(source, op):
                    self._write_body(source, program, op.body.block)
                self.synced = False
            elif isinstance(op, PhaseOp):
                flush()
                self._write_phase(source, program, op)
            else:
                events.append(op)
        flush()

    def _write_phase(self, source: SourceWriter, program: ProgramOp, phase: PhaseOp) -> None:
        runs = [self._place(run, program) for run in phase.runs]
        before = self.synced
        with source.block(""):
            for run in runs:
                source.lines(run.range_lines())
            owned = " || ".join(f"{run.begin} < {run.end}" for run in runs)
            with source.block(f"if ({owned})"):
                self._write_events(source, program, list(phase.body.block.ops), ranges_written=True)
        source.line("++watch.phase;")
        self.synced = self.synced and before

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
                if ranges_written:
                    self._write_early_loads(source, program, events[last:])
                self._write_waits(source, [op for op in group if isinstance(op, WaitOp)])
            elif kind is SignalOp:
                self._write_signals(source, [op for op in group if isinstance(op, SignalOp)])
            else:
                runs = [self._place(op, program) for op in group if isinstance(op, RunOp)]
                self._write_runs(source, runs, ranges_written)

    def _write_early_loads(self, source: SourceWriter, program: ProgramOp, events: Sequence[Operation]) -> None:
        """For the runs that follow waits: what does not depend on them is under way meanwhile."""
        for op in takewhile(lambda op: isinstance(op, RunOp), events):
            assert isinstance(op, RunOp)
            write_early_loads(source, self.context, self._place(op, program))

    def _write_runs(self, source: SourceWriter, runs: list[PlacedTasks], ranges_written: bool) -> None:
        if not ranges_written:
            for run in runs:
                source.lines(run.range_lines())
        # Neighbours are written as one group, without a barrier, unless one touches what another one writes.
        group: list[PlacedTasks] = []
        read: set[str] = set()
        written: set[str] = set()

        def flush() -> None:
            if not self.synced:
                self._barrier(source)
            write_run_group(source, self.context, group)
            self.synced = False

        for run in runs:
            loads = {load.region.buffer for load in run.family.loads}
            stores = {s.region.buffer for s in run.family.stores if not self.context.buffers[s.region.buffer].tagged}
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

    def _write_waits(self, source: SourceWriter, waits: list[WaitOp]) -> None:
        for number, op in enumerate(waits):
            counter = self.counters[op.counter_name]
            index = linear_text(op.index.data + counter.offset)
            total = self._total(counter, op.index.data)
            if op.threshold is None:
                threshold = f"p.epoch * {total}"
            else:
                threshold = f"(p.epoch - 1) * {total} + ({linear_text(op.threshold.data)})"
            condition = "all" if op.threshold is None else f">= {op.threshold.data}"
            text = f"queue.wait @{op.counter_name}[{op.index.data}] {condition}"
            source.line(f"// {text}")
            source.line(
                f"if (threadIdx.x == {number % 256}) "
                f"wait_counter(p.counters, {index}, {threshold}, watch, {self.context.operation(text)});"
            )
        self._barrier(source)

    def _write_signals(self, source: SourceWriter, signals: list[SignalOp]) -> None:
        if not self.synced:
            self._barrier(source)
        for op in signals:
            counter = self.counters[op.counter_name]
            index = linear_text(op.index.data + counter.offset)
            dropped = self.drop is not None and self.drop.counter == op.counter_name
            condition = f" && blockIdx.x != {self.drop.sm}" if dropped and self.drop is not None else ""
            source.line(f"// queue.signal @{op.counter_name}[{op.index.data}]")
            source.line(f"if (threadIdx.x == 0{condition}) signal_counter(p.counters + ({index}) * COUNTER_STRIDE);")

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
