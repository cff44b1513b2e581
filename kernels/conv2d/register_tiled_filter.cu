// dw[k,c,r,s] = sum_{n,p,q} x[n,c,h,w] dy[n,k,p,q],  h = p*stride_h - pad_top + r*dilation_h
// x (N,C,H,W), dy (N,K,P,Q), dw (K,C,R,S); partial (slices,K,C,R,S)
// A thread owns ROWS x TAPS taps of one channel for FILTERS filters and every `shares`-th row of
// each tile of dy; a block some channels and filters and every `slices`-th image.
// Against tiled_filter: sums in registers, where a value from shared memory serves many products.
// FILTER as in register_tiled.cu; with 0 a thread owns 4 taps of one row. Limits: the same.
#include "conv2d/window.cuh"

constexpr int ROWS = FILTER ? FILTER : 1, TAPS = FILTER ? FILTER : 4;
// So that all sums of a thread fit its registers, in double as well.
constexpr int VECTORS = FILTER == 5 ? 1 : 2, FILTERS = VECTORS * LANES;
constexpr int POSITIONS = 2;  // neighbouring outputs at a time: they share all but one input column
constexpr int SUMS = ROWS * TAPS | 1;  // an odd number of words apart: different banks

// How the pass is cut up; the fields are those of FilterTiling in register_tiled_filter.py.
struct FilterTiling {
    int channels, groups, shares;  // of a block: groups of FILTERS filters
    int taps_r, taps_s;            // of a block
    int rows, cols;                // of a tile of dy
    int pitch, plane;              // of the window of x, in words
    int dy_pitch, dy_row;  // of the tile of dy, in vectors: position to position, row to row
    int slices;
};

// The sums of a thread, at N neighbouring outputs: `seen` is what the first one's first tap reads.
template <int N>
__device__ __forceinline__ void add_positions(scalar (&sums)[FILTERS][ROWS][TAPS],
                                              const scalar* seen, const Vector* dy, int dy_pitch,
                                              int row_step, int stride, int dilation) {
    Vector gradients[N][VECTORS];
#pragma unroll
    for (int i = 0; i < N; i++) {
#pragma unroll
        for (int v = 0; v < VECTORS; v++) gradients[i][v] = dy[i * dy_pitch + v];
    }
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        // With the filter's size compiled in, stride and dilation are 1 and the positions overlap.
        constexpr int REACH = FILTER ? TAPS + N - 1 : TAPS * N;
        scalar values[REACH];
#pragma unroll
        for (int j = 0; j < REACH; j++) {
            values[j] =
                FILTER ? seen[r * row_step + j] : seen[j / TAPS * stride + j % TAPS * dilation];
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
#pragma unroll
            for (int s = 0; s < TAPS; s++) {
#pragma unroll
                for (int f = 0; f < FILTERS; f++) {
                    sums[f][r][s] += values[FILTER ? i + s : i * TAPS + s] *
                                     gradients[i][f / LANES].at[f % LANES];
                }
            }
        }
    }
}

// Copy a tile of dy, filters innermost; what lies beyond the last filter is zero.
__device__ __forceinline__ void load_gradients(Vector* __restrict__ tile,
                                               const scalar* __restrict__ dy,
                                               const Conv2dShape& shape, const FilterTiling& tiling,
                                               int n, int k, int p, int q) {
    const int rows = min(tiling.rows, shape.p - p), cols = min(tiling.cols, shape.q - q);
    const int vectors = tiling.groups * VECTORS;
    for (int i = block_thread(); i < vectors * rows * cols; i += block_threads()) {
        const Index4 at = unflatten(i, vectors, rows, cols);
        Vector gradients;
#pragma unroll
        for (int f = 0; f < LANES; f++) {
            const int filter = k + at.b * LANES + f;
            gradients.at[f] =
                filter < shape.k ? dy[y_offset(shape, n, filter, p + at.c, q + at.d)] : scalar(0);
        }
        tile[at.c * tiling.dy_row + at.d * tiling.dy_pitch + at.b] = gradients;
    }
}

