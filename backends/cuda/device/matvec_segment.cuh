// A product like `matvec`, made in segments along k: for more rows of activations than shared memory holds at a time.
// Between two segments of a task, others of its batch may be multiplied; its sums wait in shared memory as they are, so
// the result is that of `matvec` bit by bit.
#pragma once
#include "matvec.cuh"

// BLOCKS k blocks of one task, from the ring, with the activations of a segment that has room for SEGMENT blocks. kept: the
// task's sums, [number][thread]. After the last segment, the warps' partial sums go to `partial` as in `matvec`.
template <int GROUPS, int BLOCKS, int SEGMENT, int CHUNK, int ROWS, typename Reader>
__device__ __forceinline__ void matvec_segment(Reader& reader, Activations x, float4* kept, bool is_first, bool is_last,
                                               float* partial, Watch& watch, u32 operation) {
    Sums<GROUPS, ROWS> sums = {};
    if (!is_first) sums.load(kept);
    add_stages<BLOCKS, CHUNK>(sums, reader, LaneActivations<ROWS, activation_stride(SEGMENT)>(x), watch, operation);
    if (is_last) sums.put(partial);
    else sums.store(kept);
}
