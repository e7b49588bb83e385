// bf16 <-> f32, written out: the toolkit's cuda_bf16.h is not available to NVRTC without a toolkit.
#pragma once
#include "types.cuh"

__device__ __forceinline__ float from_bf16(u16 bits) { return __uint_as_float(static_cast<u32>(bits) << 16); }

// Two f32, the first one in the lower half; round to nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ u32 to_bf16x2(float first, float second) {
    u32 pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
// Half of a pair: the instruction that converts a single one is slow.
__device__ __forceinline__ u16 to_bf16(float value) { return static_cast<u16>(to_bf16x2(value, 0.0f)); }

// The high and low bf16 of a pair of f32; their sum is nearly the pair.
struct SplitPair {
    u32 hi, lo;
};
__device__ __forceinline__ SplitPair split_pair(float first, float second) {
    const u32 hi = to_bf16x2(first, second);
    return {hi, to_bf16x2(first - __uint_as_float(hi << 16), second - __uint_as_float(hi & 0xffff0000u))};
}

__device__ __forceinline__ float load_value(const float* address) { return *address; }
__device__ __forceinline__ float load_value(const u16* address) { return from_bf16(*address); }
// Four neighbours at a multiple of four.
__device__ __forceinline__ void load_values(float* to, const float* address) {
    const float4 v = *reinterpret_cast<const float4*>(address);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
__device__ __forceinline__ void load_values(float* to, const u16* address) {
    const uint2 two = *reinterpret_cast<const uint2*>(address);
    to[0] = __uint_as_float(two.x << 16), to[1] = __uint_as_float(two.x & 0xffff0000u);
    to[2] = __uint_as_float(two.y << 16), to[3] = __uint_as_float(two.y & 0xffff0000u);
}
__device__ __forceinline__ void store_value(float* address, float value) { *address = value; }
__device__ __forceinline__ void store_value(u16* address, float value) { *address = to_bf16(value); }
__device__ __forceinline__ void store_values(float* address, const float (&value)[1]) { store_value(address, value[0]); }
__device__ __forceinline__ void store_values(u16* address, const float (&value)[1]) { store_value(address, value[0]); }
__device__ __forceinline__ void store_values(float* address, const float (&value)[4]) {
    *reinterpret_cast<float4*>(address) = make_float4(value[0], value[1], value[2], value[3]);
}
__device__ __forceinline__ void store_values(u16* address, const float (&value)[4]) {
    *reinterpret_cast<uint2*>(address) = make_uint2(to_bf16x2(value[0], value[1]), to_bf16x2(value[2], value[3]));
}

// SiLU in f32: x / (1 + e^-x), with the accurate exponential; the quotient is good to two units in the last place.
__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.0f + expf(-x)); }

// The sum of the PARTS parts of an element, from the first to the last: of vectors of VECTOR elements, which come part by part.
template <int PARTS, int VECTOR>
__device__ __forceinline__ float sum_of_parts(const float* parts, int element) {
    const float* first = parts + element / VECTOR * PARTS * VECTOR + element % VECTOR;
    float sum = first[0];
#pragma unroll
    for (int p = 1; p < PARTS; ++p) sum += first[p * VECTOR];
    return sum;
}
