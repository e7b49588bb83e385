// Causal attention of one task with mma.m16n8k16: earlier rows come through the ring, in groups of 16 positions as
// cache.cuh lays them out; those of the last group that is not whole, and this step's own, from the work area (the tail).
//
// Groups are dealt to teams of warps, so that nobody waits for another one before the end. Scores: eight queries, split into
// bf16 hi + lo, are the m side (rows 0..7 and 8..15), eight positions the n side. Lane l gets query l / 4 and positions
// 2 * (l % 4) + {0, 1} of eight, which is where the weights of these positions must lie as the n side of the second product:
// they stay in their registers. There the m side are 16 elements of the values, or ones, for the sum of the weights.
// Each team scales its sums to the greatest score that it has met (online softmax); in the end they are merged. A position
// is added by the same team, in the same order, however many rows a step has: so a row has the bits that it would have alone.
// An f32 cache is split into hi + lo as well.
#pragma once
#include "cache.cuh"
#include "matvec.cuh"
#include "reduce.cuh"

constexpr float LOWEST = -1.0e38f;  // what exponents are above; finite: the difference of two of them is 0, not NaN
constexpr float NEVER = -3.0e38f;   // an exponent that gives 0, even beside LOWEST
constexpr u32 ONES = 0x3f803f80;    // two bf16

// 2^exponent, to two units in the last place; 0 below 2^-126.
__device__ __forceinline__ float power_of_two(float exponent) {
    float power;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
    return power;
}

