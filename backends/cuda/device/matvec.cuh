// Matrix times up to eight vectors with mma.m16n8k16: eight weight rows are the n side, the vectors the m side.
//
// Weights lie in fragment order, [k block of 32][group of 8 rows][8 rows][32 k] bf16: lane l holds row l / 4, elements
// (l % 4) * 8 to + 7 of a block, with one conflict-free 16-byte shared load. The order of k inside a block is free as
// long as both sides agree, so elements 0..3 of a lane feed the first mma and 4..7 the second.
// Activations are split into bf16 hi + lo: hi in rows 0..7 of the m side, lo in rows 8..15, which mma computes
// anyway; their sum has the precision of nearly f32 activations.
#pragma once
#include "convert.cuh"
#include "ring.cuh"

// Elements from one row of a split activation to the next: odd multiples of 32, so that two rows never share banks.
__device__ constexpr int activation_stride(int k_blocks) { return (k_blocks | 1) * 32; }

// Activations of ROWS tokens in shared memory.
struct Activations {
    u16* hi;
    u16* lo;

    __device__ __forceinline__ void put(int at, float value) const {
        const u16 high = to_bf16(value);
        hi[at] = high;
        lo[at] = to_bf16(value - from_bf16(high));
    }
    // While rms_norm waits for its sum, the same 32 bits hold the value itself: read back by the thread that wrote it.
    __device__ __forceinline__ void put_raw(int at, float value) const {
        const u32 bits = __float_as_uint(value);
        hi[at] = static_cast<u16>(bits >> 16);
        lo[at] = static_cast<u16>(bits);
    }
    __device__ __forceinline__ float get_raw(int at) const {
        return __uint_as_float(static_cast<u32>(hi[at]) << 16 | lo[at]);
    }
};

__device__ __forceinline__ void mma(float (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// One task: GROUPS * 8 weight rows of K_BLOCKS * 32 elements from the ring, CHUNK k blocks a stage. Each consumer warp
// takes every eighth k block of a stage and writes its partial sums to partial[warp][token][row].
template <int K_BLOCKS, int GROUPS, int CHUNK, int ROWS, typename Reader>
__device__ __forceinline__ void matvec(Reader& reader, Activations x, float* partial, const Watch& watch,
                                       u32 operation) {
    constexpr int STRIDE = activation_stride(K_BLOCKS);
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int token = lane / 4, quad = lane % 4;
    float sums[GROUPS][4];
#pragma unroll
    for (int g = 0; g < GROUPS; ++g) sums[g][0] = sums[g][1] = sums[g][2] = sums[g][3] = 0.0f;
    for (int first = 0; first < K_BLOCKS; first += CHUNK) {
        const int count = K_BLOCKS - first < CHUNK ? K_BLOCKS - first : CHUNK;
        const u8* stage = reader.acquire(watch, operation);
#pragma unroll 2
        for (int block = warp; block < count; block += CONSUMER_WARPS) {
            uint4 hi = make_uint4(0, 0, 0, 0), lo = hi;
            if (token < ROWS) {
                const int at = token * STRIDE + (first + block) * 32 + quad * 8;
                hi = *reinterpret_cast<const uint4*>(x.hi + at);
                lo = *reinterpret_cast<const uint4*>(x.lo + at);
            }
            const uint4* weights = reinterpret_cast<const uint4*>(stage) + block * GROUPS * 32 + lane;
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) {
                const uint4 w = weights[g * 32];
                mma(sums[g], hi.x, lo.x, hi.y, lo.y, w.x, w.y);
                mma(sums[g], hi.z, lo.z, hi.w, lo.w, w.z, w.w);
            }
        }
        reader.release();
    }
    if (token < ROWS) {
        float2* out = reinterpret_cast<float2*>(partial + (warp * ROWS + token) * GROUPS * 8);
#pragma unroll
        for (int g = 0; g < GROUPS; ++g)
            out[g * 4 + quad] = make_float2(sums[g][0] + sums[g][2], sums[g][1] + sums[g][3]);
    }
}

// The product for one token and row: the warps' partial sums, always added in the same order.
template <int GROUPS, int ROWS>
__device__ __forceinline__ float product(const float* partial, int token, int row) {
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < CONSUMER_WARPS; ++w) sum += partial[(w * ROWS + token) * GROUPS * 8 + row];
    return sum;
}

// The split activations of `elements` elements at `memory`.
__device__ __forceinline__ Activations activations(void* memory, int elements) {
    return {static_cast<u16*>(memory), static_cast<u16*>(memory) + elements};
}
