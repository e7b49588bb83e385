// Codes that become bf16 in registers, times up to eight vectors with mma.m16n8k16: for float8, and for groups of 16.
//
// 16 weight rows are the m side; the hi and lo parts of the split vectors of matvec.cuh are the n side, four vectors an mma. Of
// each step of 16 elements along k, lane l holds row l / 4, elements (l % 4) * 4 to + 3. Products of a group are scaled when
// they are complete, or at the end of a warp's block, whichever is first; those of whole rows at the end.
#pragma once
#include "dequant.cuh"
#include "matvec.cuh"

constexpr int STEP_K = 16;  // elements along k of one mma

// Sums of a warp for GROUPS groups of 8 rows, two groups and four tokens an mma: lane l has rows l / 4 of both groups, and the
// hi and the lo column of token l % 4.
template <typename Q, int GROUPS, int TOKENS>
struct Bf16CodesSums {
    static constexpr int ROWS = (GROUPS + 1) / 2, FOURS = (TOKENS + 3) / 4;
    // sums that do not wait for each other; as many whatever the number of tokens
    static constexpr int CHAINS = Q::GROUP == 0 && ROWS < 4 ? 2 : 1;
    static constexpr bool HAS_BESIDE = Q::BESIDE != NOTHING;
    float raw[ROWS][FOURS][CHAINS][4], x[FOURS][4];
    float total[GROUPS][FOURS];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int f = 0; f < FOURS; ++f)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                x[f][i] = 0.0f;
#pragma unroll
                for (int r = 0; r < ROWS; ++r)
#pragma unroll
                    for (int c = 0; c < CHAINS; ++c) raw[r][f][c][i] = 0.0f;
            }
    }
    // Scales the sums, adds them to the totals and clears them. scales, beside: of this lane's row in group 0.
    __device__ __forceinline__ void fold(const u8* scales, const u8* beside) {
#pragma unroll
        for (int g = 0; g < GROUPS; ++g) {
            const float scale = Q::Scale::load_one(scales + g * 8 * Q::Scale::BYTES);
            float other = 0.0f;
            if constexpr (HAS_BESIDE) other = Q::Scale::load_one(beside + g * 8 * Q::Scale::BYTES);
#pragma unroll
            for (int f = 0; f < FOURS; ++f) {
                float sum = 0.0f;
#pragma unroll
                for (int c = 0; c < CHAINS; ++c) sum += raw[g / 2][f][c][g % 2 * 2] + raw[g / 2][f][c][g % 2 * 2 + 1];
                total[g][f] += Q::scaled(sum, x[f][0] + x[f][1], scale, other);
            }
        }
        clear();
    }
};

// Split vectors as a lane reads them: it brings column l / 4, which is hi (even) or lo of a token. Columns that stand for no
// token repeat the last one: their sums are not used.
template <int TOKENS, int K_BLOCKS>
struct SplitReader {
    static constexpr int FOURS = (TOKENS + 3) / 4;
    Activations x;

    __device__ __forceinline__ uint2 operand(int four, int k) const {
        const int lane = threadIdx.x % 32, token = four * 4 + lane / 8;
        const uint4 all = x.four((token < TOKENS ? token : TOKENS - 1) * activation_stride(K_BLOCKS) + k + lane % 4 * 4);
        return lane / 4 % 2 ? make_uint2(all.y, all.w) : make_uint2(all.x, all.z);
    }
};