// 1 / value to the last bit or the one before; 0 where that is below 2^-126.
__device__ __forceinline__ float reciprocal(float value) {
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
    return result;
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
// those of its part if PARTS > 1. PARTS, BLOCK, CHUNK, TURNS: as of push_history, whose stages it consumes.
template <int DIM, int HEADS, int KV_HEADS, int ROWS, int PARTS, int BLOCK, int CHUNK, int TURNS, typename KV>
struct Attention {
    using Layout = CacheLayout<DIM>;
    using Own = Share<PARTS, BLOCK>;
    static constexpr int KEY_BLOCKS = Layout::KEY_BLOCKS, VALUE_BLOCKS = Layout::VALUE_BLOCKS;
    static constexpr int SHARED_BY = HEADS / KV_HEADS, QUERIES = SHARED_BY * ROWS;  // of a KV head
    static constexpr int BATCHES = (QUERIES + TURNS * 8 - 1) / (TURNS * 8);  // of eight queries, of a turn
    static constexpr int TAIL = ROWS > 1 ? 2 : 1;  // groups
    // A team takes every TEAMS-th group of positions, each of its warps BLOCKS blocks of the values.
    static constexpr int TEAMS = DIM <= 128 ? 8 : 2, TEAM_WARPS = CONSUMER_WARPS / TEAMS;
    static constexpr int BLOCKS = (VALUE_BLOCKS + TEAM_WARPS - 1) / TEAM_WARPS;
    static constexpr int SPLIT = Eight<KV>::SPLIT;
    static_assert(CHUNK <= TEAMS && TAIL <= TEAMS, "at most one group of a stage for each team");
    // Whether whoever wants a result merges the sums of the teams: where they are those of all queries.
    static constexpr bool IS_SINGLE = KV_HEADS * TURNS * BATCHES == 1;
    static constexpr int SLOTS = QUERIES < 8 ? (QUERIES + 1) / 2 * 2 : 8;  // for queries that are merged at a time

    // The work area, in bytes. Sums: [query][team][element]; what a warp writes together shares no banks.
    static constexpr int QUERY_STRIDE = activation_stride(KEY_BLOCKS), SUM_STRIDE = TEAMS * VALUE_BLOCKS * 16 + 4;
    static constexpr int TAIL_KEYS_AT = ROWS * HEADS * QUERY_STRIDE * 4;
    static constexpr int TAIL_KEYS = TAIL * Layout::KEY_GROUP, TAIL_VALUES = TAIL * Layout::VALUE_GROUP;
    static constexpr int TAIL_VALUES_AT = TAIL_KEYS_AT + KV_HEADS * TAIL_KEYS * sizeof(KV);
    static constexpr int MAXIMA_AT = TAIL_VALUES_AT + KV_HEADS * TAIL_VALUES * sizeof(KV);
    static constexpr int TOTALS_AT = MAXIMA_AT + SLOTS * TEAMS * 4;
    static constexpr int SUMS_AT = TOTALS_AT + SLOTS * TEAMS * 4;
    static constexpr int RESULTS_AT = SUMS_AT + SLOTS * SUM_STRIDE * 4;
    static constexpr int STATS_AT = RESULTS_AT + (IS_SINGLE ? 0 : ROWS * HEADS * DIM * 4);
    static constexpr int BYTES = STATS_AT + (IS_SINGLE ? 0 : ROWS * HEADS * 8);

    __device__ static __forceinline__ Activations queries(u8* work) { return activations(work); }
    __device__ static __forceinline__ KV* tail_keys(u8* work, int kv) {
        return reinterpret_cast<KV*>(work + TAIL_KEYS_AT) + kv * TAIL_KEYS;
    }
    __device__ static __forceinline__ KV* tail_values(u8* work, int kv) {
        return reinterpret_cast<KV*>(work + TAIL_VALUES_AT) + kv * TAIL_VALUES;
    }

    // One or four elements, from number `element` on, of a query (row times HEADS plus head), with the factor of its exponent.
    __device__ static __forceinline__ void put_query(u8* work, int query, int element, const float (&value)[1]) {
        queries(work).put(query * QUERY_STRIDE + element, value[0]);
    }
    __device__ static __forceinline__ void put_query(u8* work, int query, int element, const float (&value)[4]) {
        queries(work).put_four(query * QUERY_STRIDE + element, value);
    }
    // Likewise of the key or value at position pos + row, rounded as the cache would.
    template <int N>
    __device__ static __forceinline__ void put_key(u8* work, int pos, int row, int kv, int element,
                                                   const float (&value)[N]) {
        store_values(tail_keys(work, kv) + Layout::key(pos % GROUP + row, element), value);
    }
    template <int N>
    __device__ static __forceinline__ void put_value(u8* work, int pos, int row, int kv, int element,
                                                     const float (&value)[N]) {
        KV* const to = tail_values(work, kv) + Layout::value(pos % GROUP + row, element);
#pragma unroll
        for (int i = 0; i < N; ++i) store_value(to + i * 32, value[i]);
    }

    // The earlier rows of the tail, from the cache: under way from the constructor on, in the work area after `put`, with
    // zeros where there is no row: a weight of 0 does not make up for what is not a number. Nothing at or after `pos` is read,
    // and nothing at all for a part that has not the group of `pos`.
    struct TailLoads {
        static constexpr int VECTORS = TAIL_KEYS / 8, PAIRS = TAIL_VALUES / 2;
        static constexpr int KEY_LOADS = (VECTORS + CONSUMERS - 1) / CONSUMERS;
        static constexpr int PAIR_LOADS = (PAIRS + CONSUMERS - 1) / CONSUMERS;
        Eight<KV> key[KEY_LOADS];
        KV first[PAIR_LOADS], second[PAIR_LOADS];
        int known;  // rows

        // keys, values: of the head, from its first position on
        __device__ __forceinline__ TailLoads(const KV* keys, const KV* values, int pos, int part)
            : known(pos % GROUP) {
            const int rows = Own::has(pos / GROUP, part) ? known : 0;
            const KV* key_group = keys + static_cast<long long>(pos / GROUP) * Layout::KEY_GROUP;
            const KV* value_group = values + static_cast<long long>(pos / GROUP) * Layout::VALUE_GROUP;
#pragma unroll
            for (int n = 0; n < KEY_LOADS; ++n) {
                const int at = threadIdx.x + n * CONSUMERS;
                key[n].clear();
                if (key_row(at) < rows) key[n].load(key_group + at * 8);
            }
#pragma unroll
            for (int n = 0; n < PAIR_LOADS; ++n) {
                const int at = threadIdx.x + n * CONSUMERS, row = pair_row(at);
                first[n] = second[n] = 0;
                if (row < rows) first[n] = value_group[at * 2];
                if (row + 1 < rows) second[n] = value_group[at * 2 + 1];
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

    // What a lane brings and gets: its query is number l / 4 of each batch, its sums are of queries 2 * (l % 4) and + 1.
    struct Sums {
        int from[BATCHES], row[BATCHES];  // where its elements of the query begin; the query's row
        float most[BATCHES];              // the greatest exponent
        float total[BATCHES][4] = {};     // of the weights; the upper half is not used
        float product[BATCHES][BLOCKS][4] = {};

        // turn: number of the turn of all KV heads
        __device__ __forceinline__ explicit Sums(int turn, int lane) {
#pragma unroll
            for (int b = 0; b < BATCHES; ++b) {
                // the last query stands for those that there are not
                const int own = turn % TURNS * BATCHES * 8 + b * 8 + lane / 4, mine = own < QUERIES ? own : QUERIES - 1;
                row[b] = ROWS == 1 ? 0 : mine / SHARED_BY;
                from[b] = query_of(turn / TURNS, mine) * QUERY_STRIDE + lane % 4 * 8;
                most[b] = LOWEST;
            }
        }
    };
    // Number of the query (row times HEADS plus head) that is the n-th one of a KV head.
    __device__ static __forceinline__ int query_of(int kv, int n) {
        return ROWS == 1 ? kv * SHARED_BY + n : n / SHARED_BY * HEADS + kv * SHARED_BY + n % SHARED_BY;
    }

    // Of a lane's query of each batch, for positions 2 * (l % 4), + 1, + 8 and + 9 of a group.
    using Exponents = float[BATCHES][4];

    // What scores are added to: NEVER where the query does not see the position. Row 0 sees those up to `last` of the group.
    __device__ static __forceinline__ void hide(Exponents& hidden, const Sums& sums, int last, int quad) {
#pragma unroll
        for (int b = 0; b < BATCHES; ++b) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                hidden[b][i] = quad * 2 + i % 2 + i / 2 * 8 <= last + sums.row[b] ? 0.0f : NEVER;
        }
    }

    // The keys, and the values from block number `block` on, of a group of positions: in memory.
    struct RowsAt {
        const KV *keys, *values;
        __device__ __forceinline__ Eight<KV> key(int tile, int block, int lane) const {
            Eight<KV> key;
            key.load(keys + (tile * KEY_BLOCKS + block) * 256 + lane * 8);
            return key;
        }
        __device__ __forceinline__ Eight<KV> value(int block, int n, int lane) const {
            Eight<KV> value;
            value.clear();
            if (has_block(block, n)) value.load(values + (block + n) * 256 + lane * 8);
            return value;
        }
    };
    // A lane's share of them in registers: so they can be there before the queries are.
    struct HeldRows {
        Eight<KV> keys[2][KEY_BLOCKS], values[BLOCKS];
        __device__ __forceinline__ Eight<KV> key(int tile, int block, int) const { return keys[tile][block]; }
        __device__ __forceinline__ Eight<KV> value(int, int n, int) const { return values[n]; }

        __device__ __forceinline__ void load_keys(RowsAt from, int lane) {
#pragma unroll
            for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
                for (int block = 0; block < KEY_BLOCKS; ++block) keys[tile][block] = from.key(tile, block, lane);
            }
        }
        __device__ __forceinline__ void load_values(RowsAt from, int block, int lane) {
#pragma unroll
            for (int n = 0; n < BLOCKS; ++n) values[n] = from.value(block, n, lane);
        }
    };

    // A lane's share of its queries: in registers, where one batch of them leaves room for it.
    static constexpr bool HOLDS_QUERIES = BATCHES == 1 && DIM <= 64;
    struct Queries {
        Activations all;
        uint4 held[HOLDS_QUERIES ? KEY_BLOCKS : 1][2];

        __device__ __forceinline__ Queries(Activations from, const Sums& sums) : all(from) {
            if constexpr (HOLDS_QUERIES) {
#pragma unroll
                for (int block = 0; block < KEY_BLOCKS; ++block) {
#pragma unroll
                    for (int half = 0; half < 2; ++half) held[block][half] = load(sums, 0, block, half);
                }
            }
        }
        __device__ __forceinline__ uint4 load(const Sums& sums, int batch, int block, int half) const {
            return all.four(sums.from[batch] + block * 32 + half * 4);
        }
        __device__ __forceinline__ uint4 four(const Sums& sums, int batch, int block, int half) const {
            if constexpr (HOLDS_QUERIES) return held[block][half];
            return load(sums, batch, block, half);
        }
    };

    template <typename Rows>
    __device__ static __forceinline__ void score(Exponents& exponent, const Exponents& hidden, const Sums& sums,
                                                 const Rows& rows, const Queries& queries, int lane) {
#pragma unroll
        for (int b = 0; b < BATCHES; ++b) {
            float sum[2][2][4] = {{{hidden[b][0], hidden[b][1]}}, {{hidden[b][2], hidden[b][3]}}};
#pragma unroll
            for (int block = 0; block < KEY_BLOCKS; ++block) {
                const uint4 first = queries.four(sums, b, block, 0), second = queries.four(sums, b, block, 1);
#pragma unroll
                for (int tile = 0; tile < 2; ++tile) {
                    uint4 pairs[SPLIT];
                    rows.key(tile, block, lane).pairs(pairs);
#pragma unroll
                    for (int s = 0; s < SPLIT; ++s) {
                        mma(sum[tile][0], first, pairs[s].x, pairs[s].y);
                        mma(sum[tile][1], second, pairs[s].z, pairs[s].w);
                    }
                }
            }
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const float(&tile)[2][4] = sum[i / 2];
                exponent[b][i] = (tile[0][i % 2] + tile[0][i % 2 + 2]) + (tile[1][i % 2] + tile[1][i % 2 + 2]);
            }
        }
    }

    // The weights of a group of positions, as the n side wants them: hi, then lo. Scales the sums to the greatest exponent,
    // if they are not empty.
    __device__ static __forceinline__ void weigh(uint4 (&weights)[BATCHES], Sums& sums, bool is_empty, Exponents& exponents,
                                                 int lane) {
        const int quad = lane % 4;
#pragma unroll
        for (int b = 0; b < BATCHES; ++b) {
            float(&exponent)[4] = exponents[b];
            float most = fmaxf(fmaxf(exponent[0], exponent[1]), fmaxf(exponent[2], exponent[3]));
            most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
            most = fmaxf(fmaxf(most, sums.most[b]), __shfl_xor_sync(~0u, most, 2));
            if (!is_empty) {
                const float shrink = power_of_two(sums.most[b] - most);
                const float even = of_lane(shrink, quad * 8), odd = of_lane(shrink, quad * 8 + 4);
                sums.total[b][0] *= even, sums.total[b][1] *= odd;
#pragma unroll
                for (int n = 0; n < BLOCKS; ++n) scale(sums.product[b][n], even, odd);
            }
            sums.most[b] = most;
#pragma unroll
            for (int i = 0; i < 4; ++i) exponent[i] = power_of_two(exponent[i] - most);
            const SplitPair low = split_pair(exponent[0], exponent[1]), high = split_pair(exponent[2], exponent[3]);
            weights[b] = make_uint4(low.hi, high.hi, low.lo, high.lo);
        }
    }
    __device__ static __forceinline__ void scale(float (&sum)[4], float even, float odd) {
        sum[0] *= even, sum[1] *= odd, sum[2] *= even, sum[3] *= odd;
    }

    // Adds the values of a group of positions, of blocks from number `block` on, times the weights of their exponents.
    template <typename Rows>
    __device__ static __forceinline__ void add_values(Sums& sums, bool is_empty, Exponents& exponents, const Rows& rows,
                                                      int block, int lane) {
        Eight<KV> value[BLOCKS];
#pragma unroll
        for (int n = 0; n < BLOCKS; ++n) value[n] = rows.value(block, n, lane);
        uint4 weights[BATCHES];
        weigh(weights, sums, is_empty, exponents, lane);
        uint4 pairs[BLOCKS][SPLIT];
#pragma unroll
        for (int n = 0; n < BLOCKS; ++n) value[n].pairs(pairs[n]);
#pragma unroll
        for (int b = 0; b < BATCHES; ++b) {
            const uint4 ones = make_uint4(ONES, ONES, ONES, ONES), w = weights[b];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const u32 low = half == 0 ? w.x : w.z, high = half == 0 ? w.y : w.w;
#pragma unroll
                for (int s = 0; s < SPLIT; ++s) {
#pragma unroll
                    for (int n = 0; n < BLOCKS; ++n) mma(sums.product[b][n], pairs[n][s], low, high);
                }
                mma(sums.total[b], ones, low, high);
            }
        }
    }
    // Whether there is a block number block + n.
    __device__ static __forceinline__ bool has_block(int block, int n) {
        return VALUE_BLOCKS == TEAM_WARPS * BLOCKS || block + n < VALUE_BLOCKS;
    }

    // Puts the sums of batch `b`, of blocks from number `block` on, where `Merged` finds them.
    __device__ static __forceinline__ void put_sums(u8* work, const Sums& sums, int b, int team, int block, int lane) {
        const int quad = lane % 4, slot = lane / 4;
        float* const maxima = reinterpret_cast<float*>(work + MAXIMA_AT);
        float* const totals = reinterpret_cast<float*>(work + TOTALS_AT);
        if (block == 0 && quad == 0 && slot < SLOTS) maxima[slot * TEAMS + team] = sums.most[b];
        if (quad * 2 >= SLOTS) return;
        float* const to = reinterpret_cast<float*>(work + SUMS_AT) + quad * 2 * SUM_STRIDE +
                          (team * VALUE_BLOCKS + block) * 16 + lane / 4;
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
            if (block == 0 && lane < 4) totals[(quad * 2 + odd) * TEAMS + team] = sums.total[b][odd];
#pragma unroll
            for (int n = 0; n < BLOCKS; ++n) {
                if (!has_block(block, n)) continue;
                to[odd * SUM_STRIDE + n * 16] = sums.product[b][n][odd];
                to[odd * SUM_STRIDE + n * 16 + 8] = sums.product[b][n][odd + 2];
            }
        }
    }

    // The sums of all teams for the query in `slot`.
    struct Merged {
        float most, total, factor[TEAMS];
        const float* from;

        __device__ __forceinline__ Merged(const u8* work, int slot)
            : from(reinterpret_cast<const float*>(work + SUMS_AT) + slot * SUM_STRIDE) {
            const float2* const maxima = reinterpret_cast<const float2*>(work + MAXIMA_AT) + slot * TEAMS / 2;
            const float2* const totals = reinterpret_cast<const float2*>(work + TOTALS_AT) + slot * TEAMS / 2;
#pragma unroll
            for (int t = 0; t < TEAMS; t += 2) {
                const float2 two = maxima[t / 2];
                factor[t] = two.x, factor[t + 1] = two.y;
                most = t == 0 ? fmaxf(two.x, two.y) : fmaxf(most, fmaxf(two.x, two.y));
            }
#pragma unroll
            for (int t = 0; t < TEAMS; t += 2) {
                const float2 two = totals[t / 2];
                factor[t] = power_of_two(factor[t] - most), factor[t + 1] = power_of_two(factor[t + 1] - most);
                const float sum = two.x * factor[t] + two.y * factor[t + 1];
                total = t == 0 ? sum : total + sum;
            }
        }
        // Elements `element`, a multiple of 2, and the next one of the sum of the values, each times its weight.
        __device__ __forceinline__ float2 products(int element) const {
            float2 sum = make_float2(0.0f, 0.0f);
#pragma unroll
            for (int t = 0; t < TEAMS; ++t) {
                const float2 two = *reinterpret_cast<const float2*>(from + t * VALUE_BLOCKS * 16 + element);
                sum.x += two.x * factor[t], sum.y += two.y * factor[t];
            }
            return sum;
        }
    };

    // Computes everything, from queries and tail in the work area that a barrier has made visible; what follows reads it
    // after the next barrier.
    template <typename Reader>
    __device__ static __forceinline__ void run(u8* work, Reader& reader, int pos, int part, Watch& watch, u32 operation) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const int team = warp / TEAM_WARPS, block = warp % TEAM_WARPS * BLOCKS;
        const int open = pos / GROUP;  // the first group of the tail
        const int own = Own::count(open, part), all = PARTS == 1 ? own + TAIL : Own::count(open + TAIL, part);

