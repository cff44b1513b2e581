// dw[k,c,r,s] = sum_{n,p,q} dy[n,k,p,q] x[n,c,h,w],  h = p*stride_h - pad_top + r*dilation_h
// x (N,C,H,W), dy (N,K,P,Q), dw (K,C,R,S), float32; factors in TF32 or bfloat16; partial
// (slices,K,C,R,S). A block owns TILE_M x TILE_N of one slice's product, a warp 64x64 of it.
// Against the forward pass: both sides run along gemm_k in memory, and lie so in shared memory;
// which pixel is which k is free, so that a lane's two are neighbours. Limits: any shape.
#include "tensor_tile.cuh"

struct __align__(16) Stage {
    float a[TILE_M][TILE_K], b[TILE_N][TILE_K];
};

// Every second pair of rows has its halves exchanged: the 16 lanes of half a warp that read pairs
// from 4 rows meet on no bank, and neither do 32 that write 2 rows.
__device__ __forceinline__ int swizzled(int row, int k) {
    return k ^ (row & 2) << 2;
}
__device__ __forceinline__ float2 pair_at(const float (*rows)[TILE_K], int row, int k) {
    return *reinterpret_cast<const float2*>(&rows[row][swizzled(row, k)]);
}

// A lane's two factors of a row for one instruction: pixels 2t and 2t + 1 in TF32; in bfloat16
// these two in one register, and 2t + 8 and 2t + 9.
__device__ __forceinline__ void factors(const float (*rows)[TILE_K], int row, int step,
                                        unsigned& first, unsigned& second) {
    const int k = step * STEP_K + threadIdx.x % 4 * 2;
    const float2 pair = pair_at(rows, row, k);
    if (BF16) {
        const float2 behind = pair_at(rows, row, k + 8);
        first = pack_bf16(pair.x, pair.y);
        second = pack_bf16(behind.x, behind.y);
    } else {
        first = to_tf32(pair.x);
        second = to_tf32(pair.y);
    }
}

__device__ __forceinline__ void multiply(const Stage& stage, Sums& sums) {
    const int group = threadIdx.x % 32 / 4, first = threadIdx.x / 32 * N_TILES * 8;
#pragma unroll  // all indices into registers are known
    for (int step = 0; step < STEPS; step++) {
        unsigned a[M_TILES][4];
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            factors(stage.a, m * 16 + group, step, a[m][0], a[m][2]);
            factors(stage.a, m * 16 + group + 8, step, a[m][1], a[m][3]);
        }
#pragma unroll
        for (int n = 0; n < N_TILES; n++) {
            unsigned b[2];
            factors(stage.b, first + n * 8 + group, step, b[0], b[1]);
#pragma unroll
            for (int m = 0; m < M_TILES; m++) mma(sums[m][n], a[m], b);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    conv2d_implicit_gemm_tensor_backward_filter(const float* __restrict__ x,
                                                const float* __restrict__ dy,
                                                float* __restrict__ partial,
                                                const Conv2dShape shape, const int slices,
                                                const int step_n, const int step_p,
                                                const int step_q) {
    __shared__ Stage stages[STAGES];
    __shared__ int4 taps[TILE_N];
    constexpr int LINES = THREADS / TILE_K;  // rows of a tile that are copied at a time
    constexpr int A_LINES = TILE_M / LINES, B_LINES = TILE_N / LINES, BATCH = 4;

    const int depth = shape.c * shape.r * shape.s, plane = shape.p * shape.q;
    const int tiles_m = ceil_div(shape.k, TILE_M), blocks = tiles_m * ceil_div(depth, TILE_N);
    const int slice = blockIdx.x / blocks, block = blockIdx.x % blocks;
    const int m0 = block % tiles_m * TILE_M, n0 = block / tiles_m * TILE_N;
    const int line = threadIdx.x / TILE_K, lane = threadIdx.x % TILE_K;
    const Planes image{shape.c, shape.h, shape.w};

    // Where the taps of each column read, counted from a pixel's first one.
    for (int i = threadIdx.x; i < TILE_N; i += THREADS) taps[i] = forward_row(shape, n0 + i).tap;
    __syncthreads();  // a thread copies for columns whose taps others worked out

    // The slice's pixels, TILE_K at a time; a thread's own one moves on by TILE_K without division.
    const int first_image = (int)((long long)shape.n * slice / slices);
    const int end_image = (int)((long long)shape.n * (slice + 1) / slices);
    const Index4 begin = unflatten(lane, 1, shape.p, shape.q);
    int n = first_image + begin.a, p = begin.c, q = begin.d;
    const auto copy = [&](Stage& stage) {
        const bool in_slice = n < end_image;
        const float* dy_pixel = dy + y_offset(shape, n, m0 + line, p, q);
#pragma unroll
        for (int i = 0; i < A_LINES; i++) {
            const int row = line + i * LINES;
            copy_async(&stage.a[row][swizzled(row, lane)], dy_pixel + i * LINES * plane,
                       in_slice && m0 + row < shape.k);
        }
        const int top = input_row(shape, p, 0), left = input_col(shape, q, 0);
        const float* x_pixel = x + x_offset(shape, n, 0, top, left);
        // Several taps at a time: ptxas parts each load from shared memory from the next copy to
        // it by three empty instructions.
#pragma unroll
        for (int i = 0; i < B_LINES; i += BATCH) {
            int4 tap[BATCH];
#pragma unroll
            for (int j = 0; j < BATCH; j++) tap[j] = taps[line + (i + j) * LINES];
#pragma unroll
            for (int j = 0; j < BATCH; j++) {
                const int row = line + (i + j) * LINES;
                copy_async(&stage.b[row][swizzled(row, lane)], x_pixel + tap[j].x,
                           in_slice && in_image(image, top, left, tap[j].y, tap[j].z));
            }
        }
        // The next pixel, with carries.
        q += step_q;
        const int row_more = q >= shape.q;
        q -= row_more ? shape.q : 0;
        p += step_p + row_more;
        const int image_more = p >= shape.p;
        p -= image_more ? shape.p : 0;
        n += step_n + image_more;
    };

    for (int tile = 0; tile < STAGES - 1; tile++) {
        copy(stages[tile]);  // past the end: zeros
        copy_commit();
    }
    Sums sums = {};
    const int tiles = ceil_div((end_image - first_image) * plane, TILE_K);
    for (int tile = 0; tile < tiles; tile++) {
        // This tile is there when each thread has waited for its own copies; and all have read the
        // tile before, whose place the next copies take.
        copy_wait<STAGES - 2>();
        __syncthreads();
        copy(stages[(tile + STAGES - 1) % STAGES]);
        copy_commit();
        multiply(stages[tile % STAGES], sums);
    }

#pragma unroll
    for (int i = 0; i < M_TILES * 2; i++) {
        const int m = m0 + sum_row(i / 2) + i % 2 * 8;
#pragma unroll
        for (int j = 0; j < N_TILES * 2; j++) {
            const int column = n0 + sum_col(j / 2) + j % 2;
            const bool in_filters = m < shape.k && column < depth;
            if (in_filters) {
                partial[(slice * shape.k + m) * depth + column] =
                    sums[i / 2][j / 2][i % 2 * 2 + j % 2];
            }
        }
    }
}
