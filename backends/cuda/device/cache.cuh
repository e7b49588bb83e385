// How cached keys and values of one KV head lie in memory: in groups of 16 positions, inside of them in the order in which
// mma fragments want them. A group is contiguous, so that the ring can take any number of them with one copy.
//
// Keys: [8 positions][block of 32 elements][8 positions][32 elements]. Lane l reads position l / 4, elements (l % 4) * 8
// to + 7 of a block: the n side of two mma, as of weights (see matvec.cuh).
// Values: [16 positions][block of 16 elements][lane][8]. Lane l reads what is its m side of one mma: elements l / 4 and
// l / 4 + 8 of the block, positions 2 * (l % 4), + 1, + 8 and + 9 of the group.
#pragma once
#include "types.cuh"

constexpr int GROUP = 16;  // positions

template <int DIM>
struct CacheLayout {
    static constexpr int KEY_BLOCKS = (DIM + 31) / 32, VALUE_BLOCKS = (DIM + 15) / 16;
    static constexpr int KEY_GROUP = GROUP * KEY_BLOCKS * 32, VALUE_GROUP = GROUP * VALUE_BLOCKS * 16;  // elements

    __device__ static __forceinline__ long long key(int position, int element) {
        return static_cast<long long>(position / 8) * (KEY_BLOCKS * 256) + element / 32 * 256 + position % 8 * 32 +
               element % 32;
    }
    __device__ static __forceinline__ long long value(int position, int element) {
        const int lane = element % 8 * 4 + position % 8 / 2;
        return static_cast<long long>(position / GROUP) * VALUE_GROUP + element / 16 * 256 + lane * 8 +
               element % 16 / 8 * 2 + position % 16 / 8 * 4 + position % 2;
    }
};

// Which groups belong to a part of PARTS: blocks of BLOCK groups are dealt to the parts in turn.
template <int PARTS, int BLOCK>
struct Share {
    // How many of the first `groups` groups part `part` has.
    __device__ static __forceinline__ int count(int groups, int part) {
        if (PARTS == 1) return groups;
        const int blocks = groups / BLOCK, rest = blocks % PARTS == part ? groups % BLOCK : 0;
        return (blocks - part + PARTS - 1) / PARTS * BLOCK + rest;
    }
    // The group that is number `own` of part `part`.
    __device__ static __forceinline__ int group(int own, int part) {
        return PARTS == 1 ? own : (own / BLOCK * PARTS + part) * BLOCK + own % BLOCK;
    }
    __device__ static __forceinline__ bool has(int group, int part) {
        return PARTS == 1 || group / BLOCK % PARTS == part;
    }
};

// The producer's side of an attention task: all whole groups of the positions before `pos` that are the part's, CHUNK groups a
// stage, keys and values in turn; all that TURNS times, for as many shares of the queries. CHUNK divides BLOCK where there
// are several parts.
template <int DIM, int PARTS, int BLOCK, int CHUNK, int TURNS, typename KV, typename Writer>
__device__ __forceinline__ void push_history(Writer& writer, const KV* keys, const KV* values, int pos, int part,
                                             u32 operation) {
    using Layout = CacheLayout<DIM>;
    using Own = Share<PARTS, BLOCK>;
    const int own = Own::count(pos / GROUP, part);
#pragma unroll 1
    for (int turn = 0; turn < TURNS; ++turn) {
#pragma unroll 1
        for (int first = 0; first < own; first += CHUNK) {
            const int groups = own - first < CHUNK ? own - first : CHUNK;
#pragma unroll 1
            for (int side = 0; side < 2; ++side) {
                const int size = side == 0 ? Layout::KEY_GROUP : Layout::VALUE_GROUP;
                const KV* from = (side == 0 ? keys : values) + static_cast<long long>(Own::group(first, part)) * size;
                writer.push(reinterpret_cast<const u8*>(from), groups * size * static_cast<int>(sizeof(KV)), operation);
            }
        }
    }
}
