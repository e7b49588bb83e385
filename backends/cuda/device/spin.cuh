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
    u32 phase;      // phases that this block had passed: the least one over all blocks is the root of the jam
    u32 thread;
};

enum WaitKind : u32 { WAIT_COUNTER = 1, WAIT_TAG = 2, WAIT_RING_FULL = 3, WAIT_RING_EMPTY = 4 };

// What a thread needs in order to wait. `block_abort` is the block's copy, in shared memory, of the grid's flag.
struct Watch {
    StuckRecord* records;
    u32* abort;
    volatile u32* block_abort;
    u64 limit_ns;
    u32 sm;
    u32 phase;
    u32 is_producer;
};

__device__ __forceinline__ u64 now_ns() {
    u64 time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    return time;
}

__device__ __noinline__ void record_stuck(Watch watch, u32 operation, u32 kind, u32 index, u32 expected,
                                          u32 seen) {
    StuckRecord* record = watch.records + 2 * watch.sm + watch.is_producer;
    if (atomicCAS(&record->taken, 0u, 1u) == 0u) {
        record->operation = operation;
        record->kind = kind;
        record->index = index;
        record->expected = expected;
        record->seen = seen;
        record->phase = watch.phase;
        record->thread = threadIdx.x;
    }
    *watch.block_abort = 1;
    atomicExch(watch.abort, 1u);
}

struct Spin {
    u64 started = 0;
    u32 polls = 0;

    // True when the wait must end: out of time, or another one was. Ring waits are given twice the time, because a
    // full or empty ring is nearly always the consequence of a wait for a counter or a tag.
    __device__ __forceinline__ bool give_up(const Watch& watch, u32 operation, u32 kind, u32 index, u32 expected,
                                            u32 seen) {
        bool stop = *watch.block_abort != 0;
        if (!stop && (++polls & 63u) == 0) {
            const u64 time = now_ns();
            if (started == 0) started = time;
            const u64 limit = kind >= WAIT_RING_FULL ? 2 * watch.limit_ns : watch.limit_ns;
            stop = *static_cast<volatile u32*>(watch.abort) != 0 || time - started > limit;
        }
        if (stop) record_stuck(watch, operation, kind, index, expected, seen);
        return stop;
    }
};
