// Integer codes times up to eight vectors with mma.m16n8k32: 16 weight rows are the m side, digits of the vectors the n side.
//
// A vector is cut into blocks of 128 elements, each with a scale of its own: its greatest magnitude is 127 * 2^16. An element is
// then three signed digits of base 256, which are three columns of the n side, and the sums are exact. The codes need
// no conversion (8 bits) or three instructions for eight of them (4 bits). Sums become f32 when a scale changes.
#pragma once
#include "dequant.cuh"
#include "ring.cuh"

constexpr int X_BLOCK = 128;                  // elements that share a scale
constexpr int X_UNIT = 64;                    // elements of which a lane reads 16 bytes: [digit][quarter][step of 32][8]
constexpr int X_SCALE_AT = 3 * X_UNIT;        // byte of a block, where the fourth digit of its first unit would be
constexpr float X_GREATEST = 127.0f * 65536;  // digits of -128 to 127 hold a little more

// The greatest of a warp's values.
__device__ __forceinline__ u32 warp_greatest(u32 value) {
    u32 result;
    asm volatile("redux.sync.max.u32 %0, %1, 0xffffffff;" : "=r"(result) : "r"(value));
    return result;
}

// Bytes 0, 1 or 2 of four words.
__device__ __forceinline__ u32 bytes_of(u32 a, u32 b, u32 c, u32 d, int byte) {
    const u32 select = byte | (byte + 4) << 4;
    return __byte_perm(__byte_perm(a, b, select), __byte_perm(c, d, select), 0x5410);
}

// Cuts a block into digits, by one warp, of which this lane has elements lane * 4 to + 3.
__device__ __forceinline__ void cut_block(u8* block, float4 x) {
    const int lane = threadIdx.x % 32, in_unit = lane % 16 * 4;
    const int at = lane / 16 * X_UNIT * 4 + in_unit % 32 / 8 * 16 + in_unit / 32 * 8 + in_unit % 8;
    const u32 a = __float_as_uint(x.x) & 0x7fffffff, b = __float_as_uint(x.y) & 0x7fffffff;
    const u32 c = __float_as_uint(x.z) & 0x7fffffff, d = __float_as_uint(x.w) & 0x7fffffff;
    const u32 ab = a > b ? a : b, cd = c > d ? c : d;
    const float greatest = __uint_as_float(warp_greatest(ab > cd ? ab : cd));  // of magnitudes, as of their bits
    const float inverse = greatest > 1e-30f ? X_GREATEST / greatest : 0.0f;
    // 128 more in each digit, so that all are positive
    const u32 q0 = __float2int_rn(x.x * inverse) + 0x808080, q1 = __float2int_rn(x.y * inverse) + 0x808080;
    const u32 q2 = __float2int_rn(x.z * inverse) + 0x808080, q3 = __float2int_rn(x.w * inverse) + 0x808080;
#pragma unroll
    for (int digit = 0; digit < 3; ++digit)
        *reinterpret_cast<u32*>(block + digit * X_UNIT + at) = bytes_of(q0, q1, q2, q3, digit) ^ 0x80808080;
    if (lane == 0) *reinterpret_cast<float*>(block + X_SCALE_AT) = greatest * (1.0f / X_GREATEST);
}

// Vectors in shared memory, 4 bytes an element: as they are, to be cut later, or cut at once by `cut_four`.
struct WholeActivations {
    float* memory;

    __device__ __forceinline__ void put(int at, float value) const { memory[at] = value; }
    __device__ __forceinline__ void put_raw(int at, float value) const { memory[at] = value; }
    __device__ __forceinline__ float get_raw(int at) const { return memory[at]; }
    // Four neighbours; those of the lanes of a warp are a block.
    __device__ __forceinline__ void cut_four(int at, const float* value) const {
        cut_block(reinterpret_cast<u8*>(memory + at / X_BLOCK * X_BLOCK),
                  make_float4(value[0], value[1], value[2], value[3]));
    }
    __device__ __forceinline__ void put_four(int at, const float* value) const {
        *reinterpret_cast<float4*>(memory + at) = make_float4(value[0], value[1], value[2], value[3]);
    }
};

