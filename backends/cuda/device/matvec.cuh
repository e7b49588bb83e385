// Matrix times up to eight vectors with mma.m16n8k16.
//
// Weights lie in fragment order, [k block of 32][group of 8 rows][8 rows][32 k] bf16: lane l holds row l / 4, elements
// (l % 4) * 8 to + 7 of a block, with one conflict-free 16-byte shared load. The order of k inside a block is free as
// long as both sides agree: of these eight elements, 0, 1, 4, 5 and 2, 3, 6, 7 are called a half.
// Activations are split into bf16 hi + lo; the sum of both products has the precision of nearly f32 activations.
//
// Up to two vectors: weights are the m side, the first half of a row as rows 0..7, the second one as rows 8..15, in the registers
// that they were loaded to; a vector has four columns of the n side, hi and lo of each half. So one mma and eight bytes of
// activations a lane do for a fragment; the products of unequal halves are not used.
// More vectors: the weights' halves are the n side of two mma, the vectors the m side, hi in rows 0..7 and lo in rows 8..15.
// Either way the same products are added in the same order, of tasks of up to 64 rows.
//
// A phase of a small model is a chain of dependent instructions of few warps, so their number counts: operands are loaded
// as mma takes them, and all sizes are constants.
#pragma once
#include "convert.cuh"
#include "reduce.cuh"
#include "ring.cuh"

// Elements from one row of split activations to the next: two rows that are read together never share banks.
__device__ constexpr int activation_stride(int k_blocks) { return k_blocks * 32 + 4; }

// Split activations in shared memory, 16 bytes for four neighbours: {hi 0, hi 1, lo 0, lo 1, hi 2, hi 3, lo 2, lo 3}, which
// is the m side of one mma.
struct Activations {
    u16* memory;

    __device__ __forceinline__ u16* hi(int at) const { return memory + at / 4 * 8 + at % 4 / 2 * 4 + at % 2; }
    __device__ __forceinline__ void put(int at, float value) const {
        u16* to = hi(at);
        const u16 high = to_bf16(value);
        to[0] = high;
        to[2] = to_bf16(value - from_bf16(high));
    }
    // Two neighbours at a multiple of 2.
    __device__ __forceinline__ void put_two(int at, float first, float second) const {
        const SplitPair pair = split_pair(first, second);
        *reinterpret_cast<uint2*>(memory + at * 2) = make_uint2(pair.hi, pair.lo);
    }
    // Four neighbours at a multiple of 4.
    __device__ __forceinline__ void put_four(int at, const float* value) const {
        const SplitPair low = split_pair(value[0], value[1]), high = split_pair(value[2], value[3]);
        *reinterpret_cast<uint4*>(memory + at * 2) = make_uint4(low.hi, low.lo, high.hi, high.lo);
    }
    // Four neighbours as the m side.
    __device__ __forceinline__ uint4 four(int at) const { return *reinterpret_cast<const uint4*>(memory + at * 2); }
    // While rms_norm waits for its sum, the same 32 bits hold the value itself: read back by the thread that wrote it.
    __device__ __forceinline__ void put_raw(int at, float value) const {
        const u32 bits = __float_as_uint(value);
        u16* to = hi(at);
        to[0] = static_cast<u16>(bits >> 16);
        to[2] = static_cast<u16>(bits);
    }
    __device__ __forceinline__ float get_raw(int at) const {
        const u16* from = hi(at);
        return __uint_as_float(static_cast<u32>(from[0]) << 16 | from[2]);
    }
};

