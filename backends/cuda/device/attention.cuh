// Causal attention of one task over the KV cache with mma.m16n8k16: tiles of 16 or 8 positions are dealt to the warps,
// each with an online softmax, and the warps' results are merged in a fixed order.
//
// Scores: eight queries, split into bf16 hi + lo, are the m side (rows 0..7 and 8..15), eight positions the n side.
// Lane l gets query l / 4 and positions 2 * (l % 4) + {0, 1} of its sum, which is where the weights of these positions
// must lie as the n side of the second product: there the m side are 16 elements of the values. Lane l loads 8
// consecutive elements of a key or value at once; which elements and positions form one mma is free as long as both
// sides agree. An f32 cache is split into hi + lo as well.
#pragma once
#include "matvec.cuh"
#include "reduce.cuh"

constexpr float LOWEST = -3.0e38f;  // a score; finite: the difference of two of them is 0, not NaN

// Eight consecutive elements of a key or value, as they are stored.
template <typename KV>
struct Eight;
template <>
struct Eight<u16> {
    static constexpr int WORDS = 4, PARTS = 1;
    u32 word[4];
};
template <>
struct Eight<float> {
    static constexpr int WORDS = 8, PARTS = 2;
    float value[8];
};

// The low and high bf16 of a pair of f32; their sum is the pair.
struct SplitPair {
    u32 hi, lo;
};
__device__ __forceinline__ SplitPair split_pair(float first, float second) {
    const u32 a = to_bf16(first), b = to_bf16(second);
    const u32 c = to_bf16(first - __uint_as_float(a << 16)), d = to_bf16(second - __uint_as_float(b << 16));
    return {b << 16 | a, d << 16 | c};
}

// The elements at `from`, which are `at` to `at` + 7 of a row of DIM elements: zero beyond its end. A block of BLOCK
// elements is loaded by several lanes.
template <int DIM, int BLOCK>
__device__ __forceinline__ void load_eight(Eight<u16>& to, const u16* from, int at) {
    if constexpr (DIM % 8 == 0) {
        uint4 v = make_uint4(0, 0, 0, 0);
        if (DIM % BLOCK == 0 || at < DIM) v = *reinterpret_cast<const uint4*>(from);
        to.word[0] = v.x, to.word[1] = v.y, to.word[2] = v.z, to.word[3] = v.w;
    } else {
#pragma unroll
        for (int j = 0; j < 4; ++j)
            to.word[j] = at + 2 * j < DIM ? *reinterpret_cast<const u32*>(from + 2 * j) : 0;
    }
}
template <int DIM, int BLOCK>
__device__ __forceinline__ void load_eight(Eight<float>& to, const float* from, int at) {
    if constexpr (DIM % 8 == 0) {
#pragma unroll
        for (int j = 0; j < 8; j += 4) {
            float4 v = make_float4(0, 0, 0, 0);
            if (DIM % BLOCK == 0 || at < DIM) v = *reinterpret_cast<const float4*>(from + j);
            to.value[j] = v.x, to.value[j + 1] = v.y, to.value[j + 2] = v.z, to.value[j + 3] = v.w;
        }
    } else {
#pragma unroll
        for (int j = 0; j < 8; j += 2) {
            float2 v = make_float2(0, 0);
            if (at + j < DIM) v = *reinterpret_cast<const float2*>(from + j);
            to.value[j] = v.x, to.value[j + 1] = v.y;
        }
    }
}

// The n side of four k of a key, and the m side of one element of a value at two positions: hi, and lo for f32.
__device__ __forceinline__ void key_pairs(u32 (&pairs)[1][4], const Eight<u16>& key) {
#pragma unroll
    for (int j = 0; j < 4; ++j) pairs[0][j] = key.word[j];
}
__device__ __forceinline__ void key_pairs(u32 (&pairs)[2][4], const Eight<float>& key) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        const SplitPair split = split_pair(key.value[2 * j], key.value[2 * j + 1]);
        pairs[0][j] = split.hi, pairs[1][j] = split.lo;
    }
}
__device__ __forceinline__ void value_pair(u32 (&pair)[1], const Eight<u16>& first, const Eight<u16>& second, int e) {
    const u32 a = first.word[e / 2], b = second.word[e / 2];
    pair[0] = e % 2 ? (b & 0xffff0000u) | a >> 16 : b << 16 | (a & 0xffffu);
}
__device__ __forceinline__ void value_pair(u32 (&pair)[2], const Eight<float>& first, const Eight<float>& second,
                                           int e) {
    const SplitPair split = split_pair(first.value[e], second.value[e]);
    pair[0] = split.hi, pair[1] = split.lo;
}

// `value` of another lane, which may differ from lane to lane.
__device__ __forceinline__ float of_lane(float value, int lane) {
    return __shfl_xor_sync(~0u, value, static_cast<int>(threadIdx.x % 32) ^ lane);
}