__device__ __forceinline__ WholeActivations whole_activations(void* memory) { return {static_cast<float*>(memory)}; }

// Cuts BLOCKS blocks of whole activations, in place. A barrier stands before and has to follow. Out of line: inlined after
// every phase, it would take registers from the loads that are under way.
template <int BLOCKS>
__device__ __noinline__ void cut_activations(void* memory) {
    for (int block = threadIdx.x / 32; block < BLOCKS; block += CONSUMER_WARPS) {
        u8* data = static_cast<u8*>(memory) + block * X_BLOCK * 4;
        const float4 x = reinterpret_cast<const float4*>(data)[threadIdx.x % 32];
        __syncwarp();
        cut_block(data, x);
    }
}

__device__ __forceinline__ void mma_s8(int (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(sum[0]), "+r"(sum[1]), "+r"(sum[2]), "+r"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Sums of a warp for GROUPS groups of 8 rows, two groups and two tokens an mma: lane l has rows l / 4 of both groups, columns
// l % 4 * 2 and the next, which are digits 0 and 1 of a token (l % 4 even), or its digit 2 and nothing.
template <typename Q, int GROUPS, int TOKENS>
struct IntegerSums {
    static constexpr int ROWS = (GROUPS + 1) / 2, PAIRS = (TOKENS + 1) / 2;
    static constexpr bool HAS_BESIDE = Q::BESIDE != NOTHING;
    int raw[ROWS][PAIRS][4], x[PAIRS][4];
    float total[GROUPS][PAIRS], total_x[PAIRS];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int p = 0; p < PAIRS; ++p)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                if constexpr (HAS_BESIDE) x[p][i] = 0;
#pragma unroll
                for (int r = 0; r < ROWS; ++r) raw[r][p][i] = 0;
            }
    }
    // What the columns of this lane stand for, in f32. unit: of digit 0. Of two digits and up to 128 elements, the sum fits.
    __device__ static __forceinline__ float value(int first, int second, float unit) {
        const bool low = threadIdx.x % 2 == 0;
        return static_cast<float>(first + second * (low ? 256 : 0)) * (low ? unit : unit * 65536);
    }
    // Adds the sums to the totals and clears them. x_scale: of the block, for the token of this lane in each pair.
    // scales, beside: of this lane's row in group 0; not read for whole rows.
    __device__ __forceinline__ void fold(const float (&x_scale)[PAIRS], const u8* scales, const u8* beside) {
#pragma unroll
        for (int p = 0; p < PAIRS; ++p) {
            const float unit = x_scale[p] * (1.0f / Q::Code::UNIT);
            float sum_x = 0.0f;
            if constexpr (HAS_BESIDE) sum_x = value(x[p][0], x[p][1], x_scale[p]);
            if constexpr (HAS_BESIDE && Q::GROUP == 0) total_x[p] += sum_x;
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) {
                const int* sum = raw[g / 2][p] + g % 2 * 2;
                const float product = value(sum[0], sum[1], unit);
                if constexpr (Q::GROUP == 0)
                    total[g][p] += product;
                else
                    total[g][p] += scaled(product, sum_x, g, scales, beside);
            }
        }
        clear();
    }
    // Scales the totals of whole rows.
    __device__ __forceinline__ void finish(const u8* scales, const u8* beside) {
#pragma unroll
        for (int p = 0; p < PAIRS; ++p)
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) total[g][p] = scaled(total[g][p], total_x[p], g, scales, beside);
    }
    __device__ static __forceinline__ float scaled(float product, float sum_x, int group, const u8* scales, const u8* beside) {
        const int at = group * 8 * Q::Scale::BYTES;
        float other = 0.0f;
        if constexpr (HAS_BESIDE) other = Q::Scale::load_one(beside + at);
        return Q::scaled(product, sum_x, Q::Scale::load_one(scales + at), other);
    }
};

