// Tagged words: an f32 whose lowest bit is that of the step's epoch. The reader polls the data itself.
//
// Every word is written exactly once in every step (the emitter refuses buffers of which that is not certain), and a
// step begins after the one before has ended: so a word holds the value of this step or of the one before, and one bit
// tells them apart. Values lose their lowest bit, on every SM alike. A 4-byte access never tears, and each word of a vector
// access counts on its own, so words can be read four at a time.
#pragma once
#include "spin.cuh"

// Lets time pass until words that other SMs write when a phase ends have come to L2. Who looks sooner finds nothing, and what all
// SMs look at is in the way of these words and of weights: at once, steps took longer; after up to 700 clocks, as long.
constexpr u32 HOLD_OFF = 500;  // clocks
__device__ __forceinline__ void hold_off() {
    u32 begun, now;
    asm volatile("mov.u32 %0, %%clock;" : "=r"(begun));
    do {
        asm volatile("mov.u32 %0, %%clock;" : "=r"(now));
    } while (now - begun < HOLD_OFF);
}

__device__ __forceinline__ u32 load_word(const u32* address) {
    u32 word;
    asm volatile("ld.relaxed.gpu.global.b32 %0, [%1];" : "=r"(word) : "l"(address) : "memory");
    return word;
}

__device__ __forceinline__ uint4 load_words(const u32* address) {
    uint4 word;
    asm volatile("ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word.x), "=r"(word.y), "=r"(word.z), "=r"(word.w)
                 : "l"(address)
                 : "memory");
    return word;
}

__device__ __forceinline__ void store_word(u32* address, u32 word) {
    asm volatile("st.relaxed.gpu.global.b32 [%0], %1;" ::"l"(address), "r"(word) : "memory");
}

__device__ __forceinline__ void store_tagged(u32* address, float value, u32 epoch) {
    store_word(address, (__float_as_uint(value) & ~1u) | (epoch & 1u));
}

// Bit 0: that of `so_far`, or whether `word` is not of `epoch`; the other bits say nothing. As one instruction: the compiler
// would look at the bits one by one, and branch on each.
__device__ __forceinline__ u32 add_difference(u32 so_far, u32 word, u32 epoch) {
    u32 result;
    asm("lop3.b32 %0, %1, %2, %3, 0xf6;" : "=r"(result) : "r"(so_far), "r"(word), "r"(epoch));
    return result;
}
__device__ __forceinline__ u32 either(u32 a, u32 b) {
    u32 result;
    asm("or.b32 %0, %1, %2;" : "=r"(result) : "r"(a), "r"(b));
    return result;
}

// Words that are loaded together: 4 at a multiple of 16 bytes, or 1.
template <int WORDS>
struct Words;
template <>
struct Words<1> {
    u32 word[1];
    __device__ __forceinline__ void load(const u32* address) { word[0] = load_word(address); }
};
template <>
struct Words<4> {
    u32 word[4];
    __device__ __forceinline__ void load(const u32* address) {
        const uint4 v = load_words(address);
        word[0] = v.x, word[1] = v.y, word[2] = v.z, word[3] = v.w;
    }
};

// Bit 0: whether any of the words is not of `epoch`; the other bits say nothing.
template <int WORDS>
__device__ __forceinline__ u32 missing(const Words<WORDS>& words, u32 epoch) {
    u32 difference = 0;
#pragma unroll
    for (int i = 0; i < WORDS; ++i) difference = add_difference(difference, words.word[i], epoch);
    return difference;
}

// The loads of N vectors of WORDS words at base[offset[i]] with bit i of `wanted` set; they are under way from the
// constructor on. Only `await_words` waits. What is not wanted counts as a 0 that is there.
template <int WORDS, int N>
struct TaggedLoads {
    static_assert(N <= 32, "one bit a vector");
    Words<WORDS> words[N];
    u32 difference[N];  // bit 0: whether a word of the vector is missing
    const u32* base;
    const u32 (&offset)[N];
    u32 operation;

    __device__ __forceinline__ TaggedLoads(const u32* from, const u32 (&at)[N], u32 wanted, u32 epoch, u32 number)
        : words{}, difference{}, base(from), offset(at), operation(number) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (wanted >> i & 1) {
                words[i].load(base + offset[i]);
            } else {
#pragma unroll
                for (int j = 0; j < WORDS; ++j) words[i].word[j] = epoch & 1u;
            }
        }
    }

    // Compares all words; bit 0: that of `so_far`, or whether any is missing.
    __device__ __forceinline__ u32 compare(u32 so_far, u32 epoch) {
#pragma unroll
        for (int i = 0; i < N; ++i) {
            difference[i] = missing(words[i], epoch);
            so_far = either(so_far, difference[i]);
        }
        return so_far;
    }

    // Loads the vectors again that missed a word.
    __device__ __forceinline__ void reload() {
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (difference[i] & 1u) words[i].load(base + offset[i]);
    }

    // The operation that waits and the first vector that missed a word, if there is one.
    __device__ __forceinline__ void find_missing(u32& waiting, u32& first) const {
#pragma unroll
        for (int i = N; i-- > 0;)
            if (difference[i] & 1u) waiting = operation, first = offset[i];
    }

    __device__ __forceinline__ void get(float (&values)[WORDS * N]) const {
#pragma unroll
        for (int i = 0; i < N; ++i) {
#pragma unroll
            for (int j = 0; j < WORDS; ++j) values[i * WORDS + j] = __uint_as_float(words[i].word[j] & ~1u);
        }
    }
};

// Waits for the words of all `loads` at once: one after the other, each that comes late would cost a round trip of its own.
// Short where all is there: a phase of a small model lasts as long as its instructions.
template <typename... Loads>
__device__ __forceinline__ void await_words(u32 epoch, Watch& watch, Loads&... loads) {
    Spin spin;
    while (true) {
        u32 difference = 0;
        ((difference = loads.compare(difference, epoch)), ...);
        if ((difference & 1u) == 0) return;
        if (spin.is_due()) {
            u32 operation = 0, index = 0;
            (loads.find_missing(operation, index), ...);
            if (spin.ends(watch, operation, WAIT_TAG, index, epoch, epoch - 1)) return;
        }
        (loads.reload(), ...);
    }
}
