// Causal attention of one task with mma.m16n8k16: earlier rows come through the ring, in groups of 16 positions as
// cache.cuh lays them out; those of the last group that is not whole, and this step's own, from the work area (the tail).
//
// Scores: eight queries, split into bf16 hi + lo, are the m side (rows 0..7 and 8..15), eight positions the n side; each
// warp takes every eighth tile of eight positions. Lane l gets query l / 4 and positions 2 * (l % 4) + {0, 1} of a tile's
// sums, which is where the weights of these positions must lie as the n side of the second product. There the m side
// are 16 elements of the values, each warp takes its own elements for all positions, so nothing is summed over warps.
// A pass handles up to PASS groups; between passes, sums are scaled to the new greatest score (online softmax).
// An f32 cache is split into hi + lo as well.
#pragma once
#include "cache.cuh"
#include "matvec.cuh"
#include "reduce.cuh"

constexpr float LOWEST = -3.0e38f;  // an exponent; finite: the difference of two of them is 0, not NaN

// 2^exponent, to two units in the last place; 0 below 2^-126.
__device__ __forceinline__ float power_of_two(float exponent) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
    return power;
}

// Eight consecutive elements of a cache as they are stored, 16 or 32 bytes.
template <typename KV>
struct Eight;
template <>
struct Eight<u16> {
    static constexpr int SPLIT = 1;
    uint4 word;
    __device__ __forceinline__ void load(const u16* from) { word = *reinterpret_cast<const uint4*>(from); }
    __device__ __forceinline__ void store(u16* to) const { *reinterpret_cast<uint4*>(to) = word; }
    __device__ __forceinline__ void clear() { word = make_uint4(0, 0, 0, 0); }
    __device__ __forceinline__ void pairs(uint4 (&to)[1]) const { to[0] = word; }
};

template <>
struct Eight<float> {
    static constexpr int SPLIT = 2;
    float4 first, second;
    __device__ __forceinline__ void load(const float* from) {
        first = *reinterpret_cast<const float4*>(from), second = *reinterpret_cast<const float4*>(from + 4);
    }
    __device__ __forceinline__ void store(float* to) const {
        *reinterpret_cast<float4*>(to) = first, *reinterpret_cast<float4*>(to + 4) = second;
    }
    __device__ __forceinline__ void clear() { first = second = make_float4(0, 0, 0, 0); }
    __device__ __forceinline__ void pairs(uint4 (&to)[2]) const {
        const SplitPair a = split_pair(first.x, first.y), b = split_pair(first.z, first.w);
        const SplitPair c = split_pair(second.x, second.y), d = split_pair(second.z, second.w);
        to[0] = make_uint4(a.hi, b.hi, c.hi, d.hi), to[1] = make_uint4(a.lo, b.lo, c.lo, d.lo);
    }
};

// `value` of another lane, which may differ from lane to lane.
__device__ __forceinline__ float of_lane(float value, int lane) {
    return __shfl_xor_sync(~0u, value, static_cast<int>(threadIdx.x % 32) ^ lane);
}

// One attention: HEADS queries of ROWS rows and KV_HEADS heads of a cache of KV elements; row r sees positions 0 to pos + r,
// those of its part if PARTS > 1. PARTS, BLOCK, CHUNK, PASS: as of push_history, whose stages it consumes.
template <int DIM, int HEADS, int KV_HEADS, int ROWS, int PARTS, int BLOCK, int CHUNK, int PASS, typename KV>
struct Attention {
    using Layout = CacheLayout<DIM>;
    using Own = Share<PARTS, BLOCK>;
    static constexpr int KEY_BLOCKS = Layout::KEY_BLOCKS, VALUE_BLOCKS = Layout::VALUE_BLOCKS;
    static constexpr int SHARED_BY = HEADS / KV_HEADS, QUERIES = SHARED_BY * ROWS, BATCHES = (QUERIES + 7) / 8;
    static constexpr int TAIL = ROWS > 1 ? 2 : 1;                             // groups
    static constexpr int STAGES = PASS / CHUNK, SLOTS = (2 * CHUNK + 7) / 8;  // of the keys of a pass; tiles of a warp a stage
    static constexpr int TILES = (VALUE_BLOCKS + 7) / 8;                      // blocks of values of a warp
    static constexpr int SHARES = VALUE_BLOCKS > 4 ? 1 : 8 / VALUE_BLOCKS;    // warps that share the positions of a block
    static constexpr int CHAINS = BATCHES * TILES > 2 ? 1 : 2;                // sums that do not wait for each other
    static constexpr int SPLIT = Eight<KV>::SPLIT;