// The tile of keys and values that a warp works on, in registers: 16 positions, or 8 where 16 take too many registers.
// Where 8 do as well (HELD is false), nothing is read ahead and `attention` loads what it needs. LOADS: 16-byte loads
// that a lane may have under way.
template <int DIM, int POSITION_STRIDE, int LOADS, typename KV>
struct CachedTile {
    static constexpr int KEY_BLOCKS = (DIM + 31) / 32, VALUE_BLOCKS = (DIM + 63) / 64;
    static constexpr int HALF_WORDS = (KEY_BLOCKS + 2 * VALUE_BLOCKS) * Eight<KV>::WORDS, MOST_WORDS = 4 * LOADS;
    static constexpr bool HELD = HALF_WORDS <= MOST_WORDS;
    static constexpr int HALVES = HELD && 2 * HALF_WORDS > MOST_WORDS ? 1 : 2;  // of 8 positions
    static constexpr int POSITIONS = 8 * HALVES;

    Eight<KV> key[HELD ? HALVES : 1][KEY_BLOCKS];
    Eight<KV> value[HELD ? 2 * HALVES : 1][VALUE_BLOCKS];
    int warp, lane;

    __device__ __forceinline__ CachedTile()
        : key{}, value{}, warp(threadIdx.x / 32), lane(threadIdx.x % 32) {}

    // Where this lane's elements of the keys and values of a head begin.
    __device__ __forceinline__ const KV* key_lane(const KV* keys) const { return keys + lane % 4 * 8; }
    __device__ __forceinline__ const KV* value_lane(const KV* values) const { return values + lane / 4 * 8; }
    // A position at or beyond `stop` is replaced by the last one before it, which has been written.
    __device__ __forceinline__ const KV* row(const KV* first, int position, int stop) const {
        return first + static_cast<u64>(position < stop ? position : stop - 1) * POSITION_STRIDE;
    }
    __device__ __forceinline__ const KV* key_row(const KV* first, int tile, int half, int stop) const {
        return row(first, tile * POSITIONS + half * 8 + lane / 4, stop);
    }
    __device__ __forceinline__ const KV* value_row(const KV* first, int tile, int r, int stop) const {
        return row(first, tile * POSITIONS + r / 2 * 8 + lane % 4 * 2 + r % 2, stop);
    }
    __device__ __forceinline__ void load_key(Eight<KV>& to, const KV* row, int block) const {
        load_eight<DIM, 32>(to, row + block * 32, block * 32 + lane % 4 * 8);
    }
    __device__ __forceinline__ void load_value(Eight<KV>& to, const KV* row, int block) const {
        load_eight<DIM, 64>(to, row + block * 64, block * 64 + lane / 4 * 8);
    }

    // Loads the tile with number `tile` if it begins before `stop`.
    __device__ __forceinline__ void load_keys(const KV* first, int tile, int stop) {
        if (!HELD || tile * POSITIONS >= stop) return;
#pragma unroll
        for (int half = 0; half < HALVES; ++half) {
            const KV* from = key_row(first, tile, half, stop);
#pragma unroll
            for (int block = 0; block < KEY_BLOCKS; ++block) load_key(key[half][block], from, block);
        }
    }
    __device__ __forceinline__ void load_values(const KV* first, int tile, int stop) {
        if (!HELD || tile * POSITIONS >= stop) return;
#pragma unroll
        for (int r = 0; r < 2 * HALVES; ++r) {
            const KV* from = value_row(first, tile, r, stop);
#pragma unroll
            for (int block = 0; block < VALUE_BLOCKS; ++block) load_value(value[r][block], from, block);
        }
    }

    // Loads the warp's first tile if it begins before `stop` and ends after `known`, up to where it has been loaded.
    __device__ __forceinline__ void load(const KV* keys, const KV* values, int known, int stop) {
        if (warp * POSITIONS + POSITIONS > known) {
            load_keys(key_lane(keys), warp, stop);
            load_values(value_lane(values), warp, stop);
        }
    }
};

// Queries whose results are merged together: bounds the scratch memory.
__device__ constexpr int attention_merged(int dim, int queries) {
    const int most = dim <= 64 ? 8 : dim <= 128 ? 4 : 2;
    return queries < most ? queries : most;
}
// Floats of scratch that `attention` needs.
__device__ constexpr int attention_scratch(int dim, int queries) {
    return CONSUMER_WARPS * attention_merged(dim, queries) * (dim + 2);
}

