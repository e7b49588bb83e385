// The weight ring: shared-memory stages, filled by the producer warp in stream order, emptied by the consumer warps in
// the same order. ring_bulk.cuh (sm_90 and later) or ring_async.cuh (sm_80 to sm_89) defines how a stage is
// filled: `expect_copy`, `start_copy`, `FULL_ARRIVALS`, `mbarrier_poll`, `any_driver`, `drain_copies`.
#pragma once
#include "spin.cuh"
#include "trace.cuh"

__device__ __forceinline__ void mbarrier_init(u64* barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(u64* barrier) {
    asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(shared_address(barrier)) : "memory");
}

// The operations that the two copy engines differ in.
template <int STAGES, int STAGE_BYTES, int IN_FLIGHT>
struct Ring {
    u8* data;    // STAGES * STAGE_BYTES, 128-byte aligned
    u64* full;   // one mbarrier a stage: its bytes have landed
    u64* empty;  // one mbarrier a stage: all consumer threads are done with it

    // By one thread of the block, before a block barrier.
    __device__ void init() {
        for (int s = 0; s < STAGES; ++s) {
            mbarrier_init(full + s, FULL_ARRIVALS);
            mbarrier_init(empty + s, CONSUMERS);
        }
        publish_barriers();
    }
};

enum class Side { CONSUMERS, PRODUCER };

// Polls until `barrier` has completed the phase of the given parity; false if it gave up. Out of line: a poll lasts as long
// as most waits do. A function for each side: of one that both call, the compiler would spill what the side with fewer
// registers has no room for.
template <Side SIDE>
__device__ __noinline__ bool poll_barrier(u64* barrier, u32 parity, Watch& watch, u32 operation, u32 kind, u32 stage) {
    Spin spin;
    while (!mbarrier_poll(barrier, parity))
        if (spin.give_up(watch, operation, kind, stage, parity, parity ^ 1)) return false;
    return true;
}

// Waits until `barrier` has completed the phase of the given parity; false if it gave up.
template <Side SIDE>
__device__ __forceinline__ bool wait_barrier(u64* barrier, u32 parity, Watch& watch, u32 operation, u32 kind,
                                             u32 stage) {
    if (mbarrier_poll(barrier, parity)) return true;
    return poll_barrier<SIDE>(barrier, parity, watch, operation, kind, stage);
}

// As poll_barrier, for room in a stage; false as well when no further step of the launch will use it.
__device__ __noinline__ bool poll_room(u64* barrier, u32 parity, Watch& watch, u32 operation, u32 stage) {
    Spin spin;
    while (watch.ended == 0 && !mbarrier_poll(barrier, parity))
        if (spin.give_up(watch, operation, WAIT_RING_EMPTY, stage, parity, parity ^ 1)) return false;
    return watch.ended == 0;
}

// Consumer side; every consumer thread keeps its own copy of the position.
template <int STAGES, int STAGE_BYTES, int IN_FLIGHT>
struct RingReader {
    Ring<STAGES, STAGE_BYTES, IN_FLIGHT> ring;
    u32 stage = 0, parity = 0;
    ReaderTrace trace = {};

    __device__ __forceinline__ const u8* acquire(Watch& watch, u32 operation) {
        wait_barrier<Side::CONSUMERS>(ring.full + stage, parity, watch, operation, WAIT_RING_FULL, stage);
        trace.read(operation << POINT_BITS | POINT_STAGE_READY);
        return ring.data + stage * STAGE_BYTES;
    }

    // Every thread arrives for itself. One arrival a warp after __syncwarp takes as long, and racecheck, which does not
    // follow __syncwarp into the arrival, calls the next copy a race.
    __device__ __forceinline__ void release() {
        trace.store();
        give_back();
    }
    // The same, where a trace has noted already that the stage was there.
    __device__ __forceinline__ void give_back() {
        trace.read(POINT_STAGE_DONE);
        mbarrier_arrive(ring.empty + stage);
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
        trace.store();
    }
};

