// A product like `matvec`, made in segments along k: for more rows of activations than shared memory holds at a time.
// Between two segments of a task, others of its batch may be multiplied; its sums wait in shared memory as they are, so
// the result is that of `matvec` bit by bit.
#pragma once
#include "matvec.cuh"

// BLOCKS k blocks of one task, from the ring, with the activations of a segment that has room for SEGMENT blocks. kept: the
// task's sums, [group and chain][thread]. After the last segment, the warps' partial sums go to `partial` as in `matvec`.
template <int GROUPS, int BLOCKS, int SEGMENT, int CHUNK, int ROWS, typename Reader>
__device__ __forceinline__ void matvec_segment(Reader& reader, Activations x, float4* kept, bool is_first, bool is_last,
                                               float* partial, Watch& watch, u32 operation) {
    constexpr int CHAINS = GROUPS < 4 ? 2 : 1;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int token = lane / 4, quad = lane % 4;
    const int at = (token < ROWS ? token : ROWS - 1) * activation_stride(SEGMENT) + warp * 32 + quad * 8;
    float sums[GROUPS][CHAINS][4] = {};
    if (!is_first) {
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) {
#pragma unroll
            for (int c = 0; c < CHAINS; ++c) {
                const float4 v = kept[(g * CHAINS + c) * CONSUMERS + threadIdx.x];
                sums[g][c][0] = v.x, sums[g][c][1] = v.y, sums[g][c][2] = v.z, sums[g][c][3] = v.w;
            }
        }
    }
    add_stages<BLOCKS, CHUNK>(sums, reader, x, at, watch, operation);
    if (!is_last) {
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) {
#pragma unroll
            for (int c = 0; c < CHAINS; ++c)
                kept[(g * CHAINS + c) * CONSUMERS + threadIdx.x] =
                    make_float4(sums[g][c][0], sums[g][c][1], sums[g][c][2], sums[g][c][3]);
        }
    } else {
        put_sums<ROWS>(sums, partial);
    }
}
