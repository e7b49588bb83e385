// The angles of a rotary embedding: the same in all layers of a step, so they are computed once, at its begin. The code of sine
// and cosine is long, and instructions are what a short phase waits for.
#pragma once
#include "convert.cuh"

// (cosine, sine) of position pos + t times frequency f at turns[t * COUNT + f], for TOKENS positions and COUNT frequencies. By
// all consumers; a barrier has to follow.
template <int TOKENS, int COUNT, typename Frequency>
__device__ __forceinline__ void put_turns(float2* turns, const Frequency* frequencies, int pos) {
#pragma unroll 1
    for (int i = threadIdx.x; i < TOKENS * COUNT; i += CONSUMERS) {
        const float angle = static_cast<float>(pos + i / COUNT) * load_value(frequencies + i % COUNT);
        float sine, cosine;
        sincosf(angle, &sine, &cosine);
        turns[i] = make_float2(cosine, sine);
    }
}
