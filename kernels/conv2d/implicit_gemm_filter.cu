// dw[k,c,r,s] = sum_{n,p,q} dy[n,k,p,q] x[n,c,h,w],  h = p*stride_h - pad_top + r*dilation_h
// x (N,C,H,W), dy (N,K,P,Q), dw (K,C,R,S): gemm_m = K, gemm_n = C*R*S, gemm_k = N*P*Q;
// partial (slices,K,C,R,S). A block owns TILE_M x TILE_N of one slice's product, a thread 8x8 of
// it. Against the forward pass: both sides run along gemm_k in memory, so 8 lanes load 8
// neighbouring pixels; images are split into slices, summed afterwards in one order. Limits: any
// shape.
#include "gather.cuh"
#include "register_tile.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    conv2d_implicit_gemm_backward_filter(const scalar* __restrict__ x,
                                         const scalar* __restrict__ dy,
                                         scalar* __restrict__ partial, const Conv2dShape shape,
                                         const int slices, const int step_n, const int step_p,
                                         const int step_q) {
    __shared__ Tiles buffers[2];
    constexpr int LINES = THREADS / TILE_K;  // rows of a tile that are loaded at a time
    constexpr int A_LINES = TILE_M / LINES, B_LINES = TILE_N / LINES;

    const int depth = shape.c * shape.r * shape.s, plane = shape.p * shape.q;
    const int tiles_m = ceil_div(shape.k, TILE_M), blocks = tiles_m * ceil_div(depth, TILE_N);
    const int slice = blockIdx.x / blocks, tile = blockIdx.x % blocks;
    const int m0 = tile % tiles_m * TILE_M, n0 = tile / tiles_m * TILE_N;
    const int line = threadIdx.x / TILE_K, lane = threadIdx.x % TILE_K;

    // Where the taps of a thread's columns read, counted from a pixel's first one.
    int4 taps[B_LINES];
#pragma unroll
    for (int i = 0; i < B_LINES; i++) {
        taps[i] = forward_row(shape, n0 + line + i * LINES).tap;
    }

    // The slice's pixels, TILE_K at a time; a thread's own one moves on by TILE_K without division.
    const int first_image = (int)((long long)shape.n * slice / slices);
    const int end_image = (int)((long long)shape.n * (slice + 1) / slices);
    const Index4 begin = unflatten(lane, 1, shape.p, shape.q);
    int n = first_image + begin.a, p = begin.c, q = begin.d;

    const Planes image{shape.c, shape.h, shape.w};
    Sums sums = {};
    scalar next_a[A_LINES], next_b[B_LINES];
    const auto load = [&]() {
        const bool in_slice = n < end_image;
        const scalar* dy_pixel = dy + y_offset(shape, n, m0 + line, p, q);
#pragma unroll
        for (int i = 0; i < A_LINES; i++) {
            const bool in_filters = m0 + line + i * LINES < shape.k;
            next_a[i] = in_slice && in_filters ? dy_pixel[i * LINES * plane] : scalar(0);
        }
        const int row = in_slice ? input_row(shape, p, 0) : NOWHERE, col = input_col(shape, q, 0);
        const int offset = x_offset(shape, n, 0, row, col);
#pragma unroll
        for (int i = 0; i < B_LINES; i++) {
            const bool is_there = in_image(image, row, col, taps[i].y, taps[i].z);
            next_b[i] = is_there ? x[offset + taps[i].x] : scalar(0);
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

    const int pixels = (end_image - first_image) * plane;
    load();
    for (int k = 0; k < pixels; k += TILE_K) {
        // Store what was loaded during the product before, transposed; the pad of a row keeps the
        // 8 lanes of a line on different banks.
        Tiles& tiles = buffers[k / TILE_K % 2];
#pragma unroll
        for (int i = 0; i < A_LINES; i++) tiles.a[lane][line + i * LINES] = next_a[i];
#pragma unroll
        for (int i = 0; i < B_LINES; i++) tiles.b[lane][line + i * LINES] = next_b[i];
        // All read what all stored. One barrier a tile is enough: the other buffer, which is
        // stored to next, was read before it.
        __syncthreads();

        load();  // past the end: zeros
        multiply(tiles, sums);
    }

#pragma unroll
    for (int i = 0; i < RUNS_M * VECTOR; i++) {
        const int m = m0 + tile_row(i);
#pragma unroll
        for (int j = 0; j < RUNS_N * VECTOR; j++) {
            const int column = n0 + tile_col(j);
            const bool in_filters = m < shape.k && column < depth;
            if (in_filters) partial[(slice * shape.k + m) * depth + column] = sums[i][j];
        }
    }
}
