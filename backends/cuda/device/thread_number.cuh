// `threadIdx` of one iteration of a loop: its number is read anew, so that the compiler does not compute what depends on it
// ahead of the loop, for all iterations, and keep that in registers.
#pragma once
#include "types.cuh"

struct ThreadNumber {
    u32 x;
};

__device__ __forceinline__ u32 thread_number() {
    u32 number;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(number));
    return number;
}
