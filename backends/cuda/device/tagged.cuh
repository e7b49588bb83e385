// Tagged words: 8 bytes {f32 value, u32 epoch}, written and read whole. The reader polls the data itself.
#pragma once
#include "spin.cuh"

__device__ __forceinline__ u64 load_word(const u64* address) {
    u64 word;
    asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(word) : "l"(address) : "memory");
    return word;
}

__device__ __forceinline__ void store_tagged(u64* address, float value, u32 epoch) {
    const u64 word = static_cast<u64>(__float_as_uint(value)) | static_cast<u64>(epoch) << 32;
    asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(address), "l"(word) : "memory");
}

// Reads the N words base[offset[i]] with bit i of `wanted` set; the other values are 0. All loads are issued
// before the first is checked, and each further round reloads everything that is missing.
template <int N>
__device__ __forceinline__ void load_tagged(float (&values)[N], const u64* base, const u32 (&offset)[N], u32 wanted,
                                            u32 epoch, const Watch& watch, u32 operation) {
    static_assert(N <= 32, "one bit a word");
    u64 word[N];
#pragma unroll
    for (int i = 0; i < N; ++i) {
        values[i] = 0.0f;
        if (wanted >> i & 1) word[i] = load_word(base + offset[i]);
    }
    Spin spin;
    u32 missing = wanted;
    while (true) {
        u32 index = 0, seen = 0;
#pragma unroll
        for (int i = 0; i < N; ++i) {
            if (missing >> i & 1) {
                const u32 tag = static_cast<u32>(word[i] >> 32);
                if (tag == epoch) {
                    values[i] = __uint_as_float(static_cast<u32>(word[i]));
                    missing &= ~(1u << i);
                } else {
                    index = offset[i];
                    seen = tag;
                }
            }
        }
        if (missing == 0) return;
        if (spin.give_up(watch, operation, WAIT_TAG, index, epoch, seen)) return;
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (missing >> i & 1) word[i] = load_word(base + offset[i]);
    }
}