    // The work area, in bytes.
    static constexpr int QUERY_STRIDE = activation_stride(KEY_BLOCKS);
    static constexpr int TAIL_KEYS_AT = ROWS * HEADS * QUERY_STRIDE * 4;
    static constexpr int TAIL_KEYS = TAIL * Layout::KEY_GROUP, TAIL_VALUES = TAIL * Layout::VALUE_GROUP;
    static constexpr int TAIL_VALUES_AT = TAIL_KEYS_AT + KV_HEADS * TAIL_KEYS * sizeof(KV);
    static constexpr int WEIGHTS_AT = TAIL_VALUES_AT + KV_HEADS * TAIL_VALUES * sizeof(KV);
    static constexpr int MAXIMA_AT = WEIGHTS_AT + BATCHES * (PASS + TAIL) * 32 * 16;
    static constexpr int SUMS_AT = MAXIMA_AT + BATCHES * 8 * CONSUMER_WARPS * 4;
    static constexpr int TOTALS_AT = SUMS_AT + BATCHES * 8 * CONSUMER_WARPS * 4;
    static constexpr int RESULTS_AT = TOTALS_AT + (ROWS * HEADS * 2 + 3) / 4 * 16;
    static constexpr int BYTES = RESULTS_AT + ROWS * HEADS * SHARES * DIM * 4;

    __device__ static __forceinline__ Activations queries(u8* work) { return activations(work); }
    __device__ static __forceinline__ KV* tail_keys(u8* work, int kv) {
        return reinterpret_cast<KV*>(work + TAIL_KEYS_AT) + kv * TAIL_KEYS;
    }
    __device__ static __forceinline__ KV* tail_values(u8* work, int kv) {
        return reinterpret_cast<KV*>(work + TAIL_VALUES_AT) + kv * TAIL_VALUES;
    }

    // Element `element` of a query (row times HEADS plus head), with the factor of its exponent applied.
    __device__ static __forceinline__ void put_query(u8* work, int query, int element, float value) {
        queries(work).put(query * QUERY_STRIDE + element, value);
    }
    // Element `element` of the key or value at position pos + row, rounded as the cache would.
    __device__ static __forceinline__ void put_key(u8* work, int pos, int row, int kv, int element, float value) {
        store_value(tail_keys(work, kv) + Layout::key(pos % GROUP + row, element), value);
    }
    __device__ static __forceinline__ void put_value(u8* work, int pos, int row, int kv, int element, float value) {
        store_value(tail_values(work, kv) + Layout::value(pos % GROUP + row, element), value);
    }

    // The earlier rows of the tail, from the cache: under way from the constructor on, in the work area after `put`, with
    // zeros where there is no row: a weight of 0 does not make up for what is not a number. Nothing at or after `pos` is read.
    struct TailLoads {
        static constexpr int VECTORS = TAIL_KEYS / 8, PAIRS = TAIL_VALUES / 2;
        static constexpr int KEY_LOADS = (VECTORS + CONSUMERS - 1) / CONSUMERS;
        static constexpr int PAIR_LOADS = (PAIRS + CONSUMERS - 1) / CONSUMERS;
        Eight<KV> key[KEY_LOADS];
        KV first[PAIR_LOADS], second[PAIR_LOADS];
        int known;  // rows

