// Reading rows chosen by ids.
#pragma once
#include "types.cuh"

// The id, kept inside the table: the host checks token ids, but after an abort a kernel runs on with what it finds.
__device__ __forceinline__ int clamp_row(int id, int rows) { return id < 0 ? 0 : id < rows ? id : rows - 1; }
