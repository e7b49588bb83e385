// Reductions over the consumers in a fixed order, so that every run and every SM computes the same bits.
#pragma once
#include "types.cuh"

__device__ __forceinline__ float warp_sum(float value) {
    __syncwarp();  // the compiler cannot know that the warp is whole, and would prepare for the shuffles of one that is not
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) value += __shfl_xor_sync(~0u, value, distance);
    return value;
}

// The sum of what each consumer warp has put `stride` elements behind that of the one before, in pairs: a chain would take
// more than twice as long.
__device__ __forceinline__ float sum_over_warps(const float* first, int stride) {
    static_assert(CONSUMER_WARPS == 8, "three rounds of pairs");
    float pair[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) pair[i] = first[2 * i * stride] + first[(2 * i + 1) * stride];
    return (pair[0] + pair[1]) + (pair[2] + pair[3]);
}

// Sums of N values over all consumers, known to all of them. `scratch` holds N * CONSUMER_WARPS floats.
// Ends after a barrier that follows the writes; the next use of `scratch` must be behind another barrier.
template <int N>
__device__ __forceinline__ void consumer_sum(float (&values)[N], float* scratch) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < N; ++i) {
        const float sum = warp_sum(values[i]);
        if (lane == 0) scratch[i * CONSUMER_WARPS + warp] = sum;
    }
    consumer_barrier();
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = sum_over_warps(scratch + i * CONSUMER_WARPS, 1);
}

// This consumer's part of the sum of squares of row `row`. The caller's barrier makes it known to NormScales.
__device__ __forceinline__ void put_norm_sum(float* scratch, int row, float square) {
    const float sum = warp_sum(square);
    if (threadIdx.x % 32 == 0) scratch[row * CONSUMER_WARPS + threadIdx.x / 32] = sum;
}

// 1 / sqrt(value) to the last bit or the one before, without the code for values that are not normal.
__device__ __forceinline__ float inverse_root(float value) {
    const float root = rsqrtf(value);
    return root * (1.5f - 0.5f * value * root * root);
}

// The factors 1 / sqrt(mean square + eps) of rows, made where they are used: beside the sums of products that they scale.
struct NormScales {
    const float* scratch;
    float width, eps;

    __device__ __forceinline__ float of(int row) const {
        const float sum = sum_over_warps(scratch + row * CONSUMER_WARPS, 1);
        return inverse_root(sum * (1.0f / width) + eps);
    }
};

// The greatest value and where it is: the lowest index wins a tie, and NaN counts as greatest (as NumPy's argmax),
// so that the result is always an index of the input.
struct Best {
    float value;
    u32 index;

    __device__ __forceinline__ void take(float v, u32 i) {
        const bool v_nan = v != v, nan = value != value;
        const bool better = v_nan != nan ? v_nan : (v_nan || v == value ? i < index : v > value);
        if (better) {
            value = v;
            index = i;
        }
    }
    // As `take`, where `i` is above all indices taken before, of which there is at least one.
    __device__ __forceinline__ void take_next(float v, u32 i) {
        if (!(v <= value) && value == value) {
            value = v;
            index = i;
        }
    }
    // The words of `task.argmax_part`: the value, and twice the index plus the value's lowest bit.
    __device__ __forceinline__ float part(int word) const {
        return word == 0 ? value : static_cast<float>(2 * index + (__float_as_uint(value) & 1u));
    }
};

constexpr u32 NO_INDEX = 0xffffffffu;

// The best over all consumers, known to all of them. `scratch` holds CONSUMER_WARPS entries. Contains one barrier; the
// next use of `scratch` must be behind another one.
__device__ __forceinline__ Best consumer_best(Best best, Best* scratch) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) {
        const float value = __shfl_xor_sync(~0u, best.value, distance);
        const u32 index = __shfl_xor_sync(~0u, best.index, distance);
        if (index != NO_INDEX) best.take(value, index);
    }
    if (lane == 0) scratch[warp] = best;
    consumer_barrier();
    best = scratch[0];
    for (int w = 1; w < CONSUMER_WARPS; ++w)
        if (scratch[w].index != NO_INDEX) best.take(scratch[w].value, scratch[w].index);
    return best;
}

// The best of this consumer's share of WIDTH values at a multiple of 16 bytes.
template <int WIDTH>
__device__ __forceinline__ Best share_best(const float* values) {
    constexpr int VECTORS = WIDTH / 4, ROUNDS = (VECTORS + CONSUMERS - 1) / CONSUMERS;
    constexpr int UNROLL = ROUNDS < 8 ? ROUNDS : 8;  // 32 values of a thread under way at a time
    const float4* vectors = reinterpret_cast<const float4*>(values);
    Best best = {__int_as_float(0xff800000), NO_INDEX};
    if constexpr (UNROLL > 0) {
        if (threadIdx.x < VECTORS) best = {values[threadIdx.x * 4], threadIdx.x * 4};
#pragma unroll 1
        for (int base = threadIdx.x; base < VECTORS; base += CONSUMERS * UNROLL) {
            float4 loaded[UNROLL];
#pragma unroll
            for (int u = 0; u < UNROLL; ++u)
                if (base + u * CONSUMERS < VECTORS) loaded[u] = vectors[base + u * CONSUMERS];
#pragma unroll
            for (int u = 0; u < UNROLL; ++u) {
                const int at = base + u * CONSUMERS;
                if (at < VECTORS) {
                    best.take_next(loaded[u].x, at * 4);
                    best.take_next(loaded[u].y, at * 4 + 1);
                    best.take_next(loaded[u].z, at * 4 + 2);
                    best.take_next(loaded[u].w, at * 4 + 3);
                }
            }
        }
    }
    for (int i = VECTORS * 4 + threadIdx.x; i < WIDTH; i += CONSUMERS) best.take(values[i], i);
    return best;
}

// The best of this consumer's share of PARTS parts of a row, each two words as of Best::part; part p begins at p * STRIDE.
template <int PARTS, int STRIDE>
__device__ __forceinline__ Best share_best_part(const float* parts) {
    Best best = {__int_as_float(0xff800000), NO_INDEX};
    for (int i = threadIdx.x; i < PARTS; i += CONSUMERS) {
        // tagged words have lost the lowest bit of the value
        const u32 coded = static_cast<u32>(parts[2 * i + 1]);
        best.take(__uint_as_float((__float_as_uint(parts[2 * i]) & ~1u) | (coded & 1u)), i * STRIDE + coded / 2);
    }
    return best;
}
