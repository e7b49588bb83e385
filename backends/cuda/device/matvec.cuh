// Matrix times up to eight vectors with mma.m16n8k16: eight weight rows are the n side, the vectors the m side.
//
// Weights lie in fragment order, [k block of 32][group of 8 rows][8 rows][32 k] bf16: lane l holds row l / 4, elements
// (l % 4) * 8 to + 7 of a block, with one conflict-free 16-byte shared load. The order of k inside a block is free as
// long as both sides agree, so elements 0..3 of a lane feed the first mma and 4..7 the second.
// Activations are split into bf16 hi + lo: hi in rows 0..7 of the m side, lo in rows 8..15, which mma computes
// anyway; their sum has the precision of nearly f32 activations.
//
// A phase of a small model is a chain of dependent instructions of few warps, so their number counts: operands are loaded
// as mma takes them, and all sizes are constants.
#pragma once
#include "convert.cuh"
#include "ring.cuh"

// Elements from one row of split activations to the next: two rows that are read together never share banks.
__device__ constexpr int activation_stride(int k_blocks) { return k_blocks * 32 + 4; }

// Split activations in shared memory, 16 bytes for four neighbours: {hi 0, hi 1, lo 0, lo 1, hi 2, hi 3, lo 2, lo 3}, which
// is the m side of one mma.
struct Activations {
    u16* memory;

    __device__ __forceinline__ u16* hi(int at) const { return memory + at / 4 * 8 + at % 4 / 2 * 4 + at % 2; }
    __device__ __forceinline__ void put(int at, float value) const {
        u16* to = hi(at);
        const u16 high = to_bf16(value);
        to[0] = high;
        to[2] = to_bf16(value - from_bf16(high));
    }
    // Four neighbours at a multiple of 4.
    __device__ __forceinline__ void put_four(int at, const float* value) const {
        u32 high[4], low[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            high[i] = to_bf16(value[i]);
            low[i] = to_bf16(value[i] - __uint_as_float(high[i] << 16));
        }
        *reinterpret_cast<uint4*>(memory + at * 2) =
            make_uint4(high[1] << 16 | high[0], low[1] << 16 | low[0], high[3] << 16 | high[2], low[3] << 16 | low[2]);
    }
    // Four neighbours as the m side.
    __device__ __forceinline__ uint4 four(int at) const { return *reinterpret_cast<const uint4*>(memory + at * 2); }
    // While rms_norm waits for its sum, the same 32 bits hold the value itself: read back by the thread that wrote it.
    __device__ __forceinline__ void put_raw(int at, float value) const {
        const u32 bits = __float_as_uint(value);
        u16* to = hi(at);
        to[0] = static_cast<u16>(bits >> 16);
        to[2] = static_cast<u16>(bits);
    }
    __device__ __forceinline__ float get_raw(int at) const {
        const u16* from = hi(at);
        return __uint_as_float(static_cast<u32>(from[0]) << 16 | from[2]);
    }
};

__device__ __forceinline__ void mma(float (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma(float (&sum)[4], uint4 a, u32 b0, u32 b1) { mma(sum, a.x, a.y, a.z, a.w, b0, b1); }

// What a warp adds to its sums: its next BLOCKS blocks of a ring stage, from `weights` on, with the activations from `at` on.
template <int BLOCKS, int GROUPS, int CHAINS>
__device__ __forceinline__ void add_blocks(float (&sums)[GROUPS][CHAINS][4], const uint4*& weights, Activations x, int& at) {
    uint4 first[BLOCKS], second[BLOCKS], w[BLOCKS][GROUPS];
#pragma unroll
    for (int s = 0; s < BLOCKS; ++s) {
        first[s] = x.four(at + s * CONSUMER_WARPS * 32);
        second[s] = x.four(at + s * CONSUMER_WARPS * 32 + 4);
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) w[s][g] = weights[(s * CONSUMER_WARPS * GROUPS + g) * 32];
    }
#pragma unroll
    for (int s = 0; s < BLOCKS; ++s) {
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) {
            mma(sums[g][0], first[s], w[s][g].x, w[s][g].y);
            mma(sums[g][CHAINS - 1], second[s], w[s][g].z, w[s][g].w);
        }
    }
    weights += BLOCKS * CONSUMER_WARPS * GROUPS * 32;
    at += BLOCKS * CONSUMER_WARPS * 32;
}