__device__ __forceinline__ void mma(float (&sum)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

__device__ __forceinline__ void mma(float (&sum)[4], uint4 a, u32 b0, u32 b1) { mma(sum, a.x, a.y, a.z, a.w, b0, b1); }

// The activations that a lane brings: those of ROWS vectors, STRIDE elements apart, of its warp's block of every eight.
template <int ROWS, int STRIDE>
struct LaneActivations {
    static constexpr bool ARE_COLUMNS = ROWS <= 2;  // of the n side
    using Operand = u32[ARE_COLUMNS ? 2 : 8];       // registers of one column, or of the m side for each half

    const u32* from;  // of block 0

    __device__ __forceinline__ explicit LaneActivations(Activations x) {
        const u32 warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        // What stands for no vector holds the last one: its sums are not used.
        const u32 mine = ARE_COLUMNS ? lane / 16 : lane / 4, vector = mine < ROWS ? mine : ROWS - 1;
        const u32 column = ARE_COLUMNS ? lane / 4 % 4 : 0;  // hi, lo of the first half, of the second one
        from = reinterpret_cast<const u32*>(x.memory) + (vector * STRIDE + warp * 32 + lane % 4 * 8 + column);
    }
    __device__ __forceinline__ void load(Operand& operand, int block) const {
        const u32* at = from + block * CONSUMER_WARPS * 32;
        if constexpr (ARE_COLUMNS) {
            operand[0] = at[0], operand[1] = at[4];
        } else {
            const uint4 low = reinterpret_cast<const uint4*>(at)[0], high = reinterpret_cast<const uint4*>(at)[1];
            operand[0] = low.x, operand[1] = low.y, operand[2] = high.x, operand[3] = high.y;
            operand[4] = low.z, operand[5] = low.w, operand[6] = high.z, operand[7] = high.w;
        }
    }
    __device__ __forceinline__ void skip(int blocks) { from += blocks * 32; }
};

// Sums of a thread that wait in shared memory, [number][thread], for more products.
template <int N>
__device__ __forceinline__ void load_sums(float (&sum)[N][4], const float4* kept) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
        const float4 v = kept[n * CONSUMERS + threadIdx.x];
        sum[n][0] = v.x, sum[n][1] = v.y, sum[n][2] = v.z, sum[n][3] = v.w;
    }
}
template <int N>
__device__ __forceinline__ void store_sums(const float (&sum)[N][4], float4* kept) {
#pragma unroll
    for (int n = 0; n < N; ++n) kept[n * CONSUMERS + threadIdx.x] = make_float4(sum[n][0], sum[n][1], sum[n][2], sum[n][3]);
}

// A warp's sums of one task: GROUPS * 8 weight rows times ROWS vectors.
template <int GROUPS, int ROWS>
struct Sums {
    static constexpr bool ARE_COLUMNS = ROWS <= 2;
    static constexpr int CHAINS = GROUPS == 1 ? 2 : 1;  // blocks in turn, whose sums do not wait for each other
    static constexpr int HALVES = ARE_COLUMNS || GROUPS > 8 ? 1 : 2;  // that are kept apart, as far as there are registers
    static constexpr int COUNT = GROUPS * CHAINS * HALVES;
    float sum[COUNT][4];

    __device__ __forceinline__ void load(const float4* kept) { load_sums(sum, kept); }
    __device__ __forceinline__ void store(float4* kept) const { store_sums(sum, kept); }

    template <typename Operand>
    __device__ __forceinline__ void add(int group, int block, uint4 weights, const Operand& x) {
        const int at = (group * CHAINS + block % CHAINS) * HALVES;
        if constexpr (ARE_COLUMNS) {
            mma(sum[at], weights, x[0], x[1]);
        } else {
            mma(sum[at], x[0], x[1], x[2], x[3], weights.x, weights.z);
            mma(sum[at + HALVES - 1], x[4], x[5], x[6], x[7], weights.y, weights.w);
        }
    }

    // A lane's sums of its vector, if it has one, to partial[warp][vector][row].
    __device__ __forceinline__ void put(float* partial) const {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, quad = lane % 4;
        if constexpr (ARE_COLUMNS) {
            float* out = partial + (warp * ROWS + quad / 2) * GROUPS * 8 + lane / 4;
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) {
                // the first half is in even lanes, the second one in odd lanes
                float first = 0.0f, second = 0.0f;
#pragma unroll
                for (int c = 0; c < CHAINS; ++c) {
                    const float* four = sum[g * CHAINS + c];
                    first = c == 0 ? four[0] + four[1] : first + (four[0] + four[1]);
                    second = c == 0 ? four[2] + four[3] : second + (four[2] + four[3]);
                }
                const float value = first + __shfl_xor_sync(~0u, second, 1);
                if (quad % 2 == 0 && quad / 2 < ROWS) out[g * 8] = value;
            }
        } else {
            const int vector = lane / 4;
            float2* out = reinterpret_cast<float2*>(partial + (warp * ROWS + vector) * GROUPS * 8) + quad;
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) {
                float even = 0.0f, odd = 0.0f;
#pragma unroll
                for (int half = 0; half < HALVES; ++half) {
                    float first = 0.0f, second = 0.0f;
#pragma unroll
                    for (int c = 0; c < CHAINS; ++c) {
                        const float* four = sum[(g * CHAINS + c) * HALVES + half];
                        first = c == 0 ? four[0] + four[2] : first + (four[0] + four[2]);
                        second = c == 0 ? four[1] + four[3] : second + (four[1] + four[3]);
                    }
                    even = half == 0 ? first : even + first, odd = half == 0 ? second : odd + second;
                }
                if (vector < ROWS) out[g * 4] = make_float2(even, odd);
            }
        }
    }
};

