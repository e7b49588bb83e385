// Tagged words: an f32 whose lowest bit is that of the step's epoch. The reader polls the data itself.
//
// Every word is written exactly once in every step (the emitter refuses buffers of which that is not certain), and a
// step begins after the one before has ended: so a word holds the value of this step or of the one before, and one bit
// tells them apart. Values lose their lowest bit, on every SM alike. A 4-byte access never tears, and each word of a vector
// access counts on its own, so words can be read four at a time.
#pragma once
#include "spin.cuh"

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

// Words that are loaded together: 4 at a multiple of 16 bytes, or 1.
template <int WORDS>
struct Words;
template <>
struct Words<1> {
    u32 word[1];
    __device__ __forceinline__ void load(const u32* address) { word[0] = load_word(address); }
    __device__ __forceinline__ bool is_of(u32 epoch) const { return ((word[0] ^ epoch) & 1u) == 0; }
};
template <>
struct Words<4> {
    u32 word[4];
    __device__ __forceinline__ void load(const u32* address) {
        const uint4 v = load_words(address);
        word[0] = v.x, word[1] = v.y, word[2] = v.z, word[3] = v.w;
    }
    __device__ __forceinline__ bool is_of(u32 epoch) const {
        return (((word[0] ^ epoch) | (word[1] ^ epoch) | (word[2] ^ epoch) | (word[3] ^ epoch)) & 1u) == 0;
    }
};

// The loads of N vectors of WORDS words at base[offset[i]] with bit i of `wanted` set; they are under way from the
// constructor on. Only `finish` waits.
template <int WORDS, int N>
struct TaggedLoads {
    static_assert(N <= 32, "one bit a vector");
    Words<WORDS> words[N];
    const u32* base;
    const u32 (&offset)[N];
    u32 wanted;

    __device__ __forceinline__ TaggedLoads(const u32* from, const u32 (&at)[N], u32 which)
        : words{}, base(from), offset(at), wanted(which) {
        load(wanted);
    }

    __device__ __forceinline__ void load(u32 which) {
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (which >> i & 1) words[i].load(base + offset[i]);
    }

    // Waits for all words; those that were not wanted are 0. Each round loads everything that is missing.
    __device__ __forceinline__ void finish(float (&values)[WORDS * N], u32 epoch, Watch& watch, u32 operation) {
        Spin spin;
        u32 missing = wanted;
        while (true) {
            u32 first = 0;
#pragma unroll
            for (int i = N; i-- > 0;) {
                if (missing >> i & 1) {
                    if (words[i].is_of(epoch))
                        missing &= ~(1u << i);
                    else
                        first = offset[i];
                }
            }
            if (missing == 0 || spin.give_up(watch, operation, WAIT_TAG, first, epoch, epoch - 1)) break;
            load(missing);
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
#pragma unroll
            for (int j = 0; j < WORDS; ++j)
                values[i * WORDS + j] = __uint_as_float(words[i].word[j] & ~1u);  // what is not wanted stayed 0
        }
    }
};