// A warp's share of COUNT blocks of a stage: every eighth one, from `weights` and `at` on.
template <int COUNT, int GROUPS, int CHAINS>
__device__ __forceinline__ void add_stage(float (&sums)[GROUPS][CHAINS][4], const uint4* weights, Activations x, int at,
                                          int warp) {
    constexpr int STEP = GROUPS == 1 ? 4 : GROUPS == 2 ? 2 : 1;  // blocks under way together
    constexpr int EACH = COUNT / CONSUMER_WARPS, REST = COUNT % CONSUMER_WARPS;
    constexpr int STEPS = EACH / STEP, MORE = EACH % STEP;
#pragma unroll 1
    for (int s = 0; s < STEPS; ++s) add_blocks<STEP>(sums, weights, x, at);
    if constexpr (REST > 0) {
        if (warp < REST)
            add_blocks<MORE + 1>(sums, weights, x, at);
        else if constexpr (MORE > 0)
            add_blocks<MORE>(sums, weights, x, at);
    } else if constexpr (MORE > 0) {
        add_blocks<MORE>(sums, weights, x, at);
    }
}

// A warp's share of BLOCKS blocks from the ring, CHUNK blocks a stage, with the activations from `at` on.
template <int BLOCKS, int CHUNK, int GROUPS, int CHAINS, typename Reader>
__device__ __forceinline__ void add_stages(float (&sums)[GROUPS][CHAINS][4], Reader& reader, Activations x, int at,
                                           Watch& watch, u32 operation) {
    constexpr int FULL = BLOCKS / CHUNK, LAST = BLOCKS % CHUNK;
    const int warp = threadIdx.x / 32, mine = warp * GROUPS * 32 + threadIdx.x % 32;
#pragma unroll 1
    for (int stage = 0; stage < FULL; ++stage) {
        const uint4* weights = reinterpret_cast<const uint4*>(reader.acquire(watch, operation)) + mine;
        add_stage<CHUNK>(sums, weights, x, at, warp);
        reader.release();
        at += CHUNK * 32;
    }
    if constexpr (LAST > 0) {
        const uint4* weights = reinterpret_cast<const uint4*>(reader.acquire(watch, operation)) + mine;
        add_stage<LAST>(sums, weights, x, at, warp);
        reader.release();
    }
}

// A lane's sums of its token, if it has one, to partial[warp][token][row].
template <int ROWS, int GROUPS, int CHAINS>
__device__ __forceinline__ void put_sums(const float (&sums)[GROUPS][CHAINS][4], float* partial) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int token = lane / 4, quad = lane % 4;
    if (token < ROWS) {
        float2* out = reinterpret_cast<float2*>(partial + (warp * ROWS + token) * GROUPS * 8) + quad;
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) {
            float even = sums[g][0][0] + sums[g][0][2], odd = sums[g][0][1] + sums[g][0][3];
            if constexpr (CHAINS == 2) {
                even += sums[g][1][0] + sums[g][1][2];
                odd += sums[g][1][1] + sums[g][1][3];
            }
            out[g * 4] = make_float2(even, odd);
        }
    }
}

// One task: GROUPS * 8 weight rows of K_BLOCKS * 32 elements from the ring, CHUNK k blocks a stage. Each consumer warp
// takes every eighth k block of a stage and writes its partial sums to partial[warp][token][row].
template <int GROUPS, int K_BLOCKS, int CHUNK, int ROWS, typename Reader>
__device__ __forceinline__ void matvec(Reader& reader, Activations x, float* partial, Watch& watch, u32 operation) {
    constexpr int CHAINS = GROUPS < 4 ? 2 : 1;  // sums that do not wait for each other
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int token = lane / 4, quad = lane % 4;
    // Rows of the m side that stand for no token hold those of the last one: their sums are not used.
    const int at = (token < ROWS ? token : ROWS - 1) * activation_stride(K_BLOCKS) + warp * 32 + quad * 8;
    float sums[GROUPS][CHAINS][4] = {};
    add_stages<K_BLOCKS, CHUNK>(sums, reader, x, at, watch, operation);
    put_sums<ROWS>(sums, partial);
}

// The product for one token and row: the warps' partial sums, always added in the same order.
template <int GROUPS, int ROWS>
__device__ __forceinline__ float product(const float* partial, int token, int row) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < CONSUMER_WARPS; ++w) sum += partial[(w * ROWS + token) * GROUPS * 8 + row];
    return sum;
}

__device__ __forceinline__ Activations activations(void* memory) { return {static_cast<u16*>(memory)}; }
