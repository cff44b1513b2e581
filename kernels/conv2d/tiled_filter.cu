// dw[k,c,r,s] = sum_{n,p,q} x[n,c,h,w] dy[n,k,p,q],  h = p*stride_h - pad_top + r*dilation_h
// x (N,C,H,W), dy (N,K,P,Q), dw (K,C,R,S); partial (slices,K,C,R,S)
// A block owns taps_r x taps_s taps of one (k, c) and every `slices`-th image; for each tile of dy
// its threads split as taps x shares, each summing one tap over its share of the tile.
// Against naive: a dy tile and the x tile with halo are read once and serve all taps. Slices keep
// a GPU busy where K*C is small; they are summed by a second kernel, in one order, without atomics.
#include "index.cuh"

// The 2: without a least number of resident blocks ptxas aims at more of them, and spills for it.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    conv2d_tiled_backward_filter(const scalar* __restrict__ x, const scalar* __restrict__ dy,
                                 scalar* __restrict__ partial, const Conv2dShape shape,
                                 const int taps_r, const int taps_s, const int slices) {
    __shared__ scalar dy_tile[TILE_P][TILE_Q];
    __shared__ scalar sums[THREADS];
    extern __shared__ scalar halo[];
    const int halo_h = (TILE_P - 1) * shape.stride_h + (taps_r - 1) * shape.dilation_h + 1;
    const int halo_w = (TILE_Q - 1) * shape.stride_w + (taps_s - 1) * shape.dilation_w + 1;

    // The block's part of dw, and the slice of the batch it sums over.
    const int chunks_r = ceil_div(shape.r, taps_r), chunks_s = ceil_div(shape.s, taps_s);
    const Index4 chunk = unflatten(blockIdx.x / slices, shape.c, chunks_r, chunks_s);
    const int slice = blockIdx.x % slices;
    const int k = chunk.a, c = chunk.b;

    // The thread's tap, and its share of each tile's elements.
    const int taps = taps_r * taps_s, shares = THREADS / taps;
    const int tap = threadIdx.x % taps, share = threadIdx.x / taps;
    const int r = tap / taps_s, s = tap % taps_s;
    const bool has_tap = share < shares;

    scalar sum = 0;
    for (int n = slice; n < shape.n; n += slices) {
        const scalar* x_plane = x + x_offset(shape, n, c, 0, 0);
        const scalar* dy_plane = dy + y_offset(shape, n, k, 0, 0);
        for (int p0 = 0; p0 < shape.p; p0 += TILE_P) {
            for (int q0 = 0; q0 < shape.q; q0 += TILE_Q) {
                // Load both tiles; zero beyond the edges, so the sums need no bounds.
                for (int i = threadIdx.x; i < TILE_P * TILE_Q; i += THREADS) {
                    const int p = p0 + i / TILE_Q, q = q0 + i % TILE_Q;
                    const bool in_plane = p < shape.p && q < shape.q;
                    dy_tile[i / TILE_Q][i % TILE_Q] =
                        in_plane ? dy_plane[p * shape.q + q] : scalar(0);
                }
                const int top = input_row(shape, p0, chunk.c * taps_r);
                const int left = input_col(shape, q0, chunk.d * taps_s);
                for (int i = threadIdx.x; i < halo_h * halo_w; i += THREADS) {
                    const int row = top + i / halo_w, col = left + i % halo_w;
                    const bool in_image = inside(row, shape.h) && inside(col, shape.w);
                    halo[i] = in_image ? x_plane[row * shape.w + col] : scalar(0);
                }
                __syncthreads();  // every tap needs the whole of both tiles

                if (has_tap) {
                    const scalar* seen =
                        halo + r * shape.dilation_h * halo_w + s * shape.dilation_w;
                    const int filled = min(TILE_P, shape.p - p0) * TILE_Q;
                    for (int i = share; i < filled; i += shares) {
                        const int row = i / TILE_Q, col = i % TILE_Q;
                        const int at = row * shape.stride_h * halo_w + col * shape.stride_w;
                        sum += dy_tile[row][col] * seen[at];
                    }
                }
                __syncthreads();  // the next tiles overwrite what others still read
            }
        }
    }

    sums[threadIdx.x] = sum;
    __syncthreads();  // a tap's first share adds up the others
    const int filter_r = chunk.c * taps_r + r, filter_s = chunk.d * taps_s + s;
    const bool in_filter = share == 0 && filter_r < shape.r && filter_s < shape.s;
    if (in_filter) {
        for (int other = 1; other < shares; other++) sum += sums[other * taps + tap];
        const int filters = shape.k * shape.c * shape.r * shape.s;
        partial[slice * filters + w_offset(shape, k, c, filter_r, filter_s)] = sum;
    }
}

extern "C" __global__ void conv2d_tiled_sum_slices(const scalar* __restrict__ partial,
                                                   scalar* __restrict__ dw, const Conv2dShape shape,
                                                   const int slices) {
    const int i = grid_index();
    const int filters = shape.k * shape.c * shape.r * shape.s;
    const bool in_filters = i < filters;
    if (in_filters) {
        scalar sum = 0;
        for (int slice = 0; slice < slices; slice++) sum += partial[slice * filters + i];
        dw[i] = sum;
    }
}
