// Quantised weights times up to eight vectors: codes become bf16 in registers, in the order in which a lane has bf16 weights,
// and are multiplied as these are, with the activations and mma of matvec.cuh.
//
// Products of a group are scaled when they are complete, or at the end of a warp's block, whichever is first; those of whole
// rows at the end. A zero point is subtracted from the codes; minimums are multiplied by sums of activations.
#pragma once
#include "dequant.cuh"
#include "matvec.cuh"

// Sums of activations in the places of a product's sums: products with weights that are 1.
template <int ROWS, int HALVES>
struct ActivationSums {
    float sum[HALVES][4];

    template <typename Operand>
    __device__ __forceinline__ void add(const Operand& x) {
        constexpr u32 ONES = 0x3f803f80;
        if constexpr (ROWS <= 2) {
            mma(sum[0], ONES, ONES, ONES, ONES, x[0], x[1]);
        } else {
            mma(sum[0], x[0], x[1], x[2], x[3], ONES, ONES);
            mma(sum[HALVES - 1], x[4], x[5], x[6], x[7], ONES, ONES);
        }
    }
};

// Where a warp reads a stage. codes: of this lane in block 0. addends: of the row of these codes, in group 0 and column 0.
// beside, scales: likewise, of the first row of this lane's sums.
struct CodesStage {
    const u8 *codes, *addends, *beside, *scales;

    template <typename Q, int GROUPS, int ROWS>
    __device__ static __forceinline__ CodesStage of(const u8* stage, int blocks) {
        const int lane = threadIdx.x % 32, row = ROWS <= 2 ? lane / 4 : lane % 4 * 2;
        const int group_of_lane = Q::GROUP == 16 ? lane % 4 / 2 : 0;
        const int behind = blocks * GROUPS * Q::BLOCK_BYTES, column_bytes = GROUPS * 8 * Q::Scale::BYTES;
        const u8* beside = stage + behind + row * Q::Scale::BYTES;
        return {stage + lane * Q::LANE_WORDS * 4,
                stage + behind + group_of_lane * column_bytes + lane / 4 * Q::Scale::BYTES, beside,
                beside + (Q::BESIDE == NOTHING ? 0 : Q::columns(blocks) * column_bytes)};
    }
};

// A warp's sums of one task, those of whole rows not scaled yet, and then `x` for their minimums.
template <typename Q, int GROUPS, int ROWS>
struct CodesSums {
    using Products = Sums<GROUPS, ROWS>;
    using OfActivations = ActivationSums<ROWS, Products::HALVES>;
    static constexpr int CHAINS = Products::CHAINS, HALVES = Products::HALVES;
    static constexpr bool KEEPS_X = Q::GROUP == 0 && Q::BESIDE == MINIMUM;  // until whole rows are complete
    Products total;
    OfActivations x;

    // Scales of the rows of elements 0 and 2, and 1 and 3, of a sum.
    __device__ static __forceinline__ float2 of_rows(const u8* at) {
        if constexpr (ROWS > 2) return Q::Scale::load_two(at);
        const float one = Q::Scale::load_one(at);
        return make_float2(one, one);
    }
    // Adds the products of a column of scales, made in STEPS steps.
    template <int STEPS>
    __device__ __forceinline__ void fold(const Products& products, const OfActivations& of_x, const u8* scales, const u8* beside) {
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) {
            const float2 scale = of_rows(scales + g * 8 * Q::Scale::BYTES);
            float2 minimum = {};
            if constexpr (Q::BESIDE == MINIMUM) minimum = of_rows(beside + g * 8 * Q::Scale::BYTES);
#pragma unroll
            for (int n = 0; n < (STEPS < CHAINS ? STEPS : CHAINS) * HALVES; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) {
                    float& sum = total.sum[g * CHAINS * HALVES + n][i];
                    sum += products.sum[g * CHAINS * HALVES + n][i] * ((i % 2 ? scale.y : scale.x) * Q::Code::UNIT);
                    if constexpr (Q::BESIDE == MINIMUM)
                        if (n < HALVES) sum += of_x.sum[n][i] * (i % 2 ? minimum.y : minimum.x);
                }
        }
    }
    // Scales the sums of whole rows.
    __device__ __forceinline__ void finish(const CodesStage& stage) {
        const Products products = total;
        total = {};
        fold<CHAINS>(products, x, stage.scales, stage.beside);
    }
};

template <int N>
__device__ __forceinline__ void clear(u32 (&values)[N]) {
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = 0;
}

// A warp's codes of COUNT blocks, every eighth one from number `first` of a stage with END on. Of some warps the last one may be
// beyond the END: it is multiplied with zeros, which is faster than a branch.
template <typename Q, int COUNT, int END, int GROUPS>
struct BlockCodes {
    LaneCodes<Q> codes[COUNT][GROUPS];
    int number[COUNT];  // of the block in its stage

