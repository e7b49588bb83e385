// Bounded spins. Every loop that waits for another thread, SM or engine asks `Spin::give_up` after each failed poll.
//
// When a wait runs out of time, its block writes down what it waited for and raises the grid's abort flag, which every
// other spin watches. From then on all waits give up at once and *the kernel runs on to its end with whatever data it
// finds*: control flow never depends on the abort, so no thread can be left behind at a barrier. The host sees the
// flag, raises, and does not use any result of the launch.
#pragma once
#include "types.cuh"

// What a block waited for when it gave up; two per block: its consumers' and its producer's. Read by the host.
struct StuckRecord {
    u32 taken;      // 1 when filled
    u32 operation;  // index into the host's table of operations
    u32 kind;       // a WaitKind
    u32 index;      // counter, tagged word or ring stage
    u32 expected;
    u32 seen;
    u32 phase;      // phases of the step that this block had passed: the least one over all blocks is the root of the jam
    u32 thread;
    u32 step;  // of the launch, from 0, that the block's consumers were in
};

enum WaitKind : u32 { WAIT_COUNTER = 1, WAIT_TAG = 2, WAIT_RING_FULL = 3, WAIT_RING_EMPTY = 4, WAIT_STEP = 5 };

// What the threads of a block need in order to wait: in shared memory, because only a wait that fails reads it.
struct Watch {
    StuckRecord* records;
    u32* abort;
    u64 limit_ns;
    u32 phase, step;
    volatile u32 ended;        // 1 when no further step of the launch will be run
    volatile u32 block_abort;  // the block's copy of the grid's flag
};

__device__ __forceinline__ u64 now_ns() {
    u64 time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    return time;
}

constexpr u64 OUT_OF_TIME = ~0ull;

// Called now and then in a wait that began at `started` (0: at the first call). Returns when it began, or OUT_OF_TIME after
// writing down what it waited for. Out of line: the code of a wait is small then, and instructions are what a short
// phase waits for.
__device__ __noinline__ u64 check_time(Watch& watch, u64 started, u32 operation, u32 kind, u32 index, u32 expected,
                                       u32 seen) {
    bool stop = watch.block_abort != 0;
    if (!stop) {
        const u64 time = now_ns();
        if (started == 0) started = time;
        // Waits on the ring and for the end of a step are given twice the time, because they are nearly always the
        // consequence of a wait for a counter or a tag.
        const u64 limit = kind >= WAIT_RING_FULL ? 2 * watch.limit_ns : watch.limit_ns;
        stop = *static_cast<volatile u32*>(watch.abort) != 0 || time - started > limit;
    }
    if (!stop) return started;
    StuckRecord* record = watch.records + 2 * blockIdx.x + (threadIdx.x >= CONSUMERS);
    if (atomicCAS(&record->taken, 0u, 1u) == 0u) {
        record->operation = operation;
        record->kind = kind;
        record->index = index;
        record->expected = expected;
        record->seen = seen;
        record->phase = watch.phase;
        record->thread = threadIdx.x;
        record->step = watch.step;
    }
    watch.block_abort = 1;
    atomicExch(watch.abort, 1u);
    return OUT_OF_TIME;
}

struct Spin {
    u64 started = 0;
    u32 polls = 0;

    // Whether it is time to ask `ends`. Asked after each poll, so it has to be short.
    __device__ __forceinline__ bool is_due() { return (++polls & 63u) == 0; }
    // True when the wait must end: out of time, or another one was.
    __device__ __forceinline__ bool ends(Watch& watch, u32 operation, u32 kind, u32 index, u32 expected, u32 seen) {
        started = check_time(watch, started, operation, kind, index, expected, seen);
        return started == OUT_OF_TIME;
    }
    __device__ __forceinline__ bool give_up(Watch& watch, u32 operation, u32 kind, u32 index, u32 expected, u32 seen) {
        return is_due() && ends(watch, operation, kind, index, expected, seen);
    }
};