        // keys, values: of the head, from its first position on
        __device__ __forceinline__ TailLoads(const KV* keys, const KV* values, int pos) : known(pos % GROUP) {
            const KV* key_group = keys + static_cast<long long>(pos / GROUP) * Layout::KEY_GROUP;
            const KV* value_group = values + static_cast<long long>(pos / GROUP) * Layout::VALUE_GROUP;
#pragma unroll
            for (int n = 0; n < KEY_LOADS; ++n) {
                const int at = threadIdx.x + n * CONSUMERS;
                key[n].clear();
                if (key_row(at) < known) key[n].load(key_group + at * 8);
            }
#pragma unroll
            for (int n = 0; n < PAIR_LOADS; ++n) {
                const int at = threadIdx.x + n * CONSUMERS, row = pair_row(at);
                first[n] = second[n] = 0;
                if (row < known) first[n] = value_group[at * 2];
                if (row + 1 < known) second[n] = value_group[at * 2 + 1];
            }
        }
        __device__ static __forceinline__ int key_row(int vector) {
            return vector / (KEY_BLOCKS * 32) * 8 + vector % 32 / 4;
        }
        __device__ static __forceinline__ int pair_row(int pair) {
            return pair / (VALUE_BLOCKS * 128) * GROUP + pair / 4 % 4 * 2 + pair % 4 / 2 * 8;
        }
        __device__ __forceinline__ bool is_new(int row) const { return row >= known && row < known + ROWS; }

        __device__ __forceinline__ void put(u8* work, int kv) const {
#pragma unroll
            for (int n = 0; n < KEY_LOADS; ++n) {
                const int at = threadIdx.x + n * CONSUMERS;
                KV* to = tail_keys(work, kv) + at * 8;
                if (at < VECTORS && !is_new(key_row(at))) key[n].store(to);
                if (DIM % 32 != 0 && at < VECTORS && is_new(key_row(at))) {
                    // nobody else writes what is beyond the end of a row
#pragma unroll
                    for (int i = 0; i < 8; ++i)
                        if (key_element(at) + i >= DIM) to[i] = 0;
                }
            }
#pragma unroll
            for (int n = 0; n < PAIR_LOADS; ++n) {
                const int at = threadIdx.x + n * CONSUMERS, row = pair_row(at);
                KV* to = tail_values(work, kv) + at * 2;
                const bool padding = DIM % 16 != 0 && pair_element(at) >= DIM;
                if (at < PAIRS && (!is_new(row) || padding)) to[0] = first[n];
                if (at < PAIRS && (!is_new(row + 1) || padding)) to[1] = second[n];
            }
        }
        __device__ static __forceinline__ int key_element(int vector) { return vector / 32 % KEY_BLOCKS * 32 + vector % 4 * 8; }
        __device__ static __forceinline__ int pair_element(int pair) {
            return pair / 128 % VALUE_BLOCKS * 16 + pair / 16 % 8 + pair % 2 * 8;
        }
    };

    // The exponents of this lane's query of each batch, for positions 2 * quad and 2 * quad + 1 of the eight whose keys begin
    // at `keys`. at: where its queries begin.
    __device__ static __forceinline__ void add_tile(float (&exponent)[BATCHES][2], const KV* keys, Activations queries,
                                                    const int (&at)[BATCHES], int lane) {
        float sum[BATCHES][2][4] = {};
#pragma unroll
        for (int block = 0; block < KEY_BLOCKS; ++block) {
            Eight<KV> key;
            key.load(keys + block * 256 + lane * 8);
            uint4 pairs[SPLIT];
            key.pairs(pairs);
#pragma unroll
            for (int b = 0; b < BATCHES; ++b) {
                const uint4 first = queries.four(at[b] + block * 32), second = queries.four(at[b] + block * 32 + 4);
#pragma unroll
                for (int s = 0; s < SPLIT; ++s) {
                    mma(sum[b][0], first, pairs[s].x, pairs[s].y);
                    mma(sum[b][1], second, pairs[s].z, pairs[s].w);
                }
            }
        }
#pragma unroll
        for (int b = 0; b < BATCHES; ++b) {
#pragma unroll
            for (int i = 0; i < 2; ++i)
                exponent[b][i] = (sum[b][0][i] + sum[b][0][i + 2]) + (sum[b][1][i] + sum[b][1][i + 2]);
        }
    }

