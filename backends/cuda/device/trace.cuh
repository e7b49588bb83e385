// Timestamps of what a block does, for `amk trace`. Without AMK_TRACED nothing of it is compiled.
//
// A block has two rows of 64-bit words: its consumers' (written by thread 0) and its producer's (by the first lane of
// the producer warp). A row is a header and then {clock of the SM, code} pairs; a code is the number of a point and,
// from bit 12 on, an index: of a loop or of an operation. An event is one store that nobody waits for, its position is
// in a register: loading it from shared memory made a traced kernel 5 to 15% slower.
#pragma once
#include "spin.cuh"

constexpr u32 POINT_STAGE_READY = 0;  // consumers: the next stage of the ring is there
constexpr u32 POINT_STAGE_DONE = 1;   // consumers: and has been read
constexpr u32 POINT_PUSHED = 2;       // producer: the load of the next stage was started
constexpr u32 POINT_LANDED = 3;       // producer: the oldest load under way was seen to have landed
constexpr u32 POINT_PUSHED_NEXT = 4;  // producer: both, one right after the other
constexpr u32 POINT_TIME = 5;         // producer: the index is the time
constexpr u32 POINT_BITS = 12;

// Words: events; %globaltimer at `begin` and at `align`; the clock then, in the low and the high half; the timer's tick.
constexpr u32 TRACE_HEADER = 5;

constexpr int NOT_TRACING = 1 << 30;  // events are far fewer

struct NoTrace {
    __device__ __forceinline__ void read(u32) {}
    __device__ __forceinline__ void store() {}
    __device__ __forceinline__ void mark(u32) {}
    __device__ __forceinline__ void mark_time() {}
};

#ifdef AMK_TRACED
__device__ __forceinline__ u32 clock_word() {
    u32 time;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(time)::"memory");
    return time;
}

// `pointer`, kept in registers: the compiler would compute it again at each event.
__device__ __forceinline__ u64* kept(u64* pointer) {
    asm volatile("" : "+l"(pointer));
    return pointer;
}

__device__ __forceinline__ void store_event(u64* to, u32 code, u32 time) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(time), "r"(code) : "memory");
}

struct Trace {
    u64* end;   // of the row
    int next;   // event, counted from the end: from 0 on they are dropped. In threads that do not trace, far beyond.
    u32 begun;  // the clock at `begin`
    u32 time, code;  // of an event that was read and not stored yet

    __device__ static __forceinline__ Trace of_row(u64* rows, u32 row, u32 capacity) {
        const bool is_tracing = threadIdx.x % CONSUMERS == 0;
        return {kept(rows + static_cast<u64>(blockIdx.x * 2 + row + 1) * (TRACE_HEADER + capacity)),
                is_tracing ? -static_cast<int>(capacity) : NOT_TRACING, 0, 0, 0};
    }
    __device__ __forceinline__ bool is_tracing() const { return next < NOT_TRACING; }
    __device__ __forceinline__ u64* header(u32 capacity) const { return end - capacity - TRACE_HEADER; }

    // Short: phases of small models last as long as it takes to fetch their instructions. The clock is read where only one
    // warp does: by all of them, the compiler reads it into a uniform register, which takes 30 cycles more.
    //
    // The clock is read where an event happens, and stored where there is time: it is there some 30 cycles later.
    __device__ __forceinline__ void read(u32 what = 0) {
        if (next < 0) time = clock_word();
        code = what;
    }
    __device__ __forceinline__ void store() {
        if (next < 0) store_event(end + next, code, time);
        ++next;
    }
    __device__ __forceinline__ void store_as(u32 what) {
        code = what;
        store();
    }
    __device__ __forceinline__ void mark(u32 what) {
        read(what);
        store();
    }
    // An event whose index is the GPU's timer in units of 32 ns. The clocks of SMs have nothing to do with each other, and
    // each GPC changes the frequency of its own within a step, by percents.
    __device__ __forceinline__ void mark_time() {
        if (next < 0) {
            const u32 units = static_cast<u32>(now_ns() >> 5);
            store_event(end + next, units << POINT_BITS | POINT_TIME, clock_word());
        }
        ++next;
    }
    // What the clock shows at a known time, to the tick of %globaltimer, which may be a microsecond.
    __device__ __forceinline__ void begin(u32 capacity) {
        if (!is_tracing()) return;
        header(capacity)[1] = now_ns();
        begun = clock_word();
    }
    // The same when %globaltimer has just changed. It takes up to twice the resolution.
    __device__ __forceinline__ void align(u32 capacity) {
        if (!is_tracing()) return;
        u64* const row = header(capacity);
        const u64 before = now_ns();
        u64 now = before;
        time = clock_word();
        for (u32 polls = 0; now == before && polls < 4096; ++polls) {
            now = now_ns();
            time = clock_word();
        }
        row[2] = now;
        row[3] = static_cast<u64>(time) << 32 | begun;
        row[4] = now - before;
    }
    __device__ __forceinline__ void finish(u32 capacity) {
        if (is_tracing()) header(capacity)[0] = static_cast<int>(capacity) + next;
    }
};
using WriterTrace = Trace;
#else
using WriterTrace = NoTrace;
#endif

#ifdef AMK_TRACED_STAGES
using ReaderTrace = Trace;
#else
using ReaderTrace = NoTrace;
#endif
