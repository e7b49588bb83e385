// Codes of quantised weights as operands of mma, in registers, and their scales. All conversions are exact.
#pragma once
#include "convert.cuh"

// a * b + c of two bf16 each.
__device__ __forceinline__ u32 fma_bf16x2(u32 a, u32 b, u32 c) {
    u32 result;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
}

// ---- codes ----------------------------------------------------------------------------------------------------------
//
// Of each step of 32 along k a lane has the eight codes from (lane % 4) * 8 on, in WORDS words, at the bits where the fewest
// instructions find them. `unpack` makes them what a lane loads of bf16 weights: two neighbours a register, each code
// divided by UNIT, plus `addend`, which is the code that means 0, negated and divided likewise.
//
// Integers are stored from 0 on. As the low bits of a bf16 they read 2^-133 times their value, 128 to 255 too: there the
// exponent becomes 1, whose unit is that of subnormals. So one multiplication and addition for two is all it takes.

// Bytes: elements 0, 2, 1, 3 of a word.
struct Int8 {
    static constexpr int BITS = 8, WORDS = 2;
    static constexpr float UNIT = 64.0f;
    __device__ static __forceinline__ uint4 unpack(const u32* words, u32 addend) {
        constexpr u32 UP = 0x7f007f00;  // 2^127
        return make_uint4(fma_bf16x2(words[0] & 0x00ff00ff, UP, addend),
                          fma_bf16x2(__byte_perm(words[0], 0, 0x4341), UP, addend),
                          fma_bf16x2(words[1] & 0x00ff00ff, UP, addend),
                          fma_bf16x2(__byte_perm(words[1], 0, 0x4341), UP, addend));
    }
};

// Nibbles: even elements in the lower half, odd ones in the upper half. Those in the upper half of a byte read 16 times as much.
struct Int4 {
    static constexpr int BITS = 4, WORDS = 1;
    static constexpr float UNIT = 64.0f;
    __device__ static __forceinline__ uint4 unpack(const u32* words, u32 addend) {
        constexpr u32 UP = 0x7f007f00, UP_16 = 0x7d007d00;  // 2^127, 2^123
        const u32 low = words[0], high = words[0] >> 8;
        return make_uint4(fma_bf16x2(low & 0x000f000f, UP, addend), fma_bf16x2(low & 0x00f000f0, UP_16, addend),
                          fma_bf16x2(high & 0x000f000f, UP, addend), fma_bf16x2(high & 0x00f000f0, UP_16, addend));
    }
};

// float8 e4m3: its exponent and mantissa in those of a bf16 read 2^-120 times the value, subnormal or not. Elements 0 and 1
// stand in place, in bits 15 and 10 to 4 of their halves; of 2 and 3, the sign is bit 11, the rest bits 14 to 12 and 3 to 0.
struct Fp8 {
    static constexpr int BITS = 8, WORDS = 2;
    static constexpr float UNIT = 1.0f;
    __device__ static __forceinline__ u32 second(u32 word) { return (word << 4 & 0x80f080f0) | (word >> 4 & 0x07000700); }
    __device__ static __forceinline__ uint4 unpack(const u32* words, u32 addend) {
        constexpr u32 UP = 0x7b807b80, IN_PLACE = 0x87f087f0;  // 2^120
        return make_uint4(fma_bf16x2(words[0] & IN_PLACE, UP, addend), fma_bf16x2(second(words[0]), UP, addend),
                          fma_bf16x2(words[1] & IN_PLACE, UP, addend), fma_bf16x2(second(words[1]), UP, addend));
    }
};

// ---- scales ---------------------------------------------------------------------------------------------------------

