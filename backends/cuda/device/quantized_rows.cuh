// Single elements of quantised weights, for the gather of an embedding.
#pragma once
#include "dequant.cuh"

// The code of column `in_block` of a block, less what means 0 and divided by UNIT: of the row whose four lanes begin at `row`.
template <typename Q>
__device__ __forceinline__ float code_value(const u8* row, int in_block, u32 addend) {
    using Code = typename Q::Code;
    const u8* lane = row + in_block % 32 / 8 * Q::LANE_WORDS * 4;
    const uint4 pairs = Code::unpack(reinterpret_cast<const u32*>(lane) + in_block / 32 * Code::WORDS, addend);
    const int pair_number = in_block % 8 / 2;
    const u32 pair = pair_number == 0 ? pairs.x : pair_number == 1 ? pairs.y : pair_number == 2 ? pairs.z : pairs.w;
    return __uint_as_float(in_block % 2 ? pair & 0xffff0000 : pair << 16);
}

// An element of quantised rows in the order of quantized_fragments.py, as a pointer to be dereferenced by load_value: row v of K
// elements is row FIRST + v % ROWS of task v / ROWS.
template <typename Q, int GROUPS, int BLOCKS, int CHUNK, int TASK_BYTES, int CHUNK_BYTES, int ROWS, int FIRST, int K>
struct QuantizedRows {
    const u8* packed;
    long long element = 0;

    __device__ __forceinline__ QuantizedRows operator+(long long offset) const { return {packed, element + offset}; }
    __device__ __noinline__ float value() const {  // out of line: a few elements a step, but many registers
        constexpr int LAST_CHUNK = (BLOCKS - 1) / CHUNK;
        const long long v = element / K;
        const int column = static_cast<int>(element % K), row = static_cast<int>(v % ROWS) + FIRST;
        const int block = column / Q::BLOCK_K, chunk = block / CHUNK, in_block = column % Q::BLOCK_K;
        const u8* task = packed + v / ROWS * TASK_BYTES;
        const u8* codes = task + chunk * CHUNK_BYTES + (block % CHUNK * GROUPS + row / 8) * Q::BLOCK_BYTES;
        const int scaled = Q::GROUP == 0 ? LAST_CHUNK : chunk;  // the one with its scale
        const int blocks = scaled == LAST_CHUNK ? BLOCKS - LAST_CHUNK * CHUNK : CHUNK;
        const int group = Q::column(block % CHUNK * Q::BLOCK_K + in_block);
        const u8* beside = task + scaled * CHUNK_BYTES + blocks * GROUPS * Q::BLOCK_BYTES +
                           (group * GROUPS * 8 + row) * Q::Scale::BYTES;
        const u8* scale = beside + (Q::BESIDE == NOTHING ? 0 : Q::columns(blocks) * GROUPS * 8 * Q::Scale::BYTES);
        const float code = code_value<Q>(codes + row % 8 * Q::LANE_WORDS * 16, in_block, Q::addend(beside));
        const float value = code * Q::Code::UNIT * Q::Scale::load_one(scale);
        return Q::BESIDE == MINIMUM ? value + Q::Scale::load_one(beside) : value;
    }
};

template <typename Q, int GROUPS, int BLOCKS, int CHUNK, int TASK_BYTES, int CHUNK_BYTES, int ROWS, int FIRST, int K>
__device__ __forceinline__ float load_value(
    QuantizedRows<Q, GROUPS, BLOCKS, CHUNK, TASK_BYTES, CHUNK_BYTES, ROWS, FIRST, K> at) {
    return at.value();
}
