// Causal attention of one task over the KV cache: positions are dealt to the warps, each with an online softmax, and
// the warps' results are merged in a fixed order. Lanes share a head's elements.
#pragma once
#include "convert.cuh"
#include "reduce.cuh"

__device__ constexpr int attention_elements(int dim) { return dim <= 32 ? 1 : dim <= 64 ? 2 : dim <= 128 ? 4 : 8; }
// Queries handled together, so that their accumulators stay in registers.
__device__ constexpr int attention_queries(int dim, int queries) {
    const int most = 32 / attention_elements(dim) < 8 ? 32 / attention_elements(dim) : 8;
    return queries < most ? queries : most;
}
// Positions loaded together: bounded by the registers of their elements and of their scores.
__device__ constexpr int attention_unroll(int elements, int queries) {
    const int most = 16 / elements < 8 ? 16 / elements : 8;
    return 16 / queries < most ? 16 / queries : most;
}
// Floats of scratch that `attention` needs.
__device__ constexpr int attention_scratch(int dim, int queries) {
    return CONSUMER_WARPS * attention_queries(dim, queries) * (dim + 2);
}

// Elements lane * E to + E - 1 of a vector of DIM; zero beyond its end.
template <int DIM, int E>
__device__ __forceinline__ void load_slice(float (&out)[E], const float* vector, int lane) {
    if constexpr (DIM % E == 0 && E >= 2) {
        const bool inside = lane * E < DIM;
#pragma unroll
        for (int e = 0; e < E; e += (E == 2 ? 2 : 4)) {
            if constexpr (E == 2) {
                const float2 v = inside ? *reinterpret_cast<const float2*>(vector + lane * E) : make_float2(0, 0);
                out[0] = v.x, out[1] = v.y;
            } else {
                const float4 v =
                    inside ? *reinterpret_cast<const float4*>(vector + lane * E + e) : make_float4(0, 0, 0, 0);
                out[e] = v.x, out[e + 1] = v.y, out[e + 2] = v.z, out[e + 3] = v.w;
            }
        }
    } else {
#pragma unroll
        for (int e = 0; e < E; ++e) out[e] = lane * E + e < DIM ? vector[lane * E + e] : 0.0f;
    }
}

template <int DIM, int E>
__device__ __forceinline__ void load_slice(float (&out)[E], const u16* vector, int lane) {
    if constexpr (DIM % E == 0 && E >= 2) {
        const bool inside = lane * E < DIM;
        const u32* words = reinterpret_cast<const u32*>(vector + lane * E);
        u32 pair[E / 2];
        if constexpr (E == 2) {
            pair[0] = inside ? words[0] : 0;
        } else if constexpr (E == 4) {
            const uint2 v = inside ? *reinterpret_cast<const uint2*>(words) : make_uint2(0, 0);
            pair[0] = v.x, pair[1] = v.y;
        } else {
            const uint4 v = inside ? *reinterpret_cast<const uint4*>(words) : make_uint4(0, 0, 0, 0);
            pair[0] = v.x, pair[1] = v.y, pair[2] = v.z, pair[3] = v.w;
        }
#pragma unroll
        for (int e = 0; e < E; e += 2) {
            out[e] = __uint_as_float(pair[e / 2] << 16);
            out[e + 1] = __uint_as_float(pair[e / 2] & 0xffff0000u);
        }
    } else {
#pragma unroll
        for (int e = 0; e < E; ++e) out[e] = lane * E + e < DIM ? from_bf16(vector[lane * E + e]) : 0.0f;
    }
}