// Types of scales, zero points and minimums. load_two: neighbours, of two neighbouring weight rows.
struct F32Scale {
    static constexpr int BYTES = 4;
    __device__ static __forceinline__ float2 load_two(const u8* at) { return *reinterpret_cast<const float2*>(at); }
    __device__ static __forceinline__ float load_one(const u8* at) { return *reinterpret_cast<const float*>(at); }
};
struct Bf16Scale {
    static constexpr int BYTES = 2;
    __device__ static __forceinline__ float2 load_two(const u8* at) {
        const u32 word = *reinterpret_cast<const u32*>(at);
        return make_float2(__uint_as_float(word << 16), __uint_as_float(word & 0xffff0000));
    }
    __device__ static __forceinline__ float load_one(const u8* at) { return from_bf16(*reinterpret_cast<const u16*>(at)); }
};
__device__ __forceinline__ float from_f16(u16 bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
struct F16Scale {
    static constexpr int BYTES = 2;
    __device__ static __forceinline__ float2 load_two(const u8* at) {
        const u32 word = *reinterpret_cast<const u32*>(at);
        return make_float2(from_f16(static_cast<u16>(word)), from_f16(static_cast<u16>(word >> 16)));
    }
    __device__ static __forceinline__ float load_one(const u8* at) { return from_f16(*reinterpret_cast<const u16*>(at)); }
};

// What stands beside the scale of a group: nothing; the code that means 0; or what is added to each value.
enum Beside { NOTHING, ZERO_POINT, MINIMUM };

// A quantised layout of weight rows, as QuantizedLayout in quantized_fragments.py: blocks of LANE_WORDS words a lane, groups of
// GROUP elements along k that share a scale, 0 for whole rows. ZERO: the stored code that means 0, without zero points.
// In memory, for each ring stage: [k block][group of 8 rows][lane][word], then what is beside scales, [scale column][group of
// 8 rows][8 rows], then the scales likewise. With GROUP = 0, only the last stage of a task has scales.
template <typename CodeType, int ZERO, typename ScaleType, int GROUP_K, Beside BESIDE_SCALE, int WORDS>
struct Quantized {
    using Code = CodeType;
    using Scale = ScaleType;
    static constexpr int GROUP = GROUP_K, LANE_WORDS = WORDS;
    static constexpr Beside BESIDE = BESIDE_SCALE;
    static constexpr int BLOCK_K = WORDS * 128 / Code::BITS, BLOCK_STEPS = BLOCK_K / 32;  // of a block along k
    static constexpr int BLOCK_BYTES = 32 * 4 * WORDS;                                    // of 8 rows
    __device__ static constexpr int columns(int blocks) {
        return GROUP == 0 ? 1 : (blocks * BLOCK_K + GROUP - 1) / (GROUP == 0 ? 1 : GROUP);
    }
    // The scale column of element `k` of a stage.
    __device__ static constexpr int column(int k) { return GROUP == 0 ? 0 : k / (GROUP == 0 ? 1 : GROUP); }
    // What is added to the codes of a row. A zero point is stored as this bf16, and twice where scales have four bytes.
    __device__ static __forceinline__ u32 addend(const u8* beside) {
        static_assert(ZERO == 0 || ZERO == 8 || ZERO == 128, "powers of two");
        if constexpr (BESIDE != ZERO_POINT) return ZERO == 0 ? 0x80008000 : ZERO == 8 ? 0xbe00be00 : 0xc000c000;
        if constexpr (Scale::BYTES == 4) return *reinterpret_cast<const u32*>(beside);
        return *reinterpret_cast<const u16*>(beside) * 0x00010001u;
    }
};

// The codes of a lane in a block of 8 rows.
template <typename Q>
struct LaneCodes {
    u32 word[Q::LANE_WORDS];

    __device__ __forceinline__ void load(const u8* from) {
        if constexpr (Q::LANE_WORDS == 4) {
            const uint4 words = *reinterpret_cast<const uint4*>(from);
            word[0] = words.x, word[1] = words.y, word[2] = words.z, word[3] = words.w;
        } else if constexpr (Q::LANE_WORDS == 2) {
            const uint2 words = *reinterpret_cast<const uint2*>(from);
            word[0] = words.x, word[1] = words.y;
        } else {
            word[0] = *reinterpret_cast<const u32*>(from);
        }
    }
};
