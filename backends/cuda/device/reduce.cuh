// Reductions over the consumers in a fixed order, so that every run and every SM computes the same bits.
#pragma once
#include "types.cuh"

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) value += __shfl_xor_sync(~0u, value, distance);
    return value;
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
    for (int i = 0; i < N; ++i) {
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < CONSUMER_WARPS; ++w) sum += scratch[i * CONSUMER_WARPS + w];
        values[i] = sum;
    }
}

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
};

constexpr u32 NO_INDEX = 0xffffffffu;

// The best over all consumers, known to thread 0. `scratch` holds CONSUMER_WARPS entries. Contains one barrier.
__device__ __forceinline__ Best consumer_best(Best best, Best* scratch) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int distance = 16; distance > 0; distance >>= 1) {
        const float value = __shfl_xor_sync(~0u, best.value, distance);
        const u32 index = __shfl_xor_sync(~0u, best.index, distance);
        if (index != NO_INDEX) best.take(value, index);
    }
    if (lane == 0) scratch[warp] = best;
    consumer_barrier();
    if (threadIdx.x == 0)
        for (int w = 1; w < CONSUMER_WARPS; ++w)
            if (scratch[w].index != NO_INDEX) best.take(scratch[w].value, scratch[w].index);
    return best;
}
