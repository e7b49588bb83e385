// Counters in global memory: they only rise, and are never reset between launches. A counter that is signalled `total`
// times a step has reached n signals of the step with epoch e (from 1) at (e - 1) * total + n, modulo 2^32.
#pragma once
#include "spin.cuh"

constexpr int COUNTER_STRIDE = 8;  // words: one 32-byte sector each

// +1 with release semantics. The caller's barrier before it makes the release cover all consumers' writes.
__device__ __forceinline__ void signal_counter(u32* counter) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

__device__ __forceinline__ u32 load_acquire(const u32* address) {
    u32 value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}

// Waits, with acquire semantics, until the counter has reached `threshold`. A barrier after it extends the
// acquire to the other consumers.
__device__ __forceinline__ void wait_counter(const u32* counters, u32 index, u32 threshold, Watch& watch,
                                             u32 operation) {
    const u32* counter = counters + index * COUNTER_STRIDE;
    u32 seen = load_acquire(counter);
    Spin spin;
    while (static_cast<int>(seen - threshold) < 0) {
        if (spin.give_up(watch, operation, WAIT_COUNTER, index, threshold, seen)) return;
        seen = load_acquire(counter);
    }
}
