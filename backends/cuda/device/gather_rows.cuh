// Several rows of activations that other SMs have just written, from tagged words in device memory to shared memory.
//
// A step of several tokens gathers more words than threads have registers for, so the hardware copies them to where the
// activations will be: all are under way at once, then each thread splits those that it has copied, in place. What it reads is
// looked at before it is used: a word that was not there yet is loaded again, by a load that the memory model knows to see it.
#pragma once
#include "matvec.cuh"
#include "tagged.cuh"

// Copies of 16 bytes to shared memory. A thread sees what it has copied itself when it has waited.
__device__ __forceinline__ void start_words(void* to, const u32* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ __forceinline__ void prefetch_line(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at) : "memory"); }
// Ends a group of copies.
__device__ __forceinline__ void commit_words() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all groups of copies but the last `later` ones; or the last 3, if these are more.
__device__ __forceinline__ void await_copied(int later) {
    if (later == 0) asm volatile("cp.async.wait_group 0;" ::: "memory");
    else if (later == 1) asm volatile("cp.async.wait_group 1;" ::: "memory");
    else if (later == 2) asm volatile("cp.async.wait_group 2;" ::: "memory");
    else asm volatile("cp.async.wait_group 3;" ::: "memory");
}

struct Unweighted {};  // instead of the weights of a norm
template <typename Weight>
constexpr bool IS_WEIGHTED = true;
template <>
constexpr bool IS_WEIGHTED<Unweighted> = false;

// Brings the WIDTH weights of a norm into L2: they come from memory, once a step, and would come after the words.
template <int WIDTH, typename Weight>
__device__ __forceinline__ void prefetch_row(const Weight* weights) {
    constexpr int LINE = 128 / sizeof(Weight);
#pragma unroll
    for (int n = 0; n < (WIDTH + CONSUMERS * LINE - 1) / (CONSUMERS * LINE); ++n)
        if ((n * CONSUMERS + threadIdx.x) * LINE < WIDTH) prefetch_line(weights + (n * CONSUMERS + threadIdx.x) * LINE);
}

// Waits for this thread's first words of a row of WIDTH words from base[at] on, if it has any. Who writes an element of one row writes
// that of the others at the same time, or soon: so the others are not polled, which would keep the memory busy.
template <int WIDTH>
__device__ __forceinline__ void await_row(const u32* base, u32 at, u32 epoch, Watch& watch, u32 operation) {
    const u32 first = at + threadIdx.x * 4;
    if (threadIdx.x * 4 >= WIDTH) return;
    Spin spin;
    Words<4> words;
    words.load(base + first);
    while ((missing(words, epoch) & 1u) != 0 && !spin.give_up(watch, operation, WAIT_TAG, first, epoch, epoch - 1))
        words.load(base + first);
}

// ROWS rows of WIDTH words, a multiple of 4, from base[at] on and `stride` words apart, to activations with STRIDE elements from row
// to row: each element times that of `weights`, if there are any. A segment is what all threads have with one vector of each row.
template <int ROWS, int WIDTH, int STRIDE, typename Weight>
struct RowGather {
    static constexpr int SEGMENT = CONSUMERS * 4, SEGMENTS = (WIDTH + SEGMENT - 1) / SEGMENT;
    const u32* base;
    u32 at, stride;
    const Weight* weights;
    u32 epoch, operation;
    float weight[4];  // of this thread in the next segment: loaded before they are needed

    __device__ __forceinline__ const u32* words(int row, int i) const { return base + at + row * stride + i; }
    // An element has the size of a word.
    __device__ __forceinline__ static u32* copied(Activations x, int row, int i) {
        return reinterpret_cast<u32*>(x.memory) + row * STRIDE + i;
    }

    __device__ __forceinline__ void load_weights(int segment) {
        const int i = segment * SEGMENT + threadIdx.x * 4;
        if constexpr (IS_WEIGHTED<Weight>)
            if (i < WIDTH) load_values(weight, weights + i);
    }
    // Copies all words, a group of copies a segment.
    __device__ __forceinline__ void start(Activations x) {
        load_weights(0);
#pragma unroll 1
        for (int i = threadIdx.x * 4; i < SEGMENTS * SEGMENT; i += SEGMENT) {
            if (i < WIDTH) {
#pragma unroll
                for (int r = 0; r < ROWS; ++r) start_words(copied(x, r, i), words(r, i));
            }
            commit_words();
        }
    }