// What a warp adds to its sums: its next BLOCKS blocks of a ring stage, from `weights` on.
template <int BLOCKS, int GROUPS, int ROWS, int STRIDE>
__device__ __forceinline__ void add_blocks(Sums<GROUPS, ROWS>& sums, const uint4*& weights, LaneActivations<ROWS, STRIDE>& x) {
    typename LaneActivations<ROWS, STRIDE>::Operand operand[BLOCKS];
    uint4 w[BLOCKS][GROUPS];
#pragma unroll
    for (int s = 0; s < BLOCKS; ++s) {
        x.load(operand[s], s);
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) w[s][g] = weights[(s * CONSUMER_WARPS * GROUPS + g) * 32];
    }
#pragma unroll
    for (int s = 0; s < BLOCKS; ++s) {
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) sums.add(g, s, w[s][g], operand[s]);
    }
    weights += BLOCKS * CONSUMER_WARPS * GROUPS * 32;
    x.skip(BLOCKS * CONSUMER_WARPS);
}

// A warp's share of COUNT blocks of a stage: every eighth one, from `weights` and where `x` is on.
template <int COUNT, int GROUPS, int ROWS, int STRIDE>
__device__ __forceinline__ void add_stage(Sums<GROUPS, ROWS>& sums, const uint4* weights, LaneActivations<ROWS, STRIDE> x) {
    constexpr int STEP = GROUPS == 1 ? 4 : GROUPS == 2 ? 2 : 1;  // blocks under way together
    constexpr int EACH = COUNT / CONSUMER_WARPS, REST = COUNT % CONSUMER_WARPS;
    constexpr int STEPS = EACH / STEP, MORE = EACH % STEP;
#pragma unroll 1
    for (int s = 0; s < STEPS; ++s) add_blocks<STEP>(sums, weights, x);
    if constexpr (REST > 0) {
        if (threadIdx.x / 32 < REST)
            add_blocks<MORE + 1>(sums, weights, x);
        else if constexpr (MORE > 0)
            add_blocks<MORE>(sums, weights, x);
    } else if constexpr (MORE > 0) {
        add_blocks<MORE>(sums, weights, x);
    }
}

// A warp's share of BLOCKS blocks from the ring, CHUNK blocks a stage.
template <int BLOCKS, int CHUNK, int GROUPS, int ROWS, int STRIDE, typename Reader>
__device__ __forceinline__ void add_stages(Sums<GROUPS, ROWS>& sums, Reader& reader, LaneActivations<ROWS, STRIDE> x,
                                           Watch& watch, u32 operation) {
    constexpr int FULL = BLOCKS / CHUNK, LAST = BLOCKS % CHUNK;
    const int mine = threadIdx.x / 32 * GROUPS * 32 + threadIdx.x % 32;
#pragma unroll 1
    for (int stage = 0; stage < FULL; ++stage) {
        const uint4* weights = reinterpret_cast<const uint4*>(reader.acquire(watch, operation)) + mine;
        add_stage<CHUNK>(sums, weights, x);
        reader.release();
        x.skip(CHUNK);
    }
    if constexpr (LAST > 0) {
        const uint4* weights = reinterpret_cast<const uint4*>(reader.acquire(watch, operation)) + mine;
        add_stage<LAST>(sums, weights, x);
        reader.release();
    }
}

struct Nothing {  // to do meanwhile
    __device__ __forceinline__ void operator()() const {}
};