    // Turns exponents of a tile into weights, adds them to `sum`, and puts them where the products find them.
    __device__ static __forceinline__ void put_weights(float (&exponent)[BATCHES][2], const float (&most)[BATCHES],
                                                       float (&sum)[BATCHES], u32* weights, int tile, int lane) {
#pragma unroll
        for (int b = 0; b < BATCHES; ++b) {
            float p[2];
#pragma unroll
            for (int i = 0; i < 2; ++i) p[i] = exponent[b][i] == LOWEST ? 0.0f : power_of_two(exponent[b][i] - most[b]);
            sum[b] += p[0] + p[1];
            const SplitPair split = split_pair(p[0], p[1]);
            u32* to = weights + ((b * (PASS + TAIL) + tile / 2) * 32 + lane) * 4 + tile % 2;
            to[0] = split.hi, to[2] = split.lo;
        }
    }

    // Adds the values of group number `number` of the pass, which begin at `values`, times their weights.
    __device__ static __forceinline__ void add_values(float (&sum)[BATCHES][TILES][CHAINS][4], const KV* values,
                                                      const u32* weights, int number, int block, int lane) {
        uint4 w[BATCHES];
#pragma unroll
        for (int b = 0; b < BATCHES; ++b)
            w[b] = reinterpret_cast<const uint4*>(weights)[(b * (PASS + TAIL) + number) * 32 + lane];
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile) {
            if (block + tile * CONSUMER_WARPS < VALUE_BLOCKS) {
                Eight<KV> value;
                value.load(values + (block + tile * CONSUMER_WARPS) * 256 + lane * 8);
                uint4 pairs[SPLIT];
                value.pairs(pairs);
#pragma unroll
                for (int b = 0; b < BATCHES; ++b) {
#pragma unroll
                    for (int s = 0; s < SPLIT; ++s) {
                        mma(sum[b][tile][0], pairs[s], w[b].x, w[b].y);
                        mma(sum[b][tile][CHAINS - 1], pairs[s], w[b].z, w[b].w);
                    }
                }
            }
        }
    }

    __device__ static __forceinline__ float greatest_of(const float* eight) {
        const float4 a = *reinterpret_cast<const float4*>(eight), b = *reinterpret_cast<const float4*>(eight + 4);
        return fmaxf(fmaxf(fmaxf(a.x, a.y), fmaxf(a.z, a.w)), fmaxf(fmaxf(b.x, b.y), fmaxf(b.z, b.w)));
    }
    __device__ static __forceinline__ float sum_of(const float* eight) {
        const float4 a = *reinterpret_cast<const float4*>(eight), b = *reinterpret_cast<const float4*>(eight + 4);
        return ((a.x + a.y) + (a.z + a.w)) + ((b.x + b.y) + (b.z + b.w));
    }

    // Computes everything, from queries and tail in the work area that a barrier has made visible; `result` reads it after
    // the next barrier.
    template <typename Reader>
    __device__ static __forceinline__ void run(u8* work, Reader& reader, int pos, int part, Watch& watch, u32 operation) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, quad = lane % 4;
        const int block = SHARES == 1 ? warp : warp % VALUE_BLOCKS, share = SHARES == 1 ? 0 : warp / VALUE_BLOCKS;
        u32* const weights = reinterpret_cast<u32*>(work + WEIGHTS_AT);
        float* const maxima = reinterpret_cast<float*>(work + MAXIMA_AT);
        float* const sums = reinterpret_cast<float*>(work + SUMS_AT);
        const int open = pos / GROUP;  // the first group of the tail
        const int own = Own::count(open, part);