    __device__ __forceinline__ static bool exists(int b, int first) {
        return END % CONSUMER_WARPS == 0 || b + 1 < COUNT || first + b * CONSUMER_WARPS < END;
    }
    __device__ __forceinline__ void load(const CodesStage& stage, int first) {
#pragma unroll
        for (int b = 0; b < COUNT; ++b) {
            number[b] = exists(b, first) ? first + b * CONSUMER_WARPS : END - 1;
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) codes[b][g].load(stage.codes + (number[b] * GROUPS + g) * Q::BLOCK_BYTES);
        }
    }
    // Step `s` of a block as mma takes it. addend: where that of the lane's row is.
    __device__ __forceinline__ uint4 weights(int b, int g, int s, const u8* addend) const {
        return Q::Code::unpack(codes[b][g].word + s * Q::Code::WORDS, Q::addend(addend));
    }
};

// The same, as mma takes them: of whole rows, whose scales are not needed before the products are complete.
template <typename Q, int COUNT, int END, int GROUPS>
struct BlockWeights {
    uint4 unpacked[COUNT][GROUPS][Q::BLOCK_STEPS];
    int number[COUNT];

    __device__ __forceinline__ void load(const CodesStage& stage, int first) {
        BlockCodes<Q, COUNT, END, GROUPS> packed;
        packed.load(stage, first);
#pragma unroll
        for (int b = 0; b < COUNT; ++b) {
            number[b] = packed.number[b];
#pragma unroll
            for (int g = 0; g < GROUPS; ++g)
#pragma unroll
                for (int s = 0; s < Q::BLOCK_STEPS; ++s)
                    unpacked[b][g][s] = packed.weights(b, g, s, stage.addends + g * 8 * Q::Scale::BYTES);
        }
    }
    __device__ __forceinline__ uint4 weights(int b, int g, int s, const u8*) const { return unpacked[b][g][s]; }
};

// What a warp adds to its sums: COUNT blocks that are in registers, with the activations from `x` on.
template <typename Q, int COUNT, int END, typename Held, int GROUPS, int ROWS, int STRIDE>
__device__ __forceinline__ void add_held_blocks(CodesSums<Q, GROUPS, ROWS>& sums, const CodesStage& stage, const Held& held,
                                                const LaneActivations<ROWS, STRIDE>& x, int block) {
    using All = CodesSums<Q, GROUPS, ROWS>;
    constexpr int STEPS = Q::BLOCK_STEPS, COLUMN_BYTES = GROUPS * 8 * Q::Scale::BYTES;
    typename LaneActivations<ROWS, STRIDE>::Operand operand[COUNT][STEPS];
#pragma unroll
    for (int b = 0; b < COUNT; ++b)
#pragma unroll
        for (int s = 0; s < STEPS; ++s) {
            LaneActivations<ROWS, STRIDE> from = x;
            from.skip(b * CONSUMER_WARPS * STEPS + s);
            if (BlockCodes<Q, COUNT, END, GROUPS>::exists(b, block))
                from.load(operand[b][s], 0);
            else
                clear(operand[b][s]);
        }
    // steps that share a scale, and scales that share a step
    constexpr int TOGETHER = Q::GROUP == 0 || Q::GROUP >= Q::BLOCK_K ? STEPS : Q::GROUP < 32 ? 1 : Q::GROUP / 32;
    constexpr int PARTS = Q::GROUP == 16 ? 2 : 1;
#pragma unroll
    for (int b = 0; b < COUNT; ++b)
#pragma unroll
        for (int first = 0; first < STEPS; first += TOGETHER) {
            const int at = Q::column(held.number[b] * Q::BLOCK_K + first * 32) * COLUMN_BYTES;
#pragma unroll
            for (int part = 0; part < PARTS; ++part) {
                typename All::Products of_group = {};
                typename All::OfActivations x_of_group = {};
                auto& products = Q::GROUP == 0 ? sums.total : of_group;
                auto& of_x = Q::GROUP == 0 ? sums.x : x_of_group;
#pragma unroll
                for (int s = first; s < first + TOGETHER; ++s) {
                    auto& mine = operand[b][s];
                    typename LaneActivations<ROWS, STRIDE>::Operand masked;
#pragma unroll
                    for (int i = 0; i < static_cast<int>(sizeof(mine) / sizeof(u32)); ++i)
                        masked[i] = PARTS == 1 || threadIdx.x % 4 / 2 == part ? mine[i] : 0;
#pragma unroll
                    for (int g = 0; g < GROUPS; ++g) {
                        const uint4 weights = held.weights(b, g, s, stage.addends + at + g * 8 * Q::Scale::BYTES);
                        products.add(g, (Q::GROUP == 0 ? b * STEPS : 0) + s - first, weights, masked);
                    }
                    if constexpr (Q::BESIDE == MINIMUM) of_x.add(masked);
                }
                if constexpr (Q::GROUP != 0) {
                    const int offset = at + part * COLUMN_BYTES;
                    sums.template fold<TOGETHER>(of_group, x_of_group, stage.scales + offset, stage.beside + offset);
                }
            }
        }
}

