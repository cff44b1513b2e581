// y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s], and its gradient to x, as a matrix product
// x (N,C,H,W), w (K,C,R,S), b (K) or null, y (N,K,P,Q); gemm_m = K, gemm_n = N*P*Q, gemm_k = C*R*S
// A block owns TILE_M x TILE_N of the product, a thread 16x8 of that (8x4 doubles) in registers.
// Against im2col_gemm: the columns exist only as tiles in shared memory, gathered while the tile
// before is multiplied (two buffers). Limits: any shape; the filters are repacked first.
#include "gather.cuh"
#include "register_tile.cuh"

// Before the product: w as its left side, packed[row][m], zero where there is nothing, and the
// row's tap.
__device__ __forceinline__ void pack(const scalar* __restrict__ w, scalar* __restrict__ packed,
                                     int4* __restrict__ taps, const PackedRow& row, int i, int m,
                                     int filters) {
    const bool in_filters = row.is_filled && m < filters;
    packed[grid_index()] = in_filters ? w[row.weight + m * row.weight_pitch] : scalar(0);
    if (m == 0) taps[i] = row.tap;
}

extern "C" __global__ void conv2d_implicit_gemm_pack_forward(const scalar* __restrict__ w,
                                                             scalar* __restrict__ packed,
                                                             int4* __restrict__ taps,
                                                             const Conv2dShape shape,
                                                             const int rows, const int pitch) {
    const int i = grid_index() / pitch, m = grid_index() % pitch;
    if (i < rows) pack(w, packed, taps, forward_row(shape, i), i, m, shape.k);
}

extern "C" __global__ void conv2d_implicit_gemm_pack_backward_data(
    const scalar* __restrict__ w, scalar* __restrict__ packed, int4* __restrict__ taps,
    const Conv2dShape shape, const int rows, const int pitch) {
    const int i = grid_index() / pitch, m = grid_index() % pitch;
    if (i < rows) pack(w, packed, taps, backward_data_row(shape, i, TILE_K), i, m, shape.c);
}

__device__ __forceinline__ void gathered_product(const scalar* __restrict__ packed,
                                                 const int4* __restrict__ taps,
                                                 const scalar* __restrict__ source,
                                                 const scalar* __restrict__ bias,
                                                 scalar* __restrict__ output, Gather gather,
                                                 int block) {
    __shared__ Tiles buffers[2];
    __shared__ int place[TILE_N];
    constexpr int A_VECTORS = TILE_M * TILE_K / VECTOR / THREADS, A_ROW = TILE_M / VECTOR;
    constexpr int B_ROWS = TILE_K / WARPS, B_COLS = TILE_N / 32;
    static_assert(A_VECTORS > 0 && B_ROWS > 0, "every thread loads as much as any other");

    Walk& walk = gather.walk;
    const int tiles_m = ceil_div(gather.to.count, TILE_M), pitch = tiles_m * TILE_M;
    const int m0 = block % tiles_m * TILE_M, n0 = block / tiles_m * TILE_N;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (n0 >= gather.columns()) walk.tiles = 0;  // this phase has fewer than the largest

    // A warp gathers whole rows, 32 neighbours at a time.
    Column columns[B_COLS];
#pragma unroll
    for (int j = 0; j < B_COLS; j++) {
        columns[j] = column_at(gather, n0 + lane + 32 * j);
        if (warp == 0) place[lane + 32 * j] = columns[j].place;
    }
    __syncthreads();  // all store to the places that the first warp worked out

    Sums sums = {};
    Vector next_a[A_VECTORS];
    scalar next_b[B_ROWS][B_COLS];
    const auto load = [&](int k) {
#pragma unroll
        for (int i = 0; i < A_VECTORS; i++) {
            const int vector = threadIdx.x + i * THREADS;
            next_a[i] =
                vector_at(packed + (k + vector / A_ROW) * pitch + m0 + vector % A_ROW * VECTOR);
        }
#pragma unroll
        for (int i = 0; i < B_ROWS; i++) {
            const int4 tap = taps[k + warp + i * WARPS];
#pragma unroll
            for (int j = 0; j < B_COLS; j++) {
                const bool is_there =
                    in_image(gather.from, columns[j].row, columns[j].col, tap.y, tap.z);
                next_b[i][j] = is_there ? source[columns[j].offset + tap.x] : scalar(0);
            }
        }
    };

    if (walk.tiles > 0) load(walk.row);
    for (int tile = 0; tile < walk.tiles; tile++) {
        // Store what was loaded during the product before.
        Tiles& tiles = buffers[tile % 2];
#pragma unroll
        for (int i = 0; i < A_VECTORS; i++) {
            const int vector = threadIdx.x + i * THREADS;
            vector_at(&tiles.a[vector / A_ROW][vector % A_ROW * VECTOR]) = next_a[i];
        }
#pragma unroll
        for (int i = 0; i < B_ROWS; i++) {
#pragma unroll
            for (int j = 0; j < B_COLS; j++)
                tiles.b[warp + i * WARPS][lane + 32 * j] = next_b[i][j];
        }
        // All read what all stored. One barrier a tile is enough: the other buffer, which is
        // stored to next, was read before it.
        __syncthreads();

        walk.next(TILE_K);
        if (tile + 1 < walk.tiles) load(walk.row);
        multiply(tiles, sums);
    }

    // Store: a run of a thread's columns is a run of the output where a plane holds whole ones.
    const int plane = gather.to.rows * gather.to.cols;
    const bool in_vectors = gather.is_dense() && plane % VECTOR == 0 && (size_t)output % 16 == 0;
#pragma unroll
    for (int run = 0; run < RUNS_N; run++) {
        const int* to_run = &place[tile_col(run * VECTOR)];
#pragma unroll
        for (int i = 0; i < RUNS_M * VECTOR; i++) {
            const int m = m0 + tile_row(i);
            if (m >= gather.to.count) continue;
            const scalar start = bias ? bias[m] : scalar(0);
            scalar* out = output + m * plane;
            Vector values;
#pragma unroll
            for (int e = 0; e < VECTOR; e++) values.at[e] = sums[i][run * VECTOR + e] + start;
            if (in_vectors) {
                if (to_run[0] >= 0) vector_at(out + to_run[0]) = values;
                continue;
            }
#pragma unroll
            for (int e = 0; e < VECTOR; e++) {
                if (to_run[e] >= 0) out[to_run[e]] = values.at[e];
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    conv2d_implicit_gemm_forward(const scalar* __restrict__ packed, const int4* __restrict__ taps,
                                 const scalar* __restrict__ x, const scalar* __restrict__ b,
                                 scalar* __restrict__ y, const Conv2dShape shape) {
    gathered_product(packed, taps, x, b, y, gather_forward(shape, TILE_K), blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    conv2d_implicit_gemm_backward_data(const scalar* __restrict__ packed,
                                       const int4* __restrict__ taps, const scalar* __restrict__ dy,
                                       scalar* __restrict__ dx, const Conv2dShape shape,
                                       const int blocks_a_phase) {
    const int phase = blockIdx.x / blocks_a_phase, block = blockIdx.x % blocks_a_phase;
    gathered_product(packed, taps, dy, nullptr, dx, gather_backward_data(shape, phase, TILE_K),
                     block);
}