// Digits and scales of the vectors, each X_BLOCKS blocks long, as a lane reads them: it brings column l / 4 to the n side, and
// sums columns l % 4 * 2 and the next. Columns that stand for no token repeat the last one: their sums are not used.
template <int TOKENS, int X_BLOCKS>
struct DigitReader {
    static constexpr int PAIRS = (TOKENS + 1) / 2, STRIDE = X_BLOCKS * X_BLOCK * 4;
    const u8* memory;

    __device__ static __forceinline__ int clamped(int token) { return token < TOKENS ? token : TOKENS - 1; }
    // The digits of COUNT steps of 32 from element `k` on, which is a multiple of X_UNIT if COUNT is more than 1.
    template <int COUNT>
    __device__ __forceinline__ void digits(int pair, int k, uint2 (&to)[COUNT]) const {
        const int lane = threadIdx.x % 32;
        const u8* from = memory + clamped(pair * 2 + lane / 16) * STRIDE + lane / 4 % 4 * X_UNIT + lane % 4 * 16;
        if constexpr (COUNT == 1) {
            to[0] = *reinterpret_cast<const uint2*>(from + k / X_UNIT * X_UNIT * 4 + k % X_UNIT / 32 * 8);
        } else {
#pragma unroll
            for (int s = 0; s < COUNT; s += 2) {
                const uint4 two = *reinterpret_cast<const uint4*>(from + (k + s * 32) * 4);
                to[s] = make_uint2(two.x, two.y);
                to[s + 1] = make_uint2(two.z, two.w);
            }
        }
    }
    __device__ __forceinline__ float scale(int pair, int k) const {
        const u8* block = memory + clamped(pair * 2 + threadIdx.x % 4 / 2) * STRIDE + k / X_BLOCK * X_BLOCK * 4;
        return *reinterpret_cast<const float*>(block + X_SCALE_AT);
    }
};

// What a warp adds to its sums: COUNT blocks, every eighth one from number `block` of the stage on. `first`: where the stage
// begins in the vectors.
template <typename Q, int COUNT, int GROUPS, int TOKENS, typename Digits>
__device__ __forceinline__ void add_integer_blocks(IntegerSums<Q, GROUPS, TOKENS>& sums, CodesStage stage, Digits x,
                                                   int first, int block) {
    using Code = typename Q::Code;
    constexpr int STEPS = Q::LANE_WORDS / Code::STEP_WORDS, PAIRS = Digits::PAIRS;
    LaneCodes<Q> codes[COUNT][GROUPS];
    uint2 digits[COUNT][PAIRS][STEPS];
    float x_scale[COUNT][PAIRS];
#pragma unroll
    for (int b = 0; b < COUNT; ++b) {
        const int number = block + b * CONSUMER_WARPS, k = first + number * Q::BLOCK_K;
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) codes[b][g].load(stage.codes + (number * GROUPS + g) * Q::BLOCK_BYTES);
#pragma unroll
        for (int p = 0; p < PAIRS; ++p) {
            x.digits(p, k, digits[b][p]);
            x_scale[b][p] = x.scale(p, k);
        }
    }
#pragma unroll
    for (int b = 0; b < COUNT; ++b) {
        const int in_stage = (block + b * CONSUMER_WARPS) * Q::BLOCK_K;
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
#pragma unroll
            for (int r = 0; r < sums.ROWS; ++r) {
                u32 a[4] = {};
                Code::unpack(codes[b][2 * r].word + s * Code::STEP_WORDS, a[0], a[2]);
                if (2 * r + 1 < GROUPS)
                    Code::unpack(codes[b][2 * r + 1 < GROUPS ? 2 * r + 1 : 0].word + s * Code::STEP_WORDS, a[1], a[3]);
#pragma unroll
                for (int p = 0; p < PAIRS; ++p)
                    mma_s8(sums.raw[r][p], a[0], a[1], a[2], a[3], digits[b][p][s].x, digits[b][p][s].y);
            }
            if constexpr (Q::BESIDE != NOTHING) {
                constexpr u32 ONES = 0x01010101;
#pragma unroll
                for (int p = 0; p < PAIRS; ++p)
                    mma_s8(sums.x[p], ONES, ONES, ONES, ONES, digits[b][p][s].x, digits[b][p][s].y);
            }
            const int end = (s + 1) * 32;
            if (end == Q::BLOCK_K || (Q::GROUP != 0 && end % (Q::GROUP == 0 ? 1 : Q::GROUP) == 0)) {
                const int column = Q::GROUP == 0 ? 0 : (in_stage + end - 1) / (Q::GROUP == 0 ? 1 : Q::GROUP);
                const int offset = column * GROUPS * 8 * Q::Scale::BYTES;
                sums.fold(x_scale[b], stage.scales + offset, stage.beside + offset);
            }
        }
    }
}