// What a warp adds to its sums: COUNT blocks, every eighth one from number `block` of a stage with END on, with the activations
// from `x` on.
template <typename Q, int COUNT, int END, int GROUPS, int ROWS, int STRIDE>
__device__ __forceinline__ void add_code_blocks(CodesSums<Q, GROUPS, ROWS>& sums, const CodesStage& stage,
                                                const LaneActivations<ROWS, STRIDE>& x, int block) {
    BlockCodes<Q, COUNT, END, GROUPS> held;
    held.load(stage, block);
    add_held_blocks<Q, COUNT, END>(sums, stage, held, x, block);
}

// A warp's share of COUNT blocks of a stage: every eighth one.
template <typename Q, int COUNT, int GROUPS, int ROWS, int STRIDE>
__device__ __forceinline__ void add_codes_stage(CodesSums<Q, GROUPS, ROWS>& sums, const CodesStage& stage,
                                                LaneActivations<ROWS, STRIDE> x) {
    // Blocks under way together, as far as there are registers: of one or of an even number of steps, as chains take turns.
    constexpr int FIT = ROWS > 2 ? 2 / Q::BLOCK_STEPS : 16 / (GROUPS * Q::LANE_WORDS);
    constexpr int STEP = FIT < 1 ? 1 : FIT > 4 ? 4 : FIT;
    constexpr int EACH = (COUNT + CONSUMER_WARPS - 1) / CONSUMER_WARPS;
    // The last step, apart where it is shorter or not complete.
    constexpr int LAST = EACH % STEP != 0 ? EACH % STEP : COUNT % CONSUMER_WARPS != 0 ? STEP : 0;
    constexpr int STEPS = (EACH - LAST) / STEP;
    int block = threadIdx.x / 32;
#pragma unroll 1
    for (int s = 0; s < STEPS; ++s) {
        add_code_blocks<Q, STEP, STEPS * STEP * CONSUMER_WARPS>(sums, stage, x, block);
        block += STEP * CONSUMER_WARPS;
        x.skip(STEP * CONSUMER_WARPS * Q::BLOCK_STEPS);
    }
    if constexpr (LAST > 0) add_code_blocks<Q, LAST, COUNT>(sums, stage, x, block);
}

// A warp's share of BLOCKS blocks from the ring, CHUNK blocks a stage, with the activations from `x` on, which is where block 0 of
// 32 columns of this warp is. ends_rows: whether these are the last blocks of their rows, behind which scales of whole rows stand.
template <typename Q, int BLOCKS, int CHUNK, int GROUPS, int ROWS, int STRIDE, typename Reader>
__device__ __forceinline__ void add_codes_stages(CodesSums<Q, GROUPS, ROWS>& sums, Reader& reader,
                                                 LaneActivations<ROWS, STRIDE> x, bool ends_rows, Watch& watch, u32 operation) {
    constexpr int FULL = BLOCKS / CHUNK, LAST = BLOCKS % CHUNK;
    const bool is_scaled_last = Q::GROUP == 0 && ends_rows;
    x.skip(threadIdx.x / 32 * (Q::BLOCK_STEPS - 1));
    CodesStage stage;
#pragma unroll 1
    for (int number = 0; number < FULL; ++number) {
        stage = CodesStage::of<Q, GROUPS, ROWS>(reader.acquire(watch, operation), CHUNK);
        add_codes_stage<Q, CHUNK>(sums, stage, x);
        x.skip(CHUNK * Q::BLOCK_STEPS);
        if (!is_scaled_last || LAST > 0 || number + 1 < FULL) reader.release();
    }
    if constexpr (LAST > 0) {
        stage = CodesStage::of<Q, GROUPS, ROWS>(reader.acquire(watch, operation), LAST);
        add_codes_stage<Q, LAST>(sums, stage, x);
        if (!is_scaled_last) reader.release();
    }
    if (is_scaled_last) {
        sums.finish(stage);
        reader.release();
    }
}

// One task: GROUPS * 8 weight rows of BLOCKS blocks from the ring, CHUNK blocks a stage, times the ROWS vectors at `x`. Each
// consumer warp takes every eighth block of a stage and writes its partial sums to partial[warp][vector][row].
template <typename Q, int GROUPS, int BLOCKS, int CHUNK, int ROWS, typename Reader>
__device__ __forceinline__ void quantized_matvec(Reader& reader, Activations x, float* partial, Watch& watch, u32 operation) {
    CodesSums<Q, GROUPS, ROWS> sums = {};
    add_codes_stages<Q, BLOCKS, CHUNK>(sums, reader, LaneActivations<ROWS, activation_stride(BLOCKS * Q::BLOCK_STEPS)>(x), true,
                                       watch, operation);
    sums.total.put(partial);
}

