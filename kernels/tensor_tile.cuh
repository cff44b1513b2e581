// What the tensor-core products share: M_TILES x 8 tiles of 16x8 sums a warp, WARPS warps beside
// each other along gemm_n, STAGES tiles of gemm_k under way; BF16 or else TF32.
#pragma once
#include "gather.cuh"
#include "tensor_core.cuh"

static_assert(sizeof(scalar) == 4, "tensor cores take no doubles here");

constexpr int N_TILES = 8;  // 64 columns a warp
constexpr int TILE_M = 16 * M_TILES, TILE_N = 8 * N_TILES * WARPS, TILE_K = 16;
constexpr int STEP_K = BF16 ? 16 : 8;  // of one matrix instruction
constexpr int STEPS = TILE_K / STEP_K;
constexpr int THREADS = 32 * WARPS;
constexpr int STAGES = 3;
// Room for 255 registers a thread: the sums alone take 128.
constexpr int RESIDENT_BLOCKS = 256 / THREADS;

typedef float Sums[M_TILES][N_TILES][4];

__device__ __forceinline__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    if (BF16) {
        mma_bf16(d, a, b);
    } else {
        mma_tf32(d, a, b);
    }
}

// Where a lane's sums are in its warp's tile: row (and row + 8), columns col and col + 1.
__device__ __forceinline__ int sum_row(int m_tile) {
    return m_tile * 16 + threadIdx.x % 32 / 4;
}
__device__ __forceinline__ int sum_col(int n_tile) {
    return (threadIdx.x / 32 * N_TILES + n_tile) * 8 + threadIdx.x % 4 * 2;
}
