// Registers that the producer's warps hand to the consumers' (sm_90 and later), where these need more than their share.
//
// A block has one of an SM's four partitions run three of its nine warps, so a thread of it has no more than 168 registers.
// With AMK_MORE_REGISTERS the producer is one warp of four, because registers move by warpgroups; the others end at once.
// The compiler takes part as long as consumers and producer do not call the same function that waits (see ring.cuh).
#pragma once
#include "types.cuh"

constexpr int PRODUCER_REGISTERS = 56, CONSUMER_REGISTERS = 224;  // a thread; multiples of 8
static_assert(128 * PRODUCER_REGISTERS + CONSUMERS * CONSUMER_REGISTERS <= 65536, "an SM's");

// By all warps of the producer's group.
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(PRODUCER_REGISTERS));
}
// By all consumers; waits until they have been given.
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(CONSUMER_REGISTERS));
}