template <bool FIRST, typename A, typename B>
struct Either {
    using Type = A;
};
template <typename A, typename B>
struct Either<false, A, B> {
    using Type = B;
};

// A warp's codes of the first stage of a task, in registers, before the activations are there; as `FirstStages` (matvec.cuh).
// Those of whole rows are unpacked then, if they are few, and so are their scales there, if the stage has them.
template <typename Q, int GROUPS, int BLOCKS, int CHUNK, int ROWS>
struct FirstCodes {
    static constexpr int FIRST = BLOCKS < CHUNK ? BLOCKS : CHUNK, MOST = (FIRST + CONSUMER_WARPS - 1) / CONSUMER_WARPS;
    static constexpr bool ARE_UNPACKED = Q::GROUP == 0 && MOST * GROUPS * Q::BLOCK_STEPS <= 9;
    static constexpr bool ARE_SCALED = Q::GROUP == 0 && Q::BESIDE != MINIMUM && BLOCKS <= CHUNK;
    using Held = typename Either<ARE_UNPACKED, BlockWeights<Q, MOST, FIRST, GROUPS>, BlockCodes<Q, MOST, FIRST, GROUPS>>::Type;
    Held held;
    static_assert(ROWS <= 2, "a lane's sums are of one row");
    float scale[ARE_SCALED ? GROUPS : 1];
    CodesStage stage;

    template <typename Reader>
    __device__ __forceinline__ void load(Reader& reader, Watch& watch, u32 operation) {
        stage = CodesStage::of<Q, GROUPS, ROWS>(reader.acquire(watch, operation), FIRST);
        reader.trace.store();
        held.load(stage, threadIdx.x / 32);
        if constexpr (ARE_SCALED) {
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) scale[g] = Q::Scale::load_one(stage.scales + g * 8 * Q::Scale::BYTES) * Q::Code::UNIT;
        }
    }

    // The rest of `quantized_matvec`.
    template <typename Reader, typename Meanwhile>
    __device__ __forceinline__ void multiply(Reader& reader, Activations x, float* partial, Watch& watch, u32 operation,
                                             Meanwhile meanwhile) const {
        using All = CodesSums<Q, GROUPS, ROWS>;
        All sums = {};
        LaneActivations<ROWS, activation_stride(BLOCKS * Q::BLOCK_STEPS)> lane(x), mine = lane;
        mine.skip(threadIdx.x / 32 * (Q::BLOCK_STEPS - 1));
        add_held_blocks<Q, MOST, FIRST>(sums, stage, held, mine, threadIdx.x / 32);
        meanwhile();
        if constexpr (BLOCKS > CHUNK) {
            reader.give_back();
            lane.skip(CHUNK * Q::BLOCK_STEPS);
            add_codes_stages<Q, BLOCKS - CHUNK, CHUNK>(sums, reader, lane, true, watch, operation);
        } else {
            if constexpr (ARE_SCALED) {
#pragma unroll
                for (int n = 0; n < All::Products::COUNT; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        // never one instruction with the addition in `put`: that rounds otherwise than `finish` does
                        float& sum = sums.total.sum[n][i];
                        sum = __fmul_rn(sum, scale[n / (All::Products::COUNT / GROUPS)]);
                    }
            } else if constexpr (Q::GROUP == 0) {
                sums.finish(stage);
            }
            reader.give_back();
        }
        sums.total.put(partial);
    }
};

// BLOCKS blocks of one task, as `matvec_segment` (matvec_segment.cuh): the activations have room for SEGMENT blocks.
template <typename Q, int GROUPS, int BLOCKS, int SEGMENT, int CHUNK, int ROWS, typename Reader>
__device__ __forceinline__ void quantized_matvec_segment(Reader& reader, Activations x, float4* kept, bool is_first, bool is_last,
                                                         float* partial, Watch& watch, u32 operation) {
    using All = CodesSums<Q, GROUPS, ROWS>;
    All sums = {};
    if (!is_first) sums.total.load(kept);
    if (All::KEEPS_X && !is_first) load_sums(sums.x.sum, kept + All::Products::COUNT * CONSUMERS);
    add_codes_stages<Q, BLOCKS, CHUNK>(sums, reader, LaneActivations<ROWS, activation_stride(SEGMENT * Q::BLOCK_STEPS)>(x), is_last,
                                       watch, operation);
    if (is_last) {
        sums.total.put(partial);
        return;
    }
    sums.total.store(kept);
    if (All::KEEPS_X) store_sums(sums.x.sum, kept + All::Products::COUNT * CONSUMERS);
}