// Producer side. `IN_FLIGHT` limits the loads under way: with all stages in flight, tens of megabytes queue up in
// the memory system and every other access of the grid takes microseconds. The ring still fills during a bubble.
template <int STAGES, int STAGE_BYTES, int IN_FLIGHT>
struct RingWriter {
    Ring<STAGES, STAGE_BYTES, IN_FLIGHT> ring;
    u32 stage = 0, parity = 0;
    u32 under_way = 0;  // loads that have not been seen to land
    bool stopped = false;
    WriterTrace trace = {};

    static constexpr u32 STOPPED = 1u << 31;
    static_assert(STAGES < 1 << 16 && IN_FLIGHT < (1 << 14) - 1, "the state fits one word");
    // Whether a load is announced before the oldest one has landed: that is of another stage. Where all stages may be under way, it
    // is of this one, and consumers that gave up have released it, landed or not.
    static constexpr bool IS_EARLY = IN_FLIGHT < STAGES;

    // As one word, between calls of a function that is not inlined: 16 bits, 1, 14 and 1.
    __device__ __forceinline__ u32 packed() const { return stage | parity << 16 | under_way << 17 | (stopped ? STOPPED : 0); }
    __device__ __forceinline__ void unpack(u32 at) {
        stage = at & 0xffff, parity = at >> 16 & 1, under_way = at >> 17 & 0x3fff, stopped = (at & STOPPED) != 0;
    }

    // Of the oldest load under way: its stage, and the parity that its landing completes.
    __device__ __forceinline__ u32 oldest() const { return stage >= under_way ? stage - under_way : stage + STAGES - under_way; }
    __device__ __forceinline__ u32 oldest_parity() const { return stage >= under_way ? parity : parity ^ 1; }

    // Waits for room in the next stage; false if there will be none, because the launch has ended or the wait gave up.
    __device__ __forceinline__ bool await_room(Watch& watch, u32 operation) {
        if (mbarrier_poll(ring.empty + stage, parity ^ 1)) return watch.ended == 0;
        return poll_room(ring.empty + stage, parity ^ 1, watch, operation, stage);
    }

    // Loads `bytes` (a multiple of 16) at `source` into the next stage. Does nothing once a wait has given up, or when no
    // step follows that would use it.
    __device__ __forceinline__ void push(const u8* source, u32 bytes, Watch& watch, u32 operation) {
        if (stopped) return;
        stopped = any_driver(!await_room(watch, operation));
        if (stopped) return;
        // All but the copy is done before the oldest load has landed: from then on, the memory waits for the next one. It follows
        // a wait that gave up, too, since it has been announced.
        if constexpr (IS_EARLY) expect_copy(ring.full + stage, bytes);
        const bool awaits = under_way == IN_FLIGHT;
        if (awaits) {
            const u32 landing = oldest();
            const bool has_landed =
                wait_barrier<Side::PRODUCER>(ring.full + landing, oldest_parity(), watch, operation, WAIT_RING_FULL, landing);
            stopped = any_driver(!has_landed);
            if (!IS_EARLY && stopped) return;
            if (!stopped) --under_way;
        }
        if constexpr (!IS_EARLY) expect_copy(ring.full + stage, bytes);
        start_copy(ring.data + stage * STAGE_BYTES, source, bytes, ring.full + stage);
        trace.mark(operation << POINT_BITS | (awaits ? POINT_PUSHED_NEXT : POINT_PUSHED));
        ++under_way;
        if (++stage == STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }

    // The same of what takes `count` stages, `chunk` bytes in each but the last, which may have fewer or more.
    __device__ __forceinline__ void push_all(const u8* source, u32 bytes, u32 chunk, u32 count, Watch& watch, u32 operation) {
#pragma unroll 1
        for (; count > 0; --count) {
            const u32 size = count == 1 ? bytes : chunk;
            push(source, size, watch, operation);
            if (count % 4 == 1 && !stopped) trace.mark_time();  // with the last stage, whatever follows
            source += size;
            bytes -= size;
        }
    }

    // The block must not exit while the copy engine still writes into its shared memory: after an abort nobody
    // else waits for these loads. They need no other thread, so polling a bounded number of times is enough.
    __device__ void finish() {
        for (; under_way > 0; --under_way) {
            for (u32 polls = 0; polls < (1u << 20) && !mbarrier_poll(ring.full + oldest(), oldest_parity());) ++polls;
            trace.mark(POINT_LANDED);
        }
        drain_copies();
    }
};
