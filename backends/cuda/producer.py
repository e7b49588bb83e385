"""C++ of the producer warp: what it loads into the weight ring, and in which order."""

from __future__ import annotations

from ...amk_ir.segments import Segments
from .attention import write_history_fetch
from .context import EmitContext, attentions_of
from .placement import PlacedTasks
from .source import SourceWriter
from .storage import StreamStorage
from .trace_points import TraceWriter


def write_loading(source: SourceWriter, trace: TraceWriter) -> None:
    """The function that loads stages, and the type of the `writer` that the text of fetches and device/cache.cuh call."""
    source.lines(
        (
            "// Loads what follows each other in memory, as RingWriter::push_all; returns the state of the ring. Out of line: it is executed",
            "// all the time, and copies of it for all that is loaded would take the instruction cache from the consumers.",
        )
    )
    # traced ones are in line: a trace keeps its place in registers
    how, last = ("forceinline", ", WriterTrace& trace") if trace.is_on else ("noinline", "")
    parameters = "const u8* source, u32 bytes, u32 chunk, u32 count, u32 operation"
    with source.block(f"__device__ __{how}__ u32 load_stages(u32 at, {parameters}{last})"):
        source.line("Control& control = *reinterpret_cast<Control*>(shared + CONTROL_AT);")
        source.line("WeightWriter writer = {{shared, control.full, control.empty}};")
        source.line("writer.unpack(at);")
        trace.write(source, "writer.trace = trace;")
        source.line("writer.push_all(source, bytes, chunk, count, control.watch, operation);")
        trace.write(source, "trace = writer.trace;")
        source.line("return writer.packed();")
    source.line("// The producer between these calls.")
    with source.block("struct WeightLoads", "};"):
        source.line("u32 at = 0;")
        trace.write(source, "WriterTrace trace = {};")
        with source.block(f"__device__ __forceinline__ void push_all({parameters})"):
            arguments = "at, source, bytes, chunk, count, operation" + (", trace" if trace.is_on else "")
            source.line(f"at = load_stages({arguments});")
        with source.block("__device__ __forceinline__ void push(const u8* source, u32 bytes, u32 operation)"):
            source.line("push_all(source, bytes, bytes, 1, operation);")
        source.line(
            "__device__ __forceinline__ bool is_stopped() const { return (at & WeightWriter::STOPPED) != 0; }\n"
            "__device__ __forceinline__ void stop() { at |= WeightWriter::STOPPED; }"
        )
        with source.block("__device__ __forceinline__ void finish(const WeightRing& ring)"):
            source.line("WeightWriter writer = {ring};\nwriter.unpack(at);")
            trace.write(source, "writer.trace = trace;")
            source.line("writer.finish();")
            trace.write(source, "trace = writer.trace;")
    source.line()


def write_fetch(source: SourceWriter, context: EmitContext, fetch: PlacedTasks) -> None:
    """What the tasks of one fetch stream: weights, or earlier rows of the KV cache, or both."""
    stream = context.streams.get(fetch.name)
    operation = context.operation(f"queue.fetch @{fetch.name}")
    source.line(f"// {fetch.text}")
    with source.block(""):
        source.lines(fetch.range_lines())
        if stream and (segments := context.segments(fetch.name, fetch.most)) is not None:
            _write_segmented_fetch(source, stream, fetch, segments, operation)
            return
        with source.block(f"for (int tile = {fetch.begin}; tile < {fetch.end}; tile += {fetch.step})"):
            if attentions_of(fetch.family):
                source.lines(fetch.index_lines())
                write_history_fetch(source, context, fetch, operation)
            if stream:
                _write_weights_fetch(source, fetch, stream, operation)


def _write_weights_fetch(source: SourceWriter, fetch: PlacedTasks, stream: StreamStorage, operation: int) -> None:
    """The packed weights of task number `tile`."""
    layout = stream.layout
    source.line(_task_line(fetch, stream))
    source.line(f"writer.push_all(task, {layout.task_bytes}, {layout.chunk_bytes}, {layout.chunks}, {operation});")


def _write_segmented_fetch(
    source: SourceWriter, stream: StreamStorage, fetch: PlacedTasks, segments: Segments, operation: int
) -> None:
    """The tiles of a batch of tasks, segment by segment: the order in which they are multiplied."""
    layout = stream.layout
    stages = segments.blocks // segments.chunk_blocks  # of a segment
    step = fetch.step * segments.batch
    source.line("#pragma unroll 1")
    with source.block(f"for (int first = {fetch.begin}; first < {fetch.end}; first += {step})"):
        source.line("#pragma unroll 1")
        with source.block(f"for (int from = 0; from < {layout.chunks}; from += {stages})"):
            source.line(f"const bool is_last = from + {stages} >= {layout.chunks};")
            source.line(f"const int count = is_last ? {layout.chunks} - from : {stages};")
            source.line(f"const int begin = from * {layout.chunk_bytes};")
            source.line(f"const int bytes = is_last ? {layout.task_bytes} - begin : {stages * layout.chunk_bytes};")
            batch = f"tile < {fetch.end} && tile < first + {step}"
            source.line("#pragma unroll 1")
            with source.block(f"for (int tile = first; {batch}; tile += {fetch.step})"):
                source.line(_task_line(fetch, stream))
                source.line(f"writer.push_all(task + begin, bytes, {layout.chunk_bytes}, count, {operation});")


def _task_line(fetch: PlacedTasks, stream: StreamStorage) -> str:
    """Defines `task`: where the packed weights of task number `tile` begin."""
    bytes = stream.layout.task_bytes
    return f"const u8* task = p.{stream.parameter} + static_cast<u64>({fetch.base} + tile) * {bytes};"
