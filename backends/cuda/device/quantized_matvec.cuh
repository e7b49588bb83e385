// Quantised weights: the product of a task's rows, and single elements.
#pragma once
#include "bf16_codes_matvec.cuh"
#include "integer_matvec.cuh"

// One task: GROUPS * 8 weight rows of BLOCKS blocks from the ring, CHUNK blocks a stage, times the TOKENS vectors that lie at
// `x`: cut into digits for integer codes, split for others. Each consumer warp writes partial[warp][token][row].
template <typename Q, int GROUPS, int BLOCKS, int CHUNK, int TOKENS, typename Reader>
__device__ __forceinline__ void quantized_matvec(Reader& reader, Activations x, float* partial, Watch& watch, u32 operation) {
    if constexpr (Q::Code::IS_INTEGER)
        integer_matvec<Q, GROUPS, BLOCKS, CHUNK, TOKENS>(reader, reinterpret_cast<const u8*>(x.memory), partial, watch,
                                                         operation);
    else
        bf16_codes_matvec<Q, GROUPS, BLOCKS, CHUNK, TOKENS>(reader, x, partial, watch, operation);
}

// The code of column `in_block` of a block: of the row whose four lanes begin at `row`.
template <typename Q>
__device__ __forceinline__ float code_value(const u8* row, int in_block) {
    using Code = typename Q::Code;
    if constexpr (Code::IS_INTEGER) {
        const u8* lane = row + in_block % 32 / 8 * Q::LANE_WORDS * 4;
        return Code::element(lane, in_block / 32, in_block % 8);
    } else {
        constexpr int STEPS = 8 / Code::BITS;
        const int step = in_block / 16, e = in_block % 4;
        const u8* lane = row + in_block % 16 / 4 * Q::LANE_WORDS * 4;
        u32 pairs[2 * STEPS];
        Code::unpack(reinterpret_cast<const u32*>(lane)[step / STEPS], pairs);
        u32 pair = pairs[0];
#pragma unroll
        for (int i = 1; i < 2 * STEPS; ++i) pair = step % STEPS * 2 + e / 2 == i ? pairs[i] : pair;
        return __uint_as_float(e % 2 ? pair & 0xffff0000 : pair << 16);
    }
}

// An element of quantised rows in the order of quantized_fragments.py, as a pointer to be dereferenced by load_value: row v of K
// elements is row FIRST + v % ROWS of task v / ROWS.
template <typename Q, int GROUPS, int BLOCKS, int CHUNK, int TASK_BYTES, int CHUNK_BYTES, int ROWS, int FIRST, int K>
struct QuantizedRows {
    const u8* packed;
    long long element = 0;

    __device__ __forceinline__ QuantizedRows operator+(long long offset) const { return {packed, element + offset}; }
    __device__ __noinline__ float value() const {  // out of line: a few elements a step, but many registers
        constexpr int LAST_CHUNK = (BLOCKS - 1) / CHUNK, GROUP = Q::GROUP == 0 ? 1 : Q::GROUP;
        const long long v = element / K;
        const int column = static_cast<int>(element % K), row = static_cast<int>(v % ROWS) + FIRST;
        const int block = column / Q::BLOCK_K, chunk = block / CHUNK, in_block = column % Q::BLOCK_K;
        const u8* task = packed + v / ROWS * TASK_BYTES;
        const u8* codes = task + chunk * CHUNK_BYTES + (block % CHUNK * GROUPS + row / 8) * Q::BLOCK_BYTES;
        const float code = code_value<Q>(codes + row % 8 * Q::LANE_WORDS * 16, in_block);
        const int scaled = Q::GROUP == 0 ? LAST_CHUNK : chunk;  // the stage with its scale
        const int blocks = scaled == LAST_CHUNK ? BLOCKS - LAST_CHUNK * CHUNK : CHUNK;
        const int group = Q::GROUP == 0 ? 0 : (block % CHUNK * Q::BLOCK_K + in_block) / GROUP;
        const u8* scale = task + scaled * CHUNK_BYTES + blocks * GROUPS * Q::BLOCK_BYTES +
                          (group * GROUPS * 8 + row) * Q::Scale::BYTES;
        const u8* beside = scale + Q::columns(blocks) * GROUPS * 8 * Q::Scale::BYTES;
        const float other = Q::BESIDE == NOTHING ? 0.0f : Q::Scale::load_one(beside);
        return Q::scaled(code, 1.0f, Q::Scale::load_one(scale), other);
    }
};

template <typename Q, int GROUPS, int BLOCKS, int CHUNK, int TASK_BYTES, int CHUNK_BYTES, int ROWS, int FIRST, int K>
__device__ __forceinline__ float load_value(
    QuantizedRows<Q, GROUPS, BLOCKS, CHUNK, TASK_BYTES, CHUNK_BYTES, ROWS, FIRST, K> at) {
    return at.value();
}
