// Several steps in one launch: the token that a step chose is the input of the next one.
//
// A step ends on a block when its consumers have done all their work. `end_step` signals that, and waits until all blocks
// have: one release and one acquire at gpu scope, so whatever a step wrote is there for the next one, and no block is
// still in an earlier one. The producer of the weight ring does not wait: weights are constants, and it runs ahead into
// the next step's as far as the ring has room. Only before it copies what earlier steps wrote does it wait for their end.
#pragma once
#include "counters.cuh"

constexpr int MAX_STOPS = 32;

// What a launch of several steps needs. Part of the kernel's parameters.
struct TokenLoop {
    u32* arrivals;  // a counter with one signal a block and step of launches of more than one step
    u64* sent;      // mapped host memory, a word a step: its epoch << 32 | the token that it chose
    u32 arrived;    // signals of `arrivals` before this launch
    int steps;
    int stop_count;  // tokens of `stops` after which no further step is run
    int stops[MAX_STOPS];
};

// Of a block, in shared memory: what its thread 0 found out at the end of a step, for all consumers.
struct StepEnd {
    int token;
    u32 goes_on;
};

// A single word needs no order with other writes: it says itself which step it is of.
__device__ __forceinline__ void send_token(u64* to, u64 word) {
    asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(to), "l"(word) : "memory");
}

// Ends a step on this block, and waits until it has ended on all GRID blocks. By all consumers; `end` and `watch.step` tell
// them all what comes next. first_epoch: of the launch's first step. chosen: where steps choose their token, in turn.
// One thread decides for its block, so that all its threads do the same; blocks may differ only after an abort.
template <int GRID>
__device__ __forceinline__ void end_step(const TokenLoop& loop, u32 first_epoch, const int* chosen, StepEnd& end,
                                      Watch& watch, u32 operation) {
    consumer_barrier();
    if (threadIdx.x == 0) {
        const u32 step = watch.step;
        signal_counter(loop.arrivals);
        const u32 expected = loop.arrived + (step + 1) * GRID;
        u32 seen = load_acquire(loop.arrivals);
        Spin spin;
        while (static_cast<int>(seen - expected) < 0) {
            if (spin.give_up(watch, operation, WAIT_STEP, 0, expected, seen)) break;
            seen = load_acquire(loop.arrivals);
        }
        const int token = *static_cast<const volatile int*>(chosen + step % 2);
        // A block that gave up has said so before its signal.
        const bool aborted = watch.block_abort != 0 || *static_cast<volatile u32*>(watch.abort) != 0;
        bool stops = aborted;
        for (int i = 0; i < loop.stop_count; ++i) stops = stops || loop.stops[i] == token;
        if (blockIdx.x == 0 && !aborted)
            send_token(loop.sent + step, static_cast<u64>(first_epoch + step) << 32 | static_cast<u32>(token));
        end.token = token;
        end.goes_on = !stops && step + 1 < static_cast<u32>(loop.steps);
        if (stops) watch.ended = 1;
        watch.phase = 0;
        __threadfence_block();
        *static_cast<volatile u32*>(&watch.step) = step + 1;
    }
    consumer_barrier();
}

// By the threads that drive the ring: waits until step `step` of the launch has begun on this block, so that what earlier
// ones wrote can be copied. False if it never does.
__device__ __forceinline__ bool await_step(Watch& watch, u32 step, u32 operation) {
    if (step == 0) return true;
    Spin spin;
    u32 seen = *static_cast<volatile u32*>(&watch.step);
    while (seen < step) {
        if (spin.give_up(watch, operation, WAIT_STEP, 0, step, seen)) return false;
        seen = *static_cast<volatile u32*>(&watch.step);
    }
    __threadfence_block();
    order_copies();
    return *static_cast<volatile u32*>(&watch.ended) == 0;
}

// After a step that stopped the launch early: the producer may wait for room for weights of a step that never comes.
// By all consumers, which read the ring next at `stage`.
__device__ __forceinline__ void wake_producer(u64* empty, u32 stage) { mbarrier_arrive(empty + stage); }
