// Ring stages filled with cp.async (sm_80 to sm_89): all lanes of the producer warp copy 16 bytes at a time.
#pragma once
#include "types.cuh"

constexpr u32 FULL_ARRIVALS = 32;  // one a lane, made by the hardware when the lane's copies have landed

// True in the threads of the producer warp that drive the ring.
__device__ __forceinline__ bool drives_ring() { return true; }

__device__ __forceinline__ void publish_barriers() {}

// Whether any driving thread says so. Brings the lanes together after their polls: copies and arrivals are made by the
// whole warp at once.
__device__ __forceinline__ bool any_driver(bool value) { return __any_sync(0xffffffffu, value) != 0; }

__device__ __forceinline__ bool mbarrier_poll(u64* barrier, u32 parity) {
    u32 done;
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.test_wait.parity.shared.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
    return done != 0;
}

__device__ __forceinline__ void expect_copy(u64*, u32) {}

// The whole warp stays together: the policy lives in a uniform register, and lanes that run ahead with a copy or an
// arrival of their own end in an illegal instruction (seen on sm_90 with NVRTC 13.0).
__device__ __forceinline__ void start_copy(u8* destination, const u8* source, u32 bytes, u64* full) {
    u64 policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    const u32 target = shared_address(destination);
    const u32 mine = threadIdx.x % 32 * 16;
    for (u32 first = 0; first < bytes; first += 32 * 16) {
        if (first + mine < bytes)
            asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(target + first + mine),
                         "l"(source + first + mine), "l"(policy)
                         : "memory");
        __syncwarp();
    }
    asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(full)) : "memory");
}

__device__ __forceinline__ void order_copies() {}  // they are loads like any others

__device__ __forceinline__ void drain_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