// queries: [ROWS][HEADS], activation_stride(KEY_BLOCKS) apart, multiplied by the scale and by log2(e). out: shared
// [ROWS][HEADS][DIM]. keys, values: this task's first kv head in global memory, `POSITION_STRIDE` and `HEAD_STRIDE`
// elements apart; row r sees positions 0 to pos + r. cached: its first tiles, up to pos + ROWS. `scratch`:
// attention_scratch(...) floats of shared memory. The caller's barrier makes the queries visible before; `out` is
// visible to all consumers on return.
template <int DIM, int HEADS, int KV_HEADS, int ROWS, int POSITION_STRIDE, int HEAD_STRIDE, int LOADS, typename KV>
__device__ __forceinline__ void attention(CachedTile<DIM, POSITION_STRIDE, LOADS, KV>& cached, const KV* keys,
                                          const KV* values, Activations queries, float* out, float* scratch, int pos) {
    using Cached = CachedTile<DIM, POSITION_STRIDE, LOADS, KV>;
    constexpr int HALVES = Cached::HALVES, POSITIONS = Cached::POSITIONS, KEY_BLOCKS = Cached::KEY_BLOCKS;
    // Without registers for a tile, each pass is for one block of the values, and computes the scores anew.
    constexpr int VALUE_BLOCKS = Cached::HELD ? Cached::VALUE_BLOCKS : 1;
    constexpr int VALUE_PASSES = Cached::HELD ? 1 : Cached::VALUE_BLOCKS, SPAN = Cached::HELD ? DIM : 64;
    constexpr int PARTS = Eight<KV>::PARTS;
    constexpr int STRIDE = activation_stride(KEY_BLOCKS);
    constexpr int SHARED_BY = HEADS / KV_HEADS;
    constexpr int QUERIES = SHARED_BY * ROWS;
    constexpr int BATCH = QUERIES < 8 ? QUERIES : 8, BATCHES = (QUERIES + 7) / 8, PASSES = KV_HEADS * BATCHES * VALUE_PASSES;
    constexpr int MERGED = attention_merged(DIM, QUERIES);
    const int warp = cached.warp, lane = cached.lane, quad = lane % 4;

#pragma unroll 1
    for (int pass = 0; pass < PASSES; ++pass) {
        const int kv = pass / VALUE_PASSES / BATCHES, first = pass / VALUE_PASSES % BATCHES * 8;
        const int first_block = pass % VALUE_PASSES;
        const KV* key_lane = cached.key_lane(keys + kv * HEAD_STRIDE);
        const KV* value_lane = cached.value_lane(values + kv * HEAD_STRIDE);
        const int last = first + 7 < QUERIES ? first + 7 : QUERIES - 1;
        // This lane's query; the last one stands for those that there are not.
        const int mine = first + lane / 4 < QUERIES ? first + lane / 4 : QUERIES - 1;
        const int visible = pos + mine / SHARED_BY, stop = pos + last / SHARED_BY + 1;
        const int at = ((mine / SHARED_BY) * HEADS + kv * SHARED_BY + mine % SHARED_BY) * STRIDE + quad * 8;
        float sum[VALUE_BLOCKS][4][4] = {}, most = LOWEST, weight = 0.0f;
#pragma unroll 1
        for (int tile = warp; tile * POSITIONS < stop; tile += CONSUMER_WARPS) {
            float score[HALVES][4] = {};
#pragma unroll(Cached::HELD ? KEY_BLOCKS : 1)
            for (int block = 0; block < KEY_BLOCKS; ++block) {
                const uint4 first = queries.four(at + block * 32), second = queries.four(at + block * 32 + 4);
#pragma unroll
                for (int half = 0; half < HALVES; ++half) {
                    u32 pairs[PARTS][4];
                    if constexpr (Cached::HELD) {
                        key_pairs(pairs, cached.key[half][block]);
                    } else {
                        Eight<KV> key;
                        cached.load_key(key, cached.key_row(key_lane, tile, half, stop), block);
                        key_pairs(pairs, key);
                    }
#pragma unroll
                    for (int part = 0; part < PARTS; ++part) {
                        mma(score[half], first, pairs[part][0], pairs[part][1]);
                        mma(score[half], second, pairs[part][2], pairs[part][3]);
                    }
                }
            }
            // The next keys are under way during the softmax and the product with the values, as the next values are
            // during the next scores.
            __syncwarp();  // else the compiler may move the loads further ahead, and spill
            cached.load_keys(key_lane, tile + CONSUMER_WARPS, stop);
            float greatest = most;
#pragma unroll
            for (int half = 0; half < HALVES; ++half) {
#pragma unroll
                for (int i = 0; i < 2; ++i) {
                    const int position = tile * POSITIONS + half * 8 + quad * 2 + i;
                    float& own = score[half][i];
                    own = position <= visible ? own + score[half][i + 2] : LOWEST;
                    greatest = fmaxf(greatest, own);
                }
            }
            greatest = fmaxf(greatest, __shfl_xor_sync(~0u, greatest, 1));
            greatest = fmaxf(greatest, __shfl_xor_sync(~0u, greatest, 2));
            const float shrink = exp2f(most - greatest);
            most = greatest;
            weight *= shrink;
            SplitPair weights[2] = {};
#pragma unroll
            for (int half = 0; half < HALVES; ++half) {
                const float a = score[half][0], b = score[half][1];
                const float p = a == LOWEST ? 0.0f : exp2f(a - greatest);
                const float q = b == LOWEST ? 0.0f : exp2f(b - greatest);
                weight += p + q;
                weights[half] = split_pair(p, q);
            }
            // The sums of this lane are those of queries 2 * quad and 2 * quad + 1.
            const float even = of_lane(shrink, quad * 8), odd = of_lane(shrink, quad * 8 + 4);
#pragma unroll
            for (int block = 0; block < VALUE_BLOCKS; ++block) {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    sum[block][j][0] *= even, sum[block][j][1] *= odd;
                    sum[block][j][2] *= even, sum[block][j][3] *= odd;
                }
            }
#pragma unroll
            for (int block = 0; block < VALUE_BLOCKS; ++block) {
                Eight<KV> value[2 * HALVES];
#pragma unroll
                for (int r = 0; r < 2 * HALVES; ++r) {
                    if constexpr (Cached::HELD)
                        value[r] = cached.value[r][block];
                    else
                        cached.load_value(value[r], cached.value_row(value_lane, tile, r, stop), first_block);
                }
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    u32 a[4][PARTS] = {};
#pragma unroll
                    for (int half = 0; half < HALVES; ++half) {
                        value_pair(a[2 * half], value[2 * half], value[2 * half + 1], 2 * j);
                        value_pair(a[2 * half + 1], value[2 * half], value[2 * half + 1], 2 * j + 1);
                    }
#pragma unroll
                    for (int part = 0; part < PARTS; ++part) {
                        const u32 a0 = a[0][part], a1 = a[1][part], a2 = a[2][part], a3 = a[3][part];
                        mma(sum[block][j], a0, a1, a2, a3, weights[0].hi, weights[1].hi);
                        mma(sum[block][j], a0, a1, a2, a3, weights[0].lo, weights[1].lo);
                    }
                }
            }
            __syncwarp();
            cached.load_values(value_lane, tile + CONSUMER_WARPS, stop);
        }
        weight += __shfl_xor_sync(~0u, weight, 1);
        weight += __shfl_xor_sync(~0u, weight, 2);
        if (pass + 1 < PASSES) {
            const int next = (pass + 1) / VALUE_PASSES / BATCHES * HEAD_STRIDE;
            cached = Cached();
            cached.load(keys + next, values + next, 0, pos + ROWS);
        }