// What a warp adds to its sums: COUNT blocks, every eighth one from number `block` of the stage on. `first`: where the stage
// begins in the vectors.
template <typename Q, int COUNT, int GROUPS, int TOKENS, typename Reader>
__device__ __forceinline__ void add_bf16_codes_blocks(Bf16CodesSums<Q, GROUPS, TOKENS>& sums, CodesStage stage, Reader x,
                                                      int first, int block) {
    constexpr int WORDS = Q::LANE_WORDS, STEPS = 8 / Q::Code::BITS, FOURS = Reader::FOURS;  // STEPS of a word
    constexpr int CHAINS = Bf16CodesSums<Q, GROUPS, TOKENS>::CHAINS, ROWS = Bf16CodesSums<Q, GROUPS, TOKENS>::ROWS;
    LaneCodes<Q> codes[COUNT][GROUPS];
#pragma unroll
    for (int b = 0; b < COUNT; ++b)
#pragma unroll
        for (int g = 0; g < GROUPS; ++g)
            codes[b][g].load(stage.codes + ((block + b * CONSUMER_WARPS) * GROUPS + g) * Q::BLOCK_BYTES);
#pragma unroll
    for (int b = 0; b < COUNT; ++b) {
        const int in_stage = (block + b * CONSUMER_WARPS) * Q::BLOCK_K;
        uint2 operands[FOURS][WORDS * STEPS];
#pragma unroll
        for (int f = 0; f < FOURS; ++f)
#pragma unroll
            for (int s = 0; s < WORDS * STEPS; ++s) operands[f][s] = x.operand(f, first + in_stage + s * STEP_K);
#pragma unroll
        for (int w = 0; w < WORDS; ++w) {
            u32 pairs[2 * ROWS][2 * STEPS] = {};
#pragma unroll
            for (int g = 0; g < GROUPS; ++g) Q::Code::unpack(codes[b][g].word[w], pairs[g]);
#pragma unroll
            for (int s = 0; s < STEPS; ++s) {
                const int step = w * STEPS + s, end = (step + 1) * STEP_K;
#pragma unroll
                for (int f = 0; f < FOURS; ++f) {
                    const uint2 operand = operands[f][step];
#pragma unroll
                    for (int r = 0; r < ROWS; ++r) {
                        const u32 *even = pairs[2 * r] + 2 * s, *odd = pairs[2 * r + 1] + 2 * s;
                        mma(sums.raw[r][f][step % CHAINS], even[0], odd[0], even[1], odd[1], operand.x, operand.y);
                    }
                    if constexpr (Q::BESIDE != NOTHING)
                        mma(sums.x[f], ONE_BF16X2, ONE_BF16X2, ONE_BF16X2, ONE_BF16X2, operand.x, operand.y);
                }
                if (Q::GROUP != 0 && (end == Q::BLOCK_K || end % (Q::GROUP == 0 ? 1 : Q::GROUP) == 0)) {
                    const int column = (in_stage + end - 1) / (Q::GROUP == 0 ? 1 : Q::GROUP);
                    const int offset = column * GROUPS * 8 * Q::Scale::BYTES;
                    sums.fold(stage.scales + offset, stage.beside + offset);
                }
            }
        }
    }
}

// A warp's share of COUNT blocks of a stage: every eighth one.
template <typename Q, int COUNT, int GROUPS, int TOKENS, typename Reader>
__device__ __forceinline__ void add_bf16_codes_stage(Bf16CodesSums<Q, GROUPS, TOKENS>& sums, CodesStage stage, Reader x,
                                                     int first, int warp) {
    constexpr int STEP = GROUPS == 1 ? 2 : 1;  // blocks under way together
    constexpr int EACH = COUNT / CONSUMER_WARPS, REST = COUNT % CONSUMER_WARPS;
    constexpr int STEPS = EACH / STEP, MORE = EACH % STEP;
    int block = warp;
#pragma unroll 1
    for (int s = 0; s < STEPS; ++s, block += STEP * CONSUMER_WARPS)
        add_bf16_codes_blocks<Q, STEP>(sums, stage, x, first, block);
    if constexpr (REST > 0) {
        if (warp < REST)
            add_bf16_codes_blocks<Q, MORE + 1>(sums, stage, x, first, block);
        else if constexpr (MORE > 0)
            add_bf16_codes_blocks<Q, MORE>(sums, stage, x, first, block);
    } else if constexpr (MORE > 0) {
        add_bf16_codes_blocks<Q, MORE>(sums, stage, x, first, block);
    }
}

// One task: GROUPS * 8 weight rows of BLOCKS blocks from the ring, CHUNK blocks a stage; as `matvec`.
template <typename Q, int GROUPS, int BLOCKS, int CHUNK, int TOKENS, typename Reader>
__device__ __forceinline__ void bf16_codes_matvec(Reader& reader, Activations x, float* partial, Watch& watch, u32 operation) {
    constexpr int LAST = BLOCKS % CHUNK == 0 ? CHUNK : BLOCKS % CHUNK, FULL = (BLOCKS - LAST) / CHUNK;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const SplitReader<TOKENS, BLOCKS * Q::BLOCK_K / 32> split = {x};
    Bf16CodesSums<Q, GROUPS, TOKENS> sums = {};
    int first = 0;
#pragma unroll 1
    for (int number = 0; number < FULL; ++number) {
        const CodesStage stage = CodesStage::of<Q, GROUPS>(reader.acquire(watch, operation), CHUNK, lane);
        add_bf16_codes_stage<Q, CHUNK>(sums, stage, split, first, warp);
        reader.release();
        first += CHUNK * Q::BLOCK_K;
    }
    const CodesStage stage = CodesStage::of<Q, GROUPS>(reader.acquire(watch, operation), LAST, lane);
    add_bf16_codes_stage<Q, LAST>(sums, stage, split, first, warp);
    if constexpr (Q::GROUP == 0) sums.fold(stage.scales, stage.beside);
    reader.release();
#pragma unroll
    for (int f = 0; f < split.FOURS; ++f) {
        const int token = f * 4 + lane % 4;
        float* out = partial + (warp * TOKENS + token) * GROUPS * 8 + lane / 4;
#pragma unroll
        for (int g = 0; g < GROUPS; ++g)
            if (token < TOKENS) out[g * 8] = sums.total[g][f];
    }
}
