// A block's tile of C[m][n] += sum_k A[k][m] B[k][n], from shared memory into registers.
// WARPS warps beside each other along n; a warp is 4 x 8 lanes, a lane has RUNS_M runs of VECTOR
// rows and two of VECTOR columns: with RUNS_M 4 that is 16x8 sums in float, 8x4 in double. For one
// k: six loads of 16 bytes, 12 passes over the banks, while 128 multiply-adds take 32 clocks.
#pragma once
#include "index.cuh"

constexpr int VECTOR = 16 / sizeof(scalar);
constexpr int RUNS_N = 2;
constexpr int LANES_M = 4, LANES_N = 8;
constexpr int TILE_M = LANES_M * RUNS_M * VECTOR;
constexpr int TILE_N = WARPS * LANES_N * RUNS_N * VECTOR;
constexpr int TILE_K = 8;
constexpr int THREADS = 32 * WARPS;
// Room for 255 registers a thread: the sums alone take 128.
constexpr int RESIDENT_BLOCKS = 256 / THREADS;

// Behind each row a pad of 16 bytes: stores down a column fall on different banks.
constexpr int PITCH_M = TILE_M + VECTOR, PITCH_N = TILE_N + VECTOR;
struct __align__(16) Tiles {
    scalar a[TILE_K][PITCH_M], b[TILE_K][PITCH_N];
};
typedef scalar Sums[RUNS_M * VECTOR][RUNS_N * VECTOR];

struct __align__(16) Vector {
    scalar at[VECTOR];
};
__device__ __forceinline__ const Vector& vector_at(const scalar* values) {
    return *reinterpret_cast<const Vector*>(values);
}
__device__ __forceinline__ Vector& vector_at(scalar* values) {
    return *reinterpret_cast<Vector*>(values);
}

// Row (column) i of a thread's sums, counted in the block's tile. The 8 lane_right() read 128 bytes
// in a row of B, so that no two of them meet on a bank.
__device__ __forceinline__ int tile_row(int i) {
    return (i / VECTOR * LANES_M + lane_left()) * VECTOR + i % VECTOR;
}
__device__ __forceinline__ int tile_col(int i) {
    const int warp = threadIdx.x / 32;
    return ((warp * RUNS_N + i / VECTOR) * LANES_N + lane_right()) * VECTOR + i % VECTOR;
}

__device__ __forceinline__ void multiply(const Tiles& tiles, Sums& sums) {
    const int row = tile_row(0), col = tile_col(0);
#pragma unroll  // all indices into registers are known
    for (int k = 0; k < TILE_K; k++) {
        Vector left[RUNS_M], right[RUNS_N];
#pragma unroll
        for (int run = 0; run < RUNS_M; run++) {
            left[run] = vector_at(&tiles.a[k][row + run * LANES_M * VECTOR]);
        }
#pragma unroll
        for (int run = 0; run < RUNS_N; run++) {
            right[run] = vector_at(&tiles.b[k][col + run * LANES_N * VECTOR]);
        }
#pragma unroll
        for (int i = 0; i < RUNS_M * VECTOR; i++) {
#pragma unroll
            for (int j = 0; j < RUNS_N * VECTOR; j++) {
                sums[i][j] += left[i / VECTOR].at[i % VECTOR] * right[j / VECTOR].at[j % VECTOR];
            }
        }
    }
}