// A warp's weights of the first STAGES stages of a task, in registers: so they can be there before the activations are, and the
// ring loads what comes after them meanwhile. All but the first are whole stages.
template <int GROUPS, int K_BLOCKS, int CHUNK, int ROWS, int STAGES>
struct FirstStages {
    static constexpr int BLOCKS = K_BLOCKS < CHUNK ? K_BLOCKS : CHUNK, REST = BLOCKS % CONSUMER_WARPS;
    static constexpr int MOST = (BLOCKS + CONSUMER_WARPS - 1) / CONSUMER_WARPS;
    static_assert(STAGES == 1 || STAGES * CHUNK <= K_BLOCKS, "whole stages");
    using Lane = LaneActivations<ROWS, activation_stride(K_BLOCKS)>;
    uint4 weights[STAGES][MOST][GROUPS];

    // Whether this warp has block number `b` of its own of a stage.
    __device__ __forceinline__ static bool has(int b) { return REST == 0 || b + 1 < MOST || threadIdx.x / 32 < REST; }

    template <typename Reader>
    __device__ __forceinline__ void load(Reader& reader, Watch& watch, u32 operation) {
#pragma unroll
        for (int s = 0; s < STAGES; ++s) {
            const uint4* from = reinterpret_cast<const uint4*>(reader.acquire(watch, operation));
            from += threadIdx.x / 32 * GROUPS * 32 + threadIdx.x % 32;
#pragma unroll
            for (int b = 0; b < MOST; ++b)
                if (has(b)) {
#pragma unroll
                    for (int g = 0; g < GROUPS; ++g) weights[s][b][g] = from[(b * CONSUMER_WARPS * GROUPS + g) * 32];
                }
            reader.release();
        }
    }

    // Adds their products with the activations from `lane` on, which then skips these.
    __device__ __forceinline__ void add(Sums<GROUPS, ROWS>& sums, Lane& lane) const {
#pragma unroll
        for (int s = 0; s < STAGES; ++s) {
            typename Lane::Operand operand[MOST];
#pragma unroll
            for (int b = 0; b < MOST; ++b)
                if (has(b)) lane.load(operand[b], b);
#pragma unroll
            for (int b = 0; b < MOST; ++b)
                if (has(b)) {
#pragma unroll
                    for (int g = 0; g < GROUPS; ++g) sums.add(g, b, weights[s][b][g], operand[b]);
                }
            lane.skip(CHUNK);
        }
    }

    // The rest of `matvec`. meanwhile: what is done while the first products are made.
    template <typename Reader, typename Meanwhile>
    __device__ __forceinline__ void multiply(Reader& reader, Activations x, float* partial, Watch& watch, u32 operation,
                                             Meanwhile meanwhile) const {
        Sums<GROUPS, ROWS> sums = {};
        Lane lane(x);
        add(sums, lane);
        meanwhile();
        if constexpr (K_BLOCKS > STAGES * CHUNK)
            add_stages<K_BLOCKS - STAGES * CHUNK, CHUNK>(sums, reader, lane, watch, operation);
        sums.put(partial);
    }
};

// One task: GROUPS * 8 weight rows of K_BLOCKS * 32 elements from the ring, CHUNK k blocks a stage. Each consumer warp
// takes every eighth k block of a stage and writes its partial sums to partial[warp][vector][row].
template <int GROUPS, int K_BLOCKS, int CHUNK, int ROWS, typename Reader>
__device__ __forceinline__ void matvec(Reader& reader, Activations x, float* partial, Watch& watch, u32 operation) {
    Sums<GROUPS, ROWS> sums = {};
    add_stages<K_BLOCKS, CHUNK>(sums, reader, LaneActivations<ROWS, activation_stride(K_BLOCKS)>(x), watch, operation);
    sums.put(partial);
}

// The product for one token and row: the warps' partial sums, always added in the same order.
template <int GROUPS, int ROWS>
__device__ __forceinline__ float product(const float* partial, int token, int row) {
    return sum_over_warps(partial + token * GROUPS * 8 + row, ROWS * GROUPS * 8);
}

__device__ __forceinline__ Activations activations(void* memory) { return {static_cast<u16*>(memory)}; }
