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
// Ends a group of copies.
__device__ __forceinline__ void commit_words() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits for all groups of copies, or all but the last one.
__device__ __forceinline__ void await_copied() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }
__device__ __forceinline__ void await_all_but_one() { asm volatile("cp.async.wait_group 1;" ::: "memory"); }

struct Unweighted {};  // instead of the weights of a norm
template <typename Weight>
constexpr bool IS_WEIGHTED = true;
template <>
constexpr bool IS_WEIGHTED<Unweighted> = false;

// ROWS rows of WIDTH words, a multiple of 4, from base[at] on and `stride` words apart, to x with STRIDE elements from row to row:
// each element times that of `weights`, if there are any; then `squares` become the sums of the squares of a thread's elements of
// each row. Each thread has the elements, in the order, that it would have of a row alone.
template <int ROWS, int WIDTH, int STRIDE, typename Weight>
__device__ __forceinline__ void gather_rows(Activations x, const u32* base, u32 at, u32 stride, const Weight* weights,
                                            float* squares, u32 epoch, Watch& watch, u32 operation) {
    constexpr int STEP = CONSUMERS * 4, STEPS = (WIDTH + STEP - 1) / STEP, HALF = (STEPS + 1) / 2 * STEP;
    const u32* const from = base + at;
    const int first = threadIdx.x * 4;
    u32* const to = reinterpret_cast<u32*>(x.memory);  // an element has the size of a word
    Spin spin;

    // Who writes an element of one row writes that of the others at the same time, or soon: so only the first is polled until it
    // is there. Polls of all rows would keep the memory busy.
    if (first < WIDTH) {
        Words<4> words;
        words.load(from + first);
        while ((missing(words, epoch) & 1u) != 0 && !spin.give_up(watch, operation, WAIT_TAG, at + first, epoch, epoch - 1))
            words.load(from + first);
    }
#pragma unroll 1
    for (int begin = 0; begin < STEPS * STEP; begin += HALF) {
#pragma unroll 1
        for (int i = begin + first; i < begin + HALF && i < WIDTH; i += STEP) {
#pragma unroll
            for (int r = 0; r < ROWS; ++r) start_words(to + r * STRIDE + i, from + r * stride + i);
        }
        commit_words();
    }

    float sums[ROWS] = {};
#pragma unroll 1
    for (int i = first; i < WIDTH; i += STEP) {
        if (STEPS > 1 && i < HALF) await_all_but_one();
        else await_copied();
        float weight[4];
        if constexpr (IS_WEIGHTED<Weight>) load_values(weight, weights + i);
        Words<4> words[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            const uint4 v = *reinterpret_cast<const uint4*>(to + r * STRIDE + i);
            words[r].word[0] = v.x, words[r].word[1] = v.y, words[r].word[2] = v.z, words[r].word[3] = v.w;
        }
        while (true) {
            u32 any = 0;
#pragma unroll
            for (int r = 0; r < ROWS; ++r) any = either(any, missing(words[r], epoch));
            if ((any & 1u) == 0 || spin.give_up(watch, operation, WAIT_TAG, at + i, epoch, epoch - 1)) break;
#pragma unroll
            for (int r = 0; r < ROWS; ++r) words[r].load(from + r * stride + i);
        }
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float value[4];
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                value[j] = __uint_as_float(words[r].word[j] & ~1u);
                if constexpr (IS_WEIGHTED<Weight>) sums[r] += value[j] * value[j], value[j] *= weight[j];
            }
            x.put_four(r * STRIDE + i, value);
        }
    }
    if constexpr (IS_WEIGHTED<Weight>) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r) squares[r] = sums[r];
    }
}
