// y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s], and its gradient to x, on tensor cores
// x (N,C,H,W), w (K,C,R,S), b (K) or null, y (N,K,P,Q), all float32; factors in TF32 or bfloat16
// A block owns TILE_M x TILE_N of the product, a warp 64x64 of that as 4x8 tiles of 16x8 sums.
// Against implicit_gemm: a warp multiplies whole tiles in one instruction; what is gathered goes to
// shared memory by asynchronous copies, two tiles ahead. Limits: C (K) counts as a multiple of 16.
#include "tensor_tile.cuh"

// A lane's factors of b are in 4 rows (bfloat16: every second of 8) and 8 columns: so many words
// more than a multiple of 32 that they are in 32 banks.
constexpr int PITCH_N = TILE_N + (BF16 ? 4 : 8);

struct __align__(16) Stage {
    unsigned a[STEPS][M_TILES][32][4];  // rounded, each lane's registers beside each other
    float b[TILE_K][PITCH_N];
};

// Before the product: w as its left side, rounded, in the order of `Stage`, and the rows' taps.
template <class RowAt>
__device__ __forceinline__ void pack(const float* __restrict__ w, unsigned* __restrict__ packed,
                                     int4* __restrict__ taps, int rows, int m_tiles, int filters,
                                     RowAt row_at) {
    const int word = grid_index(), reg = word % 4, lane = word / 4 % 32;
    const int step = word / 128 / m_tiles;
    const int m = word / 128 % m_tiles * 16 + lane / 4 + reg % 2 * 8;
    const int half = STEP_K / 2, in_half = BF16 ? lane % 4 * 2 : lane % 4;
    const int i = step * STEP_K + reg / 2 * half + in_half;
    if (i >= rows) return;
    const auto weight = [&](const PackedRow& row) {
        return row.is_filled && m < filters ? w[row.weight + m * row.weight_pitch] : 0.0f;
    };
    const float value = weight(row_at(i));
    packed[word] = BF16 ? pack_bf16(value, weight(row_at(i + 1))) : to_tf32(value);
    if (word < rows) taps[word] = row_at(word).tap;
}

extern "C" __global__ void conv2d_implicit_gemm_tensor_pack_forward(
    const float* __restrict__ w, unsigned* __restrict__ packed, int4* __restrict__ taps,
    const Conv2dShape shape, const int rows, const int m_tiles) {
    pack(w, packed, taps, rows, m_tiles, shape.k,
         [&](int i) { return forward_row_by_tap(shape, i, TILE_K); });
}

extern "C" __global__ void conv2d_implicit_gemm_tensor_pack_backward_data(
    const float* __restrict__ w, unsigned* __restrict__ packed, int4* __restrict__ taps,
    const Conv2dShape shape, const int rows, const int m_tiles) {
    pack(w, packed, taps, rows, m_tiles, shape.c,
         [&](int i) { return backward_data_row(shape, i, TILE_K); });
}

__device__ __forceinline__ void multiply(const Stage& stage, Sums& sums) {
    const int lane = threadIdx.x % 32, group = lane / 4;
    const int first = threadIdx.x / 32 * N_TILES * 8;
#pragma unroll  // all indices into registers are known
    for (int step = 0; step < STEPS; step++) {
        unsigned a[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            const uint4 regs = *reinterpret_cast<const uint4*>(stage.a[step][m][lane]);
            a[m][0] = regs.x, a[m][1] = regs.y, a[m][2] = regs.z, a[m][3] = regs.w;
        }
#pragma unroll
        for (int n = 0; n < N_TILES; n++) {
            const int col = first + n * 8 + group;
            unsigned b[2];
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if (BF16) {
                    const int k = step * STEP_K + half * 8 + lane % 4 * 2;
                    b[half] = pack_bf16(stage.b[k][col], stage.b[k + 1][col]);
                } else {
                    b[half] = to_tf32(stage.b[step * STEP_K + half * 4 + lane % 4][col]);
                }
            }
#pragma unroll
            for (int m = 0; m < M_TILES; m++) mma(sums[m][n], a[m], b);
        }
    }
}