#pragma unroll 1
        for (int kv = 0; kv < KV_HEADS; ++kv) {
            int at[BATCHES], row[BATCHES];
            float most[BATCHES], total[BATCHES];
            float product[BATCHES][TILES][CHAINS][4] = {};
#pragma unroll
            for (int b = 0; b < BATCHES; ++b) {
                // This lane's query; the last one stands for those that there are not.
                const int mine = b * 8 + lane / 4 < QUERIES ? b * 8 + lane / 4 : QUERIES - 1;
                row[b] = mine / SHARED_BY;
                at[b] = (row[b] * HEADS + kv * SHARED_BY + mine % SHARED_BY) * QUERY_STRIDE + quad * 8;
                most[b] = LOWEST, total[b] = 0.0f;
            }
            int first = 0;
            do {
                const int groups = own - first < PASS ? own - first : PASS;
                const bool is_last = own - first <= PASS;
                float exponent[STAGES][SLOTS][BATCHES][2], last_exponent[BATCHES][2];
                float greatest[BATCHES];
#pragma unroll
                for (int b = 0; b < BATCHES; ++b) greatest[b] = most[b];

#pragma unroll
                for (int s = 0; s < STAGES; ++s) {
                    if (s * CHUNK < groups) {
                        const KV* keys = reinterpret_cast<const KV*>(reader.acquire(watch, operation));
#pragma unroll
                        for (int slot = 0; slot < SLOTS; ++slot) {
                            const int tile = slot * CONSUMER_WARPS + warp;
                            if (tile < 2 * CHUNK && tile < 2 * (groups - s * CHUNK)) {
                                add_tile(exponent[s][slot], keys + tile * (KEY_BLOCKS * 256), queries(work), at, lane);
#pragma unroll
                                for (int b = 0; b < BATCHES; ++b)
                                    greatest[b] = fmaxf(greatest[b], fmaxf(exponent[s][slot][b][0], exponent[s][slot][b][1]));
                            }
                        }
                        reader.release();
                    }
                }
                // Tiles go to the warps in turn, the tail's as if they were earlier ones: so a position is added by the same
                // warp however many rows a step has.
                const int tail_tile = (warp - 2 * own) & (CONSUMER_WARPS - 1);
                const bool has_tail = is_last && tail_tile < 2 * TAIL;
                if (has_tail) {
                    add_tile(last_exponent, tail_keys(work, kv) + tail_tile * (KEY_BLOCKS * 256), queries(work), at, lane);
                    const bool mine = Own::has(open + tail_tile / 2, part);
#pragma unroll
                    for (int b = 0; b < BATCHES; ++b) {
#pragma unroll
                        for (int i = 0; i < 2; ++i) {
                            const int position = open * GROUP + tail_tile * 8 + quad * 2 + i;
                            if (!mine || position > pos + row[b]) last_exponent[b][i] = LOWEST;
                            greatest[b] = fmaxf(greatest[b], last_exponent[b][i]);
                        }
                    }
                }
#pragma unroll
                for (int b = 0; b < BATCHES; ++b) {
                    greatest[b] = fmaxf(greatest[b], __shfl_xor_sync(~0u, greatest[b], 1));
                    greatest[b] = fmaxf(greatest[b], __shfl_xor_sync(~0u, greatest[b], 2));
                    if (quad == 0) maxima[(b * 8 + lane / 4) * CONSUMER_WARPS + warp] = greatest[b];
                }
                consumer_barrier();

                float shrink[BATCHES], sum[BATCHES] = {};
#pragma unroll
                for (int b = 0; b < BATCHES; ++b) {
                    const float now = greatest_of(maxima + (b * 8 + lane / 4) * CONSUMER_WARPS);
                    shrink[b] = power_of_two(most[b] - now);
                    most[b] = now;
                }
#pragma unroll
                for (int s = 0; s < STAGES; ++s) {
#pragma unroll
                    for (int slot = 0; slot < SLOTS; ++slot) {
                        const int tile = slot * CONSUMER_WARPS + warp;
                        if (tile < 2 * CHUNK && tile < 2 * (groups - s * CHUNK))
                            put_weights(exponent[s][slot], most, sum, weights, 2 * s * CHUNK + tile, lane);
                    }
                }
                if (has_tail) put_weights(last_exponent, most, sum, weights, 2 * PASS + tail_tile, lane);
#pragma unroll
                for (int b = 0; b < BATCHES; ++b) {
                    sum[b] += __shfl_xor_sync(~0u, sum[b], 1);
                    sum[b] += __shfl_xor_sync(~0u, sum[b], 2);
                    if (quad == 0) sums[(b * 8 + lane / 4) * CONSUMER_WARPS + warp] = sum[b];
                }
                consumer_barrier();

#pragma unroll
                for (int b = 0; b < BATCHES; ++b) {
                    total[b] = total[b] * shrink[b] + sum_of(sums + (b * 8 + lane / 4) * CONSUMER_WARPS);
                    if (first > 0) {
                        // The sums of this lane are those of queries 2 * quad and 2 * quad + 1.
                        const float even = of_lane(shrink[b], quad * 8), odd = of_lane(shrink[b], quad * 8 + 4);
#pragma unroll
                        for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
                            for (int c = 0; c < CHAINS; ++c) {
                                product[b][tile][c][0] *= even, product[b][tile][c][1] *= odd;
                                product[b][tile][c][2] *= even, product[b][tile][c][3] *= odd;
                            }
                        }
                    }
                }
#pragma unroll 1
                for (int s = 0; s * CHUNK < groups; ++s) {
                    const KV* values = reinterpret_cast<const KV*>(reader.acquire(watch, operation));
#pragma unroll
                    for (int n = 0; n < CHUNK; ++n) {
                        const bool mine = share < SHARES && (first + s * CHUNK + n) % SHARES == share;
                        if (mine && s * CHUNK + n < groups)
                            add_values(product, values + n * Layout::VALUE_GROUP, weights, s * CHUNK + n, block, lane);
                    }
                    reader.release();
                }
                if (is_last) {
#pragma unroll
                    for (int n = 0; n < TAIL; ++n) {
                        if (share < SHARES && (own + n) % SHARES == share)
                            add_values(product, tail_values(work, kv) + n * Layout::VALUE_GROUP, weights, PASS + n, block, lane);
                    }
                }
                first += PASS;
            } while (first < own);

            float* const results = reinterpret_cast<float*>(work + RESULTS_AT);
            float2* const totals = reinterpret_cast<float2*>(work + TOTALS_AT);