extern "C" __global__ void __launch_bounds__(128, 3)
    conv2d_register_tiled_backward_filter(const scalar* __restrict__ x,
                                          const scalar* __restrict__ dy,
                                          scalar* __restrict__ partial, const Conv2dShape shape,
                                          const FilterTiling tiling) {
    extern __shared__ Vector gradients[];
    scalar* seen = reinterpret_cast<scalar*>(gradients + tiling.rows * tiling.dy_row);
    const int stride_h = FILTER ? 1 : shape.stride_h, stride_w = FILTER ? 1 : shape.stride_w;
    const int dilation_h = FILTER ? 1 : shape.dilation_h;
    const int dilation_w = FILTER ? 1 : shape.dilation_w;

    // The block's channels, filters and taps.
    const int slice = blockIdx.x % tiling.slices;
    const Index4 part =
        unflatten(blockIdx.x / tiling.slices, ceil_div(shape.c, tiling.channels),
                  ceil_div(shape.r, tiling.taps_r), ceil_div(shape.s, tiling.taps_s));
    const int first_k = part.a * tiling.groups * FILTERS, first_c = part.b * tiling.channels;
    const int first_r = part.c * tiling.taps_r, first_s = part.d * tiling.taps_s;
    const int channels = min(tiling.channels, shape.c - first_c);

    // The thread's: shares fastest, then taps.
    const int tap_rows = tiling.taps_r / ROWS, chunks = ceil_div(tiling.taps_s, TAPS);
    const int share = threadIdx.x % tiling.shares;
    const Index4 own = unflatten(threadIdx.x / tiling.shares, tiling.channels, tap_rows, chunks);
    const bool has_taps = own.a < tiling.groups;
    const scalar* own_seen =
        seen + own.b * tiling.plane + own.c * dilation_h * tiling.pitch + own.d * TAPS * dilation_w;
    const Vector* own_gradients = gradients + own.a * VECTORS;

    const Window window{1, (tiling.rows - 1) * stride_h + (tiling.taps_r - 1) * dilation_h + 1,
                        (tiling.cols - 1) * stride_w + (chunks * TAPS - 1) * dilation_w + 1,
                        tiling.pitch, tiling.plane};
    const bool one_tile = tiling.rows >= shape.p && tiling.cols >= shape.q;
    scalar sums[FILTERS][ROWS][TAPS] = {};
    for (int n = slice; n < shape.n; n += tiling.slices) {
        for (int p = 0; p < shape.p; p += tiling.rows) {
            for (int q = 0; q < shape.q; q += tiling.cols) {
                // Where one tile is all, every image leaves the same places at zero.
                if (n == slice || !one_tile) {
                    clear_window(seen, tiling.channels * tiling.plane);
                    __syncthreads();  // a zero must not overwrite what another thread loads
                }
                load_window(seen, x, shape, window, n, first_c, channels,
                            input_row(shape, p, first_r), input_col(shape, q, first_s));
                load_gradients(gradients, dy, shape, tiling, n, first_k, p, q);
                __syncthreads();  // a thread reads what its neighbours loaded

                const int rows = has_taps ? min(tiling.rows, shape.p - p) : 0;
                const int cols = min(tiling.cols, shape.q - q);
                for (int row = share; row < rows; row += tiling.shares) {
                    const scalar* row_seen = own_seen + row * stride_h * tiling.pitch;
                    const Vector* row_gradients = own_gradients + row * tiling.dy_row;
                    int col = 0;
                    for (; col + POSITIONS <= cols; col += POSITIONS) {
                        add_positions<POSITIONS>(
                            sums, row_seen + col * stride_w, row_gradients + col * tiling.dy_pitch,
                            tiling.dy_pitch, tiling.pitch, stride_w, dilation_w);
                    }
                    for (; col < cols; col++) {
                        add_positions<1>(sums, row_seen + col * stride_w,
                                         row_gradients + col * tiling.dy_pitch, tiling.dy_pitch,
                                         tiling.pitch, stride_w, dilation_w);
                    }
                }
                __syncthreads();  // the next tiles overwrite what others still read
            }
        }
    }

    // Add the shares up, one filter of every thread at a time, always in the same order.
    scalar* totals = reinterpret_cast<scalar*>(gradients);
    const int taps = tiling.taps_r * tiling.taps_s;
#pragma unroll
    for (int f = 0; f < FILTERS; f++) {
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
#pragma unroll
            for (int s = 0; s < TAPS; s++) {
                totals[threadIdx.x * SUMS + r * TAPS + s] = sums[f][r][s];
            }
        }
        __syncthreads();  // a sum has its shares from several threads
        for (int i = threadIdx.x; i < tiling.groups * channels * taps; i += blockDim.x) {
            const Index4 at = unflatten(i, channels, tiling.taps_r, tiling.taps_s);
            const int k = first_k + at.a * FILTERS + f;
            const int r = first_r + at.c, s = first_s + at.d;
            const bool in_filter = k < shape.k && r < shape.r && s < shape.s;
            if (in_filter) {
                const int owner =
                    ((at.a * tiling.channels + at.b) * tap_rows + at.c / ROWS) * chunks +
                    at.d / TAPS;
                const scalar* shares =
                    totals + owner * tiling.shares * SUMS + at.c % ROWS * TAPS + at.d % TAPS;
                scalar sum = 0;
                for (int i = 0; i < tiling.shares; i++) sum += shares[i * SUMS];
                const int filters = shape.k * shape.c * shape.r * shape.s;
                partial[slice * filters + w_offset(shape, k, first_c + at.b, r, s)] = sum;
            }
        }
        __syncthreads();  // the next filter overwrites what others still read
    }
}