// A warp's share of COUNT blocks of a stage: every eighth one.
template <typename Q, int COUNT, int GROUPS, int TOKENS, typename Digits>
__device__ __forceinline__ void add_integer_stage(IntegerSums<Q, GROUPS, TOKENS>& sums, CodesStage stage, Digits x, int first,
                                                  int warp) {
    constexpr int STEP = TOKENS <= 2 && GROUPS <= 2 ? 2 : 1;  // blocks under way together
    constexpr int EACH = COUNT / CONSUMER_WARPS, REST = COUNT % CONSUMER_WARPS;
    constexpr int STEPS = EACH / STEP, MORE = EACH % STEP;
    int block = warp;
#pragma unroll 1
    for (int s = 0; s < STEPS; ++s, block += STEP * CONSUMER_WARPS)
        add_integer_blocks<Q, STEP>(sums, stage, x, first, block);
    if constexpr (REST > 0) {
        if (warp < REST)
            add_integer_blocks<Q, MORE + 1>(sums, stage, x, first, block);
        else if constexpr (MORE > 0)
            add_integer_blocks<Q, MORE>(sums, stage, x, first, block);
    } else if constexpr (MORE > 0) {
        add_integer_blocks<Q, MORE>(sums, stage, x, first, block);
    }
}

// One task: GROUPS * 8 weight rows of BLOCKS blocks from the ring, CHUNK blocks a stage. Each consumer warp takes every eighth
// block of a stage and writes its partial products to partial[warp][token][row], as `matvec`.
template <typename Q, int GROUPS, int BLOCKS, int CHUNK, int TOKENS, typename Reader>
__device__ __forceinline__ void integer_matvec(Reader& reader, const u8* x, float* partial, Watch& watch, u32 operation) {
    constexpr int LAST = BLOCKS % CHUNK == 0 ? CHUNK : BLOCKS % CHUNK, FULL = (BLOCKS - LAST) / CHUNK;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const DigitReader<TOKENS, (BLOCKS * Q::BLOCK_K + X_BLOCK - 1) / X_BLOCK> digits = {x};
    IntegerSums<Q, GROUPS, TOKENS> sums = {};
    int first = 0;
#pragma unroll 1
    for (int number = 0; number < FULL; ++number) {
        const CodesStage stage = CodesStage::of<Q, GROUPS>(reader.acquire(watch, operation), CHUNK, lane);
        add_integer_stage<Q, CHUNK>(sums, stage, digits, first, warp);
        reader.release();
        first += CHUNK * Q::BLOCK_K;
    }
    const CodesStage stage = CodesStage::of<Q, GROUPS>(reader.acquire(watch, operation), LAST, lane);
    add_integer_stage<Q, LAST>(sums, stage, digits, first, warp);
    if constexpr (Q::GROUP == 0) sums.finish(stage.scales, stage.beside);
    reader.release();
#pragma unroll
    for (int p = 0; p < sums.PAIRS; ++p) {
        const int token = p * 2 + lane % 4 / 2;
        float* out = partial + (warp * TOKENS + token) * GROUPS * 8 + lane / 4;
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) {
            // digits 0 and 1, and digit 2, are in neighbouring lanes
            const float product = sums.total[g][p] + __shfl_xor_sync(~0u, sums.total[g][p], 1);
            if (lane % 2 == 0 && token < TOKENS) out[g * 8] = product;
        }
    }
}
