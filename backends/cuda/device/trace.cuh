// Timestamps of what a block does, for `amk trace`; without AMK_TRACED, nothing.
#pragma once
#include "types.cuh"

__device__ __forceinline__ u64 sm_clock() {
    u64 time;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(time));
    return time;
}

constexpr u32 POINT_RING = 0;  // a stage of the ring is there
constexpr u32 POINT_SUMS = 1;  // all products of a stage are made

#ifdef AMK_TRACED
// A block's row of a trace: entry n is {clock of the SM, point that was reached}; what is beyond the end is dropped.
struct Trace {
    u64* next;
    u64* end;

    __device__ void begin(u64* row, u32 events) {
        next = row;
        end = row + events;
    }
    __device__ __forceinline__ void mark(u32 point) {
        if (threadIdx.x == 0 && next < end) *next++ = sm_clock() << 12 | point;
    }
};
#else
struct Trace {
    __device__ __forceinline__ void mark(u32) {}
};
#endif
