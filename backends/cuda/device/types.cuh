// Fixed-width names. No toolkit header is needed anywhere in this library: NVRTC compiles it as it is.
#pragma once

using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;

constexpr int CONSUMER_WARPS = 8;
constexpr int CONSUMERS = CONSUMER_WARPS * 32;
#ifdef AMK_MORE_REGISTERS
constexpr int BLOCK_THREADS = CONSUMERS + 128;  // and the producer's warpgroup (registers.cuh)
#else
constexpr int BLOCK_THREADS = CONSUMERS + 32;  // and one producer warp
#endif

// Address of a shared-memory object as the 32-bit number that PTX instructions take.
__device__ __forceinline__ u32 shared_address(const void* pointer) {
    return static_cast<u32>(__cvta_generic_to_shared(pointer));
}

// The consumer warps' own barrier (id 1): the producer warp never takes part. Control flow of the consumers never
// depends on an abort (see spin.cuh), so that every consumer reaches every barrier.
__device__ __forceinline__ void consumer_barrier() {
    asm volatile("bar.sync 1, %0;" ::"n"(CONSUMERS) : "memory");
}