    // Waits for a segment's words, and splits them in place; of a norm, adds the squares of a thread's elements of each row to
    // `squares`. Segments follow each other: so each thread has the elements, in the order, that it would have of a row alone.
    __device__ __forceinline__ void split(Activations x, int segment, float* squares, Watch& watch) {
        await_copied(SEGMENTS - 1 - segment);
        const int i = segment * SEGMENT + threadIdx.x * 4;
        if (i >= WIDTH) return;
        constexpr int TOGETHER = ROWS < 4 ? ROWS : 4;  // rows in registers at a time
#pragma unroll
        for (int begin = 0; begin < ROWS; begin += TOGETHER) {
            const int end = begin + TOGETHER < ROWS ? begin + TOGETHER : ROWS;
            Words<4> word[TOGETHER];
#pragma unroll
            for (int r = begin; r < end; ++r) {
                const uint4 v = *reinterpret_cast<const uint4*>(copied(x, r, i));
                u32* const to = word[r - begin].word;
                to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
            }
            Spin spin;
            while (true) {
                u32 any = 0;
#pragma unroll
                for (int r = begin; r < end; ++r) any = either(any, missing(word[r - begin], epoch));
                if ((any & 1u) == 0 || spin.give_up(watch, operation, WAIT_TAG, at + i, epoch, epoch - 1)) break;
#pragma unroll
                for (int r = begin; r < end; ++r) word[r - begin].load(words(r, i));
            }
#pragma unroll
            for (int r = begin; r < end; ++r) {
                float value[4];
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    value[j] = __uint_as_float(word[r - begin].word[j] & ~1u);
                    if constexpr (IS_WEIGHTED<Weight>) squares[r] += value[j] * value[j], value[j] *= weight[j];
                }
                x.put_four(r * STRIDE + i, value);
            }
        }
        load_weights(segment + 1);
    }
};

// All rows before anything is multiplied.
template <int ROWS, int WIDTH, int STRIDE, typename Weight>
__device__ __forceinline__ void gather_rows(RowGather<ROWS, WIDTH, STRIDE, Weight>& gather, Activations x, float* squares,
                                            Watch& watch) {
    gather.start(x);
#pragma unroll 1
    for (int segment = 0; segment < RowGather<ROWS, WIDTH, STRIDE, Weight>::SEGMENTS; ++segment) gather.split(x, segment, squares, watch);
}

// Rows of K_BLOCKS * 32 words, and one task like `matvec` meanwhile: while the hardware copies later segments, earlier ones are split
// and multiplied, so the ring does not stand still; the first HELD stages are in registers before the first segment is there. A segment
// has whole stages of CHUNK blocks. `norm_sums`: of a norm, where the sums of squares go, which the next barrier makes known.
template <int GROUPS, int K_BLOCKS, int CHUNK, int ROWS, int HELD, typename Weight, typename Reader>
__device__ __forceinline__ void matvec_gathered(
    Reader& reader, RowGather<ROWS, K_BLOCKS * 32, activation_stride(K_BLOCKS), Weight>& gather, Activations x,
    float* norm_sums, float* partial, Watch& watch, u32 operation) {
    using Rows = RowGather<ROWS, K_BLOCKS * 32, activation_stride(K_BLOCKS), Weight>;
    constexpr int EACH = Rows::SEGMENT / 32, LAST = K_BLOCKS - (Rows::SEGMENTS - 1) * EACH;
    static_assert(Rows::SEGMENTS > 1 && EACH % CHUNK == 0 && HELD * CHUNK <= EACH, "stages of a whole first segment");
    float squares[ROWS] = {};
    Sums<GROUPS, ROWS> sums = {};
    LaneActivations<ROWS, activation_stride(K_BLOCKS)> lane(x);
    gather.start(x);
    FirstStages<GROUPS, K_BLOCKS, CHUNK, ROWS, HELD> held;
    held.load(reader, watch, operation);
    gather.split(x, 0, squares, watch);
    consumer_barrier();
    held.add(sums, lane);
    if constexpr (EACH > HELD * CHUNK) add_stages<EACH - HELD * CHUNK, CHUNK>(sums, reader, lane, watch, operation);
    lane.skip(EACH - HELD * CHUNK);
#pragma unroll 1
    for (int segment = 1; segment < Rows::SEGMENTS - 1; ++segment) {
        gather.split(x, segment, squares, watch);
        consumer_barrier();
        add_stages<EACH, CHUNK>(sums, reader, lane, watch, operation);
        lane.skip(EACH);
    }
    gather.split(x, Rows::SEGMENTS - 1, squares, watch);
    consumer_barrier();
    if constexpr (IS_WEIGHTED<Weight>) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r) put_norm_sum(norm_sums, r, squares[r]);
    }
    add_stages<LAST, CHUNK>(sums, reader, lane, watch, operation);
    sums.put(partial);
}
