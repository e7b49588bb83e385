// Ring stages filled by the bulk copy engine (sm_90 and later): one thread, one instruction a stage.
#pragma once
#include "types.cuh"

constexpr u32 FULL_ARRIVALS = 1;  // the producer's arrive.expect_tx; the bytes do the rest

// True in the threads of the producer warp that drive the ring.
__device__ __forceinline__ bool drives_ring() { return threadIdx.x == CONSUMERS; }

__device__ __forceinline__ void publish_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ __forceinline__ bool mbarrier_poll(u64* barrier, u32 parity) {
    u32 done;
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
    return done != 0;
}

// Whether any driving thread says so; there is only one.
__device__ __forceinline__ bool any_driver(bool value) { return value; }

// The producer's arrival; its copy of `bytes` may follow later.
__device__ __forceinline__ void expect_copy(u64* full, u32 bytes) {
    asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1;\n}" ::"r"(
                     shared_address(full)),
                 "r"(bytes)
                 : "memory");
}

// Every weight is read once a token: evict-first keeps activations and the KV cache in L2.
__device__ __forceinline__ void start_copy(u8* destination, const u8* source, u32 bytes, u64* full) {
    u64 policy;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
            shared_address(destination)),
        "l"(source), "r"(bytes), "r"(shared_address(full)), "l"(policy)
        : "memory");
}

__device__ __forceinline__ void drain_copies() {}

// Orders copies that follow after writes to global memory that this thread has seen.
__device__ __forceinline__ void order_copies() { asm volatile("fence.proxy.async.global;" ::: "memory"); }