// q, out: shared [ROWS][HEADS][DIM]; keys, values: this task's first kv head in global memory, `POSITION_STRIDE` and
// `HEAD_STRIDE` elements apart; row r sees positions 0 to pos + r. `scratch`: attention_scratch(...) floats of shared
// memory. The caller's barrier makes q visible before; `out` is visible to all consumers on return.
template <int DIM, int HEADS, int KV_HEADS, int ROWS, int POSITION_STRIDE, int HEAD_STRIDE, typename KV>
__device__ __forceinline__ void attention(const KV* keys, const KV* values, const float* q, float* out, float* scratch,
                                          int pos, float scale) {
    constexpr int E = attention_elements(DIM);
    constexpr int SHARED_BY = HEADS / KV_HEADS;
    constexpr int QUERIES = SHARED_BY * ROWS;
    constexpr int BATCH = attention_queries(DIM, QUERIES);
    constexpr int UNROLL = attention_unroll(E, BATCH);
    constexpr float LOWEST = -3.0e38f;  // finite: the difference of two of them is 0, not NaN
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

    for (int kv = 0; kv < KV_HEADS; ++kv) {
        const KV* key_head = keys + kv * HEAD_STRIDE;
        const KV* value_head = values + kv * HEAD_STRIDE;
        for (int first = 0; first < QUERIES; first += BATCH) {
            float query[BATCH][E], sum[BATCH][E], most[BATCH], weight[BATCH];
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                most[i] = LOWEST;
                weight[i] = 0.0f;
                const int n = first + i < QUERIES ? first + i : QUERIES - 1;
                load_slice<DIM, E>(query[i], q + ((n / SHARED_BY) * HEADS + kv * SHARED_BY + n % SHARED_BY) * DIM,
                                   lane);
#pragma unroll
                for (int e = 0; e < E; ++e) sum[i][e] = 0.0f, query[i][e] *= scale;
            }
            const int last_row = (first + BATCH - 1 < QUERIES ? first + BATCH - 1 : QUERIES - 1) / SHARED_BY;
            const int stop = pos + last_row + 1;
            for (int base = warp * UNROLL; base < stop; base += CONSUMER_WARPS * UNROLL) {
                float key[UNROLL][E], value[UNROLL][E];
#pragma unroll
                for (int u = 0; u < UNROLL; ++u) {
                    // A clamped load is always inside the part of the cache that has been written.
                    const int position = base + u < stop ? base + u : stop - 1;
                    load_slice<DIM, E>(key[u], key_head + static_cast<u64>(position) * POSITION_STRIDE, lane);
                    load_slice<DIM, E>(value[u], value_head + static_cast<u64>(position) * POSITION_STRIDE, lane);
                }
#pragma unroll
                for (int i = 0; i < BATCH; ++i) {
                    const int visible = pos + (first + i) / SHARED_BY;
                    float score[UNROLL], greatest = most[i];
#pragma unroll
                    for (int u = 0; u < UNROLL; ++u) {
                        float dot = 0.0f;
#pragma unroll
                        for (int e = 0; e < E; ++e) dot += query[i][e] * key[u][e];
                        score[u] = warp_sum(dot);
                        if (base + u > visible) score[u] = LOWEST;
                        greatest = fmaxf(greatest, score[u]);
                    }
                    const float shrink = expf(most[i] - greatest);
                    most[i] = greatest;
                    weight[i] *= shrink;
#pragma unroll
                    for (int e = 0; e < E; ++e) sum[i][e] *= shrink;
#pragma unroll
                    for (int u = 0; u < UNROLL; ++u) {
                        const float p = base + u > visible ? 0.0f : expf(score[u] - greatest);
                        weight[i] += p;
#pragma unroll
                        for (int e = 0; e < E; ++e) sum[i][e] += p * value[u][e];
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < BATCH; ++i) {
                float* mine = scratch + (warp * BATCH + i) * (DIM + 2);
#pragma unroll
                for (int e = 0; e < E; ++e)
                    if (lane * E + e < DIM) mine[lane * E + e] = sum[i][e];
                if (lane == 0) {
                    mine[DIM] = most[i];
                    mine[DIM + 1] = weight[i];
                }
            }
            consumer_barrier();
            for (int at = threadIdx.x; at < BATCH * DIM; at += CONSUMERS) {
                const int i = at / DIM, d = at % DIM, n = first + i;
                float greatest = LOWEST, total = 0.0f, result = 0.0f;
#pragma unroll
                for (int w = 0; w < CONSUMER_WARPS; ++w)
                    greatest = fmaxf(greatest, scratch[(w * BATCH + i) * (DIM + 2) + DIM]);
#pragma unroll
                for (int w = 0; w < CONSUMER_WARPS; ++w) {
                    const float* part = scratch + (w * BATCH + i) * (DIM + 2);
                    const float factor = expf(part[DIM] - greatest);
                    result += part[d] * factor;
                    total += part[DIM + 1] * factor;
                }
                if (n < QUERIES)
                    out[((n / SHARED_BY) * HEADS + kv * SHARED_BY + n % SHARED_BY) * DIM + d] = result / total;
            }
            consumer_barrier();
        }
    }
}
