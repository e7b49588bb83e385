// Codes of quantised weights as operands of mma, in registers, and their scales. All conversions are exact.
//
// Integer codes are multiplied as integers (integer_matvec.cuh); float8, and groups of 16, become bf16 (bf16_codes_matvec.cuh).
#pragma once
#include "convert.cuh"

// a * b + c of two bf16 each.
__device__ __forceinline__ u32 fma_bf16x2(u32 a, u32 b, u32 c) {
    u32 result;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
    return result;
}

constexpr u32 ONE_BF16X2 = 0x3f803f80;

// ---- codes that become bf16 -----------------------------------------------------------------------------------------
//
// A 32-bit word of a lane holds four codes of 8 bits (one step of 16 along k) or eight of 4 bits (two steps), of each step
// the four from (lane % 4) * 4 on. `unpack` gives, for each step, elements 0 and 1, then 2 and 3, which the packer has
// put where the fewest instructions find them.

// Signed 8-bit codes. A byte in the low bits of the bf16 128 reads 128 + its seven low bits; its sign bit is the lowest
// bit of the exponent, which turns 128 into 256: v = (128 + low) - (128 or 256).
struct Int8 {
    static constexpr int BITS = 8;
    static constexpr bool IS_INTEGER = false;
    __device__ static __forceinline__ void unpack(u32 word, u32 (&pairs)[2]) {
        const u32 odd = word >> 8;
        pairs[0] = fma_bf16x2((word & 0x007f007f) | 0x43004300, ONE_BF16X2, (word & 0x00800080) | 0xc300c300);
        pairs[1] = fma_bf16x2((odd & 0x007f007f) | 0x43004300, ONE_BF16X2, (odd & 0x00800080) | 0xc300c300);
    }
};

// float8 e4m3: its exponent and mantissa in those of a bf16 read 2^-120 times the value, subnormal or not.
struct Fp8 {
    static constexpr int BITS = 8;
    static constexpr bool IS_INTEGER = false;
    __device__ static __forceinline__ void unpack(u32 word, u32 (&pairs)[2]) {
        constexpr u32 UP = 0x7b807b80, ZERO = 0x80008000;  // 2^120 and -0
        const u32 low = word << 8;
        pairs[0] = fma_bf16x2((word & 0x80008000) | (word >> 4 & 0x07f007f0), UP, ZERO);
        pairs[1] = fma_bf16x2((low & 0x80008000) | (word << 4 & 0x07f007f0), UP, ZERO);
    }
};

// Unsigned 4-bit codes less OFFSET: a nibble in the low bits of the bf16 128 reads 128 + the code.
template <int OFFSET>
struct Int4 {
    static constexpr int BITS = 4;
    static constexpr bool IS_INTEGER = false;
    __device__ static __forceinline__ void unpack(u32 word, u32 (&pairs)[4]) {
        constexpr u32 LESS = 0xc300c300 + OFFSET * 0x00010001;  // -(128 + OFFSET)
#pragma unroll
        for (int i = 0; i < 4; ++i)
            pairs[i] = fma_bf16x2((word >> 4 * i & 0x000f000f) | 0x43004300, ONE_BF16X2, LESS);
    }
};

// ---- codes that stay integers ---------------------------------------------------------------------------------------
//
// Of each step of 32 along k a lane has the eight codes from (lane % 4) * 8 on: two words of 8-bit codes, or one of 4-bit codes
// whose low nibbles are the first four. `unpack` gives them as two registers of signed bytes, UNIT of which are 1.

struct SignedBytes {
    static constexpr int BITS = 8, STEP_WORDS = 2;
    static constexpr bool IS_INTEGER = true;
    static constexpr float UNIT = 1.0f;
    __device__ static __forceinline__ void unpack(const u32* words, u32& low, u32& high) { low = words[0], high = words[1]; }
    __device__ static __forceinline__ float element(const u8* lane, int step, int e) {
        return static_cast<float>(static_cast<signed char>(lane[step * 8 + e]));
    }
};

struct SignedNibbles {
    static constexpr int BITS = 4, STEP_WORDS = 1;
    static constexpr bool IS_INTEGER = true;
    static constexpr float UNIT = 16.0f;
    __device__ static __forceinline__ void unpack(const u32* words, u32& low, u32& high) {
        low = words[0] << 4 & 0xf0f0f0f0;
        high = words[0] & 0xf0f0f0f0;
    }
    __device__ static __forceinline__ float element(const u8* lane, int step, int e) {
        const int nibble = lane[step * 4 + e % 4] >> e / 4 * 4 & 15;
        return static_cast<float>(nibble < 8 ? nibble : nibble - 16);
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
// GROUP elements along k that share a scale, 0 for whole rows; integer codes are OFFSET less than those of the format.
// In memory, for each ring stage: [k block][group of 8 rows][lane][word], then [scale column][group of 8 rows][8 rows]
// scales, then likewise what is beside them. With GROUP = 0, only the last stage of a task has scales.
template <typename CodeType, typename ScaleType, int GROUP_K, Beside BESIDE_SCALE, int WORDS>
struct Quantized {
    using Code = CodeType;
    using Scale = ScaleType;
    static constexpr int GROUP = GROUP_K, LANE_WORDS = WORDS;
    static constexpr Beside BESIDE = BESIDE_SCALE;
    static constexpr int BLOCK_K = WORDS * 128 / Code::BITS;  // elements along k of a block
    static constexpr int BLOCK_BYTES = 32 * 4 * WORDS;        // of 8 rows
    static constexpr int OFFSET = Code::IS_INTEGER && Code::BITS == 4 && BESIDE != NOTHING ? 8 : 0;
    __device__ static constexpr int columns(int blocks) {
        return GROUP == 0 ? 1 : (blocks * BLOCK_K + GROUP - 1) / (GROUP == 0 ? 1 : GROUP);
    }
    // What elements that share a scale add to a product: `sum` of codes times x, and `x`, the sum of x.
    __device__ static __forceinline__ float scaled(float sum, float x, float scale, float beside) {
        if constexpr (BESIDE == ZERO_POINT) return scale * (sum + (OFFSET - beside) * x);
        if constexpr (BESIDE == MINIMUM) return scale * (sum + OFFSET * x) + beside * x;
        return scale * sum;
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

// Where a warp reads a stage. codes: of this lane in block 0. scales, beside: of this lane's row in column 0.
struct CodesStage {
    const u8 *codes, *scales, *beside;

    template <typename Q, int GROUPS>
    __device__ static __forceinline__ CodesStage of(const u8* stage, int blocks, int lane) {
        const u8* scales = stage + blocks * GROUPS * Q::BLOCK_BYTES + lane / 4 * Q::Scale::BYTES;
        return {stage + lane * Q::LANE_WORDS * 4, scales, scales + Q::columns(blocks) * GROUPS * 8 * Q::Scale::BYTES};
    }
};
