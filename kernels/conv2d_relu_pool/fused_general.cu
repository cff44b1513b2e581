// y[n,k,i,j] = max(0, max over the window (i,j) of conv2d(x, w, b)); its gradients through argmax
// x (N,C,H,W), w (K,C,R,S), b (K) or null, y, argmax and dy (N,K,pooled P,pooled Q), db (K)
// One thread an output element, everything from global memory; of the bias a block a filter.
// Against fused.cu: any shape, no tile, one compilation for all. It is what a layer with little
// work takes, and the sums of slices (of both gradients that reduce over the batch) are here.
#include "index.cuh"

extern "C" __global__ void conv2d_relu_pool_general_forward(
    const scalar* __restrict__ x, const scalar* __restrict__ w, const scalar* __restrict__ b,
    scalar* __restrict__ y, unsigned char* __restrict__ argmax, const BlockShape shape) {
    const Conv2dShape& conv = shape.conv;
    const int i = grid_index();
    const bool in_y = i < conv.n * conv.k * shape.pooled_p * shape.pooled_q;
    if (in_y) {
        const Index4 at = unflatten(i, conv.k, shape.pooled_p, shape.pooled_q);  // n, k, row, col
        scalar best = 0;
        int best_at = CLOSED;
        for (int place = 0; place < shape.pool_r * shape.pool_s; place++) {
            const int p = at.c * shape.pool_r + place / shape.pool_s;
            const int q = at.d * shape.pool_s + place % shape.pool_s;
            scalar value = b ? b[at.b] : scalar(0);
            for (int c = 0; c < conv.c; c++) {
                for (int r = 0; r < conv.r; r++) {
                    const int row = input_row(conv, p, r);
                    if (!inside(row, conv.h)) continue;
                    for (int s = 0; s < conv.s; s++) {
                        const int col = input_col(conv, q, s);
                        if (!inside(col, conv.w)) continue;
                        value +=
                            x[x_offset(conv, at.a, c, row, col)] * w[w_offset(conv, at.b, c, r, s)];
                    }
                }
            }
            // From 0 on: only what the ReLU lets through can be the maximum. The first NaN is.
            if (!(value <= best) && best == best) {
                best = value;
                best_at = place;
            }
        }
        y[i] = best;
        argmax[i] = best_at;
    }
}

extern "C" __global__ void conv2d_relu_pool_general_backward_data(
    const scalar* __restrict__ dy, const unsigned char* __restrict__ argmax,
    const scalar* __restrict__ w, scalar* __restrict__ dx, const BlockShape shape) {
    const Conv2dShape& conv = shape.conv;
    const int i = grid_index();
    const bool in_x = i < conv.n * conv.c * conv.h * conv.w;
    if (in_x) {
        const Index4 at = unflatten(i, conv.c, conv.h, conv.w);  // n, c, h, w
        scalar sum = 0;
        for (int k = 0; k < conv.k; k++) {
            for (int r = 0; r < conv.r; r++) {
                const int p = output_row(conv, at.c, r);
                if (!inside(p, shape.pooled_p * shape.pool_r)) continue;
                for (int s = 0; s < conv.s; s++) {
                    const int q = output_col(conv, at.d, s);
                    if (!inside(q, shape.pooled_q * shape.pool_s)) continue;
                    const int window = y_offset(shape, at.a, k, p / shape.pool_r, q / shape.pool_s);
                    const int place = p % shape.pool_r * shape.pool_s + q % shape.pool_s;
                    if (argmax[window] == place) {
                        sum += dy[window] * w[w_offset(conv, k, at.b, r, s)];
                    }
                }
            }
        }
        dx[i] = sum;
    }
}

extern "C" __global__ void conv2d_relu_pool_general_backward_filter(
    const scalar* __restrict__ x, const scalar* __restrict__ dy,
    const unsigned char* __restrict__ argmax, scalar* __restrict__ partial, const BlockShape shape,
    const int slices) {
    const Conv2dShape& conv = shape.conv;
    const int i = grid_index(), taps = conv.k * conv.c * conv.r * conv.s;
    const int slice = i / taps;
    const bool in_partial = slice < slices;
    if (in_partial) {
        const Index4 at = unflatten(i % taps, conv.c, conv.r, conv.s);  // k, c, r, s
        scalar sum = 0;
        for (int n = slice; n < conv.n; n += slices) {
            for (int row = 0; row < shape.pooled_p; row++) {
                for (int col = 0; col < shape.pooled_q; col++) {
                    const int window = y_offset(shape, n, at.a, row, col);
                    const int place = argmax[window];
                    const int p = row * shape.pool_r + place / shape.pool_s;
                    const int q = col * shape.pool_s + place % shape.pool_s;
                    const int from_h = input_row(conv, p, at.c), from_w = input_col(conv, q, at.d);
                    const bool is_term =
                        place != CLOSED && inside(from_h, conv.h) && inside(from_w, conv.w);
                    if (is_term) sum += x[x_offset(conv, n, at.b, from_h, from_w)] * dy[window];
                }
            }
        }
        partial[i] = sum;
    }
}

// A block sums one filter over every `slices`-th image.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv2d_relu_pool_general_backward_bias(const scalar* __restrict__ dy,
                                           const unsigned char* __restrict__ argmax,
                                           scalar* __restrict__ partial, const BlockShape shape,
                                           const int slices) {
    __shared__ scalar sums[THREADS];
    const int k = blockIdx.x % shape.conv.k, slice = blockIdx.x / shape.conv.k;
    const int windows = shape.pooled_p * shape.pooled_q;
    const int images = ceil_div(shape.conv.n - slice, slices);
    scalar sum = 0;
    for (int i = threadIdx.x; i < images * windows; i += THREADS) {
        const int n = slice + i / windows * slices;
        const int at = y_offset(shape, n, k, 0, 0) + i % windows;
        if (argmax[at] != CLOSED) sum += dy[at];
    }
    sums[threadIdx.x] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();  // a thread adds what another one summed
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) partial[slice * shape.conv.k + k] = sums[0];
}

// A warp's lanes take elements side by side, its warps every WARPS-th slice.
extern "C" __global__ void __launch_bounds__(THREADS)
    conv2d_relu_pool_sum_slices(const scalar* __restrict__ partial, scalar* __restrict__ total,
                                const int size, const int slices) {
    constexpr int WARPS = THREADS / 32;
    __shared__ scalar sums[WARPS][32];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, i = blockIdx.x * 32 + lane;
    const bool in_total = i < size;
    scalar sum = 0;
    if (in_total) {
        for (int slice = warp; slice < slices; slice += WARPS) sum += partial[slice * size + i];
    }
    sums[warp][lane] = sum;
    __syncthreads();  // the first warp adds up the others
    if (in_total && warp == 0) {
        for (int other = 1; other < WARPS; other++) sum += sums[other][lane];
        total[i] = sum;
    }
}