#pragma unroll 1
        for (int merged = 0; merged < BATCH; merged += MERGED) {
            if (quad == 0 && lane / 4 >= merged && lane / 4 < merged + MERGED) {
                float* to = scratch + (warp * MERGED + lane / 4 - merged) * (DIM + 2) + DIM;
                to[0] = most, to[1] = weight;
            }
#pragma unroll
            for (int odd = 0; odd < 2; ++odd) {
                const int i = quad * 2 + odd - merged;
                float* to = scratch + (warp * MERGED + i) * (DIM + 2);
#pragma unroll
                for (int block = 0; block < VALUE_BLOCKS; ++block) {
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        const int d = (first_block + block) * 64 + lane / 4 * 8 + j * 2;
                        if (i >= 0 && i < MERGED && d < DIM)
                            *reinterpret_cast<float2*>(to + d) =
                                make_float2(sum[block][j][odd], sum[block][j][odd + 2]);
                    }
                }
            }
            consumer_barrier();
            for (int item = threadIdx.x; item < MERGED * SPAN; item += CONSUMERS) {
                const int i = item / SPAN, d = first_block * 64 + item % SPAN, n = first + merged + i;
                if (n >= QUERIES || d >= DIM) continue;
                float greatest = LOWEST, total = 0.0f, result = 0.0f;
#pragma unroll
                for (int w = 0; w < CONSUMER_WARPS; ++w)
                    greatest = fmaxf(greatest, scratch[(w * MERGED + i) * (DIM + 2) + DIM]);
#pragma unroll
                for (int w = 0; w < CONSUMER_WARPS; ++w) {
                    const float* part = scratch + (w * MERGED + i) * (DIM + 2);
                    const float factor = exp2f(part[DIM] - greatest);
                    result += part[d] * factor;
                    total += part[DIM + 1] * factor;
                }
                out[((n / SHARED_BY) * HEADS + kv * SHARED_BY + n % SHARED_BY) * DIM + d] = result / total;
            }
            consumer_barrier();
        }
    }
}