#pragma unroll 1
        for (int turn = 0; turn < KV_HEADS * TURNS; ++turn) {
            Sums sums(turn, lane);
            const Queries queries(activations(work), sums);
            Exponents exponents, hidden = {};
            int number = team;  // of the team's next group of the part
            // a stage of keys and one of values, and last the tail, as if it were one
#pragma unroll 1
            for (int first = 0;; first += CHUNK) {
                const bool is_tail = first >= own;
                const int end = is_tail ? all : CHUNK == TEAMS || first + CHUNK > own ? own : first + CHUNK;
                const bool mine = number < end;
                const int group = is_tail ? Own::group(number, part) - open : number - first;
                RowsAt rows = tail(work, turn / TURNS, group);
                if (is_tail) {
                    if (!mine) break;
                    hide(hidden, sums, pos % GROUP - group * GROUP, lane % 4);
                } else {
                    rows.keys = acquire(reader, watch, operation) + group * Layout::KEY_GROUP;
                }
                if (mine) score(exponents, hidden, sums, rows, queries, lane);
                if (!is_tail) {
                    reader.release();
                    rows.values = acquire(reader, watch, operation) + group * Layout::VALUE_GROUP;
                }
                if (mine) {
                    add_values(sums, number < TEAMS, exponents, rows, block, lane);
                    number += TEAMS;
                }
                if (is_tail) break;
                reader.release();
            }
            if constexpr (IS_SINGLE) {
                put_sums(work, sums, 0, team, block, lane);
            } else {
#pragma unroll
                for (int b = 0; b < BATCHES; ++b) {
                    put_sums(work, sums, b, team, block, lane);
                    consumer_barrier();
                    merge(work, turn / TURNS, turn % TURNS * BATCHES * 8 + b * 8);
                    consumer_barrier();
                }
            }
        }
    }
    __device__ static __forceinline__ RowsAt tail(u8* work, int kv, int group) {
        return {tail_keys(work, kv) + group * Layout::KEY_GROUP, tail_values(work, kv) + group * Layout::VALUE_GROUP};
    }

    // The team's group of the first stages of keys and values, if there are any, for `run_early`.
    template <typename Reader>
    __device__ static __forceinline__ void load_first(HeldRows& rows, Reader& reader, int pos, int part, Watch& watch,
                                                      u32 operation) {
        load_round(rows, reader, 0, Own::count(pos / GROUP, part), watch, operation);
    }
    // Groups from number `first` on, one of each team, of the `own` groups of the part: each team's to its registers.
    template <typename Reader>
    __device__ static __forceinline__ void load_round(HeldRows& rows, Reader& reader, int first, int own, Watch& watch,
                                                      u32 operation) {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, block = warp % TEAM_WARPS * BLOCKS;
        const int number = first + warp / TEAM_WARPS;
        const int end = own < first + TEAMS ? own : first + TEAMS;
#pragma unroll 1
        for (; first < end; first += CHUNK) {
            const bool mine = number >= first && number < (first + CHUNK < end ? first + CHUNK : end);
            RowsAt from = {acquire(reader, watch, operation) + (number - first) * Layout::KEY_GROUP, nullptr};
            if (mine) rows.load_keys(from, lane);
            reader.release();
            from.values = acquire(reader, watch, operation) + (number - first) * Layout::VALUE_GROUP;
            if (mine) rows.load_values(from, block, lane);
            reader.release();
        }
    }
    // As `run`, after `load_first`; for few queries of one KV head, whose sums leave registers for a group of positions.
    template <typename Reader>
    __device__ static __forceinline__ void run_early(u8* work, HeldRows& rows, Reader& reader, int pos, int part,
                                                     Watch& watch, u32 operation) {
        static_assert(IS_SINGLE && TEAMS % CHUNK == 0, "a round has a group of each team");
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        const int team = warp / TEAM_WARPS, block = warp % TEAM_WARPS * BLOCKS;
        const int open = pos / GROUP;
        const int own = Own::count(open, part), all = PARTS == 1 ? own + TAIL : Own::count(open + TAIL, part);

        Sums sums(0, lane);
        const Queries queries(activations(work), sums);
        Exponents exponents, hidden = {};
        int number = team;
#pragma unroll 1
        for (int first = 0;; first += TEAMS) {
            const bool is_tail = first >= own, mine = number < (is_tail ? all : own);
            if (is_tail) {
                if (!mine) break;
                const int group = Own::group(number, part) - open;
                hide(hidden, sums, pos % GROUP - group * GROUP, lane % 4);
                rows.load_keys(tail(work, 0, group), lane);
                rows.load_values(tail(work, 0, group), block, lane);
            } else if (first > 0) {
                load_round(rows, reader, first, own, watch, operation);
            }
            if (mine) {
                score(exponents, hidden, sums, rows, queries, lane);
                add_values(sums, number < TEAMS, exponents, rows, block, lane);
                number += TEAMS;
            }
            if (is_tail) break;
        }
        put_sums(work, sums, 0, team, block, lane);
    }
    template <typename Reader>
    __device__ static __forceinline__ const KV* acquire(Reader& reader, Watch& watch, u32 operation) {
        return reinterpret_cast<const KV*>(reader.acquire(watch, operation));
    }
    // Merges the sums of the queries of a KV head that are in the slots, of which the first one is number `first`.
    __device__ static __forceinline__ void merge(u8* work, int kv, int first) {
        float* const results = reinterpret_cast<float*>(work + RESULTS_AT);
        float2* const stats = reinterpret_cast<float2*>(work + STATS_AT);
#pragma unroll 1
        for (int i = threadIdx.x; i < SLOTS * (DIM / 2); i += CONSUMERS) {
            const int slot = i / (DIM / 2), element = i % (DIM / 2) * 2;
            if (first + slot < QUERIES) {
                const int query = query_of(kv, first + slot);
                const Merged merged(work, slot);
                *reinterpret_cast<float2*>(results + query * DIM + element) = merged.products(element);
                if (element == 0) stats[query] = make_float2(merged.most, merged.total);
            }
        }
    }

    // The sum of the values, each times its weight: elements `element`, a multiple of 2, and the next one.
    __device__ static __forceinline__ float2 products(const u8* work, int query, int element) {
        if constexpr (IS_SINGLE) return Merged(work, query).products(element);
        return *reinterpret_cast<const float2*>(work + RESULTS_AT + (query * DIM + element) * 4);
    }
    __device__ static __forceinline__ float product(const u8* work, int query, int element) {
        return of_two(products(work, query, element / 2 * 2), element);
    }
    // Elements `element`, a multiple of 2, and the next one of the attention of a query.
    __device__ static __forceinline__ float2 results(const u8* work, int query, int element) {
        const float2 sum = products(work, query, element);
        const float factor = reciprocal(stat(work, query, 1));
        return make_float2(sum.x * factor, sum.y * factor);
    }
    __device__ static __forceinline__ float result(const u8* work, int query, int element) {
        return of_two(results(work, query, element / 2 * 2), element);
    }
    __device__ static __forceinline__ float of_two(float2 two, int element) { return element % 2 == 0 ? two.x : two.y; }
    // The second result of `task.attention_part`.
    __device__ static __forceinline__ float stat(const u8* work, int query, int which) {
        if constexpr (IS_SINGLE) {
            const Merged merged(work, query);
            return which == 0 ? merged.most : merged.total;
        }
        return reinterpret_cast<const float*>(work + STATS_AT)[query * 2 + which];
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