#pragma unroll
            for (int b = 0; b < BATCHES; ++b) {
                if (warp == 0 && quad == 0 && b * 8 + lane / 4 < QUERIES)
                    totals[query_of(kv, b * 8 + lane / 4)] = make_float2(most[b], total[b]);
#pragma unroll
                for (int odd = 0; odd < 2; ++odd) {
                    const int n = b * 8 + quad * 2 + odd;
                    if (n < QUERIES && share < SHARES) {
#pragma unroll
                        for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
                            for (int high = 0; high < 2; ++high) {
                                const int d = (block + tile * CONSUMER_WARPS) * 16 + high * 8 + lane / 4;
                                float value = product[b][tile][0][odd + 2 * high];
                                if (CHAINS == 2) value += product[b][tile][1][odd + 2 * high];
                                if (d < DIM) results[(query_of(kv, n) * SHARES + share) * DIM + d] = value;
                            }
                        }
                    }
                }
            }
        }
    }
    // Number of the query (row times HEADS plus head) that is the n-th one of a KV head.
    __device__ static __forceinline__ int query_of(int kv, int n) {
        return n / SHARED_BY * HEADS + kv * SHARED_BY + n % SHARED_BY;
    }

    // The sum of the values, each times its weight.
    __device__ static __forceinline__ float product(const u8* work, int query, int element) {
        const float* from = reinterpret_cast<const float*>(work + RESULTS_AT) + query * SHARES * DIM + element;
        float sum = 0.0f;
#pragma unroll
        for (int s = 0; s < SHARES; ++s) sum += from[s * DIM];
        return sum;
    }
    // Element `element` of the attention of a query.
    __device__ static __forceinline__ float result(const u8* work, int query, int element) {
        return __fdividef(product(work, query, element), reinterpret_cast<const float2*>(work + TOTALS_AT)[query].y);
    }
    // The second result of `task.attention_part`.
    __device__ static __forceinline__ float stat(const u8* work, int query, int which) {
        return reinterpret_cast<const float*>(work + TOTALS_AT)[query * 2 + which];
    }
};

// An element of `task.attention_merge` from PARTS parts: its sums, SUM_STRIDE apart, and the pairs of its query.
template <int PARTS, int SUM_STRIDE, int STAT_STRIDE>
__device__ __forceinline__ float merged_attention(const float* sums, const float* stats) {
    float most = LOWEST, sum = 0.0f, total = 0.0f;
#pragma unroll 16
    for (int p = 0; p < PARTS; ++p) most = fmaxf(most, stats[p * STAT_STRIDE]);
#pragma unroll 16
    for (int p = 0; p < PARTS; ++p) {
        const float factor = power_of_two(stats[p * STAT_STRIDE] - most);
        sum += sums[p * SUM_STRIDE] * factor;
        total += stats[p * STAT_STRIDE + 1] * factor;
    }
    return __fdividef(sum, total);
}