__device__ __forceinline__ void gathered_product(const unsigned* __restrict__ packed,
                                                 const int4* __restrict__ taps,
                                                 const float* __restrict__ source,
                                                 const float* __restrict__ bias,
                                                 float* __restrict__ output, Gather gather,
                                                 int block) {
    __shared__ Stage stages[STAGES];
    __shared__ int place[TILE_N];
    constexpr int A_VECTORS = STEPS * M_TILES * 32 / THREADS, A_STEP = M_TILES * 32;
    constexpr int B_ROWS = TILE_K / WARPS, B_COLS = TILE_N / 32;

    Walk& walk = gather.walk;
    const int tiles_m = ceil_div(gather.to.count, TILE_M);
    const int m_block = block % tiles_m, n0 = block / tiles_m * TILE_N;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (n0 >= gather.columns()) walk.tiles = 0;  // this phase has fewer than the largest

    // A warp gathers whole rows, 32 neighbours at a time.
    Column columns[B_COLS];
#pragma unroll
    for (int j = 0; j < B_COLS; j++) {
        columns[j] = column_at(gather, n0 + lane + 32 * j);
        if (warp == 0) place[lane + 32 * j] = columns[j].place;
    }

    const uint4* filters = reinterpret_cast<const uint4*>(packed) + m_block * A_STEP;
    const int plane = gather.from.rows * gather.from.cols;
    const auto copy = [&](Stage& stage) {
        uint4* a = reinterpret_cast<uint4*>(stage.a);
#pragma unroll
        for (int i = 0; i < A_VECTORS; i++) {
            const int vector = threadIdx.x + i * THREADS;
            const int step = walk.row / STEP_K + vector / A_STEP;
            copy_async(a + vector, filters + step * tiles_m * A_STEP + vector % A_STEP, true);
        }
        // All rows have the first one's tap, each in the next plane.
        const int4 tap = taps[walk.row];
        const int planes = gather.from.count - walk.in_tap * TILE_K;
#pragma unroll
        for (int j = 0; j < B_COLS; j++) {
            const float* from = source + columns[j].offset + tap.x + warp * plane;
            const bool is_there =
                in_image(gather.from, columns[j].row, columns[j].col, tap.y, tap.z);
#pragma unroll
            for (int i = 0; i < B_ROWS; i++) {
                const int row = warp + i * WARPS;
                copy_async(&stage.b[row][lane + 32 * j], from + i * WARPS * plane,
                           is_there && row < planes);
            }
        }
        walk.next(TILE_K);
    };

    for (int tile = 0; tile < STAGES - 1; tile++) {
        if (tile < walk.tiles) copy(stages[tile]);
        copy_commit();
    }
    Sums sums = {};
    for (int tile = 0; tile < walk.tiles; tile++) {
        // This tile is there when each thread has waited for its own copies; and all have read the
        // tile before, whose place the next copies take.
        copy_wait<STAGES - 2>();
        __syncthreads();
        if (tile + STAGES - 1 < walk.tiles) copy(stages[(tile + STAGES - 1) % STAGES]);
        copy_commit();  // an empty group too: the wait counts them
        multiply(stages[tile % STAGES], sums);
    }
    __syncthreads();  // all store to the places that the first warp worked out

    // Store: 4 lanes have 8 neighbours in a row.
    const int out_plane = gather.to.rows * gather.to.cols;
    const bool in_pairs = gather.is_dense() && out_plane % 2 == 0 && (size_t)output % 8 == 0;
#pragma unroll
    for (int i = 0; i < M_TILES * 2; i++) {
        const int m = m_block * TILE_M + sum_row(i / 2) + i % 2 * 8;
        if (m >= gather.to.count) continue;
        const float start = bias ? bias[m] : 0.0f;
        float* out = output + m * out_plane;
#pragma unroll
        for (int n = 0; n < N_TILES; n++) {
            const int* to = &place[sum_col(n)];
            const float left = sums[i / 2][n][i % 2 * 2] + start;
            const float right = sums[i / 2][n][i % 2 * 2 + 1] + start;
            if (in_pairs) {
                if (to[0] >= 0) *reinterpret_cast<float2*>(out + to[0]) = make_float2(left, right);
                continue;
            }
            if (to[0] >= 0) out[to[0]] = left;
            if (to[1] >= 0) out[to[1]] = right;
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    conv2d_implicit_gemm_tensor_forward(const unsigned* __restrict__ packed,
                                        const int4* __restrict__ taps, const float* __restrict__ x,
                                        const float* __restrict__ b, float* __restrict__ y,
                                        const Conv2dShape shape) {
    gathered_product(packed, taps, x, b, y, gather_forward_by_tap(shape, TILE_K), blockIdx.x);
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    conv2d_implicit_gemm_tensor_backward_data(const unsigned* __restrict__ packed,
                                              const int4* __restrict__ taps,
                                              const float* __restrict__ dy, float* __restrict__ dx,
                                              const Conv2dShape shape, const int blocks_a_phase) {
    const int phase = blockIdx.x / blocks_a_phase, block = blockIdx.x % blocks_a_phase;
    gathered_product(packed, taps, dy, nullptr, dx, gather_backward_data(shape, phase, TILE_K),
                     block);
}
