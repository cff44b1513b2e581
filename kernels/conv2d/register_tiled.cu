// y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s]; backward_data by filters turned round
// x (N,C,H,W), w (K,C,R,S), b (K) or null, y (N,K,P,Q); arranged: w as [k / KT][tap][k % KT]
// A thread owns COLS outputs in a row ("a strip") of FILTERS filters; a warp 32 strips of the same
// filters; a block (32, y, z) 32*y strips of KT = z*FILTERS filters.
// Against tiled: sums in registers, where a value from shared memory serves FILTERS or COLS
// products, not one. FILTER is the filter's size where stride and dilation are 1, or 0 for any.
// Limits: any shape whose strip fits shared memory; two blocks a multiprocessor, by registers.
#include "conv2d/window.cuh"

constexpr int FILTERS = 2 * LANES;         // two 16-byte loads a tap; in double as many registers
constexpr int TAPS = FILTER ? FILTER : 1;  // of a filter's row, that share the values in registers
static_assert(COLS % 2 == 1, "strips an odd number of words apart lie on different banks");

// How a pass is cut up, and where its output lies; the fields are those of Tiling in
// register_tiled.py.
struct Tiling {
    int images, rows, groups;      // of a block's strips: groups of COLS columns
    int channels, taps_r, taps_s;  // in shared memory at a time
    int pitch, plane;              // of the window there
    int out_h, out_w;              // the output's planes, of which this launch writes every
    int first_row, row_step;       // row_step-th row
    int first_col, col_step;       // and col_step-th column
};

// Where a strip's first output is: image and row of the block, first column.
struct Strip {
    int image, row, col;
    bool exists;
};
__device__ __forceinline__ Strip strip_of(int i, const Tiling& tiling) {
    const Index4 at = unflatten(i, tiling.images, tiling.rows, tiling.groups);
    return Strip{at.b, at.c, at.d * COLS, at.a == 0};
}

// One tap of all the thread's filters and outputs: unrolled, so that `sums` stays in registers.
__device__ __forceinline__ void add_products(scalar (&sums)[FILTERS][COLS], const scalar* values,
                                             const Vector& low, const Vector& high) {
#pragma unroll
    for (int f = 0; f < LANES; f++) {
#pragma unroll
        for (int j = 0; j < COLS; j++) {
            sums[f][j] += values[j] * low.at[f];
            sums[LANES + f][j] += values[j] * high.at[f];
        }
    }
}

// In float two blocks fit the registers; in double a value takes two of them.
extern "C" __global__ void __launch_bounds__(256, 8 / sizeof(scalar))
    conv2d_register_tiled(const scalar* __restrict__ x, const scalar* __restrict__ arranged,
                          const scalar* __restrict__ b, scalar* __restrict__ y,
                          const Conv2dShape shape, const Tiling tiling) {
    extern __shared__ Vector shared_vectors[];
    const int stride_h = FILTER ? 1 : shape.stride_h, stride_w = FILTER ? 1 : shape.stride_w;
    const int dilation_h = FILTER ? 1 : shape.dilation_h;
    const int dilation_w = FILTER ? 1 : shape.dilation_w;
    const int all_r = FILTER ? FILTER : shape.r, all_s = FILTER ? FILTER : shape.s;
    const int most_r = FILTER ? FILTER : tiling.taps_r, most_s = FILTER ? FILTER : tiling.taps_s;

    // The block's tile and filters; the thread's strip.
    const int block_filters = blockDim.z * FILTERS;
    const int filter_blocks = ceil_div(shape.k, block_filters);
    const int filter_block = blockIdx.x % filter_blocks;  // neighbouring blocks share their window
    const Index4 tile =
        unflatten(blockIdx.x / filter_blocks, ceil_div(shape.n, tiling.images),
                  ceil_div(shape.p, tiling.rows), ceil_div(shape.q, tiling.groups * COLS));
    const int n = tile.b * tiling.images, p = tile.c * tiling.rows;
    const int q = tile.d * tiling.groups * COLS;
    const Strip strip = strip_of(threadIdx.y * 32 + threadIdx.x, tiling);
    const int strip_at =
        strip.image * tiling.plane + strip.row * stride_h * tiling.pitch + strip.col * stride_w;

    const Window window{tiling.images, (tiling.rows - 1) * stride_h + (most_r - 1) * dilation_h + 1,
                        (tiling.groups * COLS - 1) * stride_w + (most_s - 1) * dilation_w + 1,
                        tiling.pitch, tiling.plane};
    const int channel_words = tiling.images * tiling.plane;
    // Filters first: they are read 16 bytes at a time.
    Vector* filters = shared_vectors;
    scalar* seen = reinterpret_cast<scalar*>(filters + tiling.channels * most_r * most_s *
                                                           (block_filters / LANES));

    scalar sums[FILTERS][COLS] = {};
    const scalar* taps = arranged + filter_block * block_filters * shape.c * all_r * all_s;
    for (int r0 = 0; r0 < all_r; r0 += most_r) {
        for (int s0 = 0; s0 < all_s; s0 += most_s) {
            const int taps_r = min(most_r, all_r - r0), taps_s = min(most_s, all_s - s0);
            clear_window(seen, tiling.channels * channel_words);
            __syncthreads();  // a zero must not overwrite what another thread loads
            for (int c = 0; c < shape.c; c += tiling.channels) {
                // Load the images' window, and the filters as they lie in memory.
                const int channels = min(tiling.channels, shape.c - c);
                load_window(seen, x, shape, window, n, c, channels, input_row(shape, p, r0),
                            input_col(shape, q, s0));
                const int words = channels * taps_r * taps_s * block_filters;
                const Vector* from = reinterpret_cast<const Vector*>(taps);
                for (int i = block_thread(); i < words / LANES; i += block_threads()) {
                    filters[i] = from[i];
                }
                taps += words;
                __syncthreads();  // a thread reads what its neighbours loaded

                const Vector* factor = filters + threadIdx.z * (FILTERS / LANES);
                // A strip too many has nothing to sum, but the next loads need all threads.
                for (int channel = 0; channel < (strip.exists ? channels : 0); channel++) {
                    for (int r = 0; r < taps_r; r++) {
                        const scalar* row = seen + channel * channel_words + strip_at +
                                            r * dilation_h * tiling.pitch;
                        for (int s = 0; s < taps_s; s += TAPS) {
                            scalar values[COLS + TAPS - 1];
#pragma unroll
                            for (int j = 0; j < COLS + TAPS - 1; j++) {
                                values[j] = row[j * stride_w + s * dilation_w];
                            }
#pragma unroll
                            for (int tap = 0; tap < TAPS; tap++) {
                                const Vector low = factor[0], high = factor[1];
                                factor += block_filters / LANES;
                                add_products(sums, values + tap, low, high);
                            }
                        }
                    }
                }
                __syncthreads();  // the next window overwrites what neighbours still read
            }
        }
    }

    // Store by way of shared memory, a filter at a time: lanes that held strips, COLS columns
    // apart, write neighbouring columns.
    const int lane = threadIdx.x, outputs = tiling.out_h * tiling.out_w;
    scalar* warp_strips =
        reinterpret_cast<scalar*>(shared_vectors) + (block_thread() - lane) * COLS;
    int offset[COLS];
#pragma unroll
    for (int j = 0; j < COLS; j++) {
        const int i = j * 32 + lane;
        const Strip other = strip_of(threadIdx.y * 32 + i / COLS, tiling);
        const int image = n + other.image, row = p + other.row, col = q + other.col + i % COLS;
        const bool in_output = other.exists && image < shape.n && row < shape.p && col < shape.q;
        offset[j] = in_output ? image * shape.k * outputs +
                                    (tiling.first_row + row * tiling.row_step) * tiling.out_w +
                                    tiling.first_col + col * tiling.col_step
                              : -1;
    }
    const int first_k = filter_block * block_filters + threadIdx.z * FILTERS;
#pragma unroll
    for (int f = 0; f < FILTERS; f++) {
        const int k = first_k + f;
        const bool in_filters = k < shape.k;  // the same for the whole warp
        if (in_filters) {
            const scalar bias = b ? b[k] : scalar(0);
#pragma unroll
            for (int j = 0; j < COLS; j++) warp_strips[lane * COLS + j] = sums[f][j] + bias;
            __syncwarp();  // a lane stores what others summed
#pragma unroll
            for (int j = 0; j < COLS; j++) {
                if (offset[j] >= 0) y[offset[j] + k * outputs] = warp_strips[j * 32 + lane];
            }
            __syncwarp();  // the next filter overwrites what others still read
        }
    }
}

// Which taps a correlation takes of the filters w, and in what order they go to shared memory; the
// fields are those of Arrangement in register_tiled.py.
struct Arrangement {
    int filters;                           // KT, of a block
    int taps_r, taps_s;                    // at a time
    int r_first, r_step, s_first, s_step;  // the correlation's tap r is w's r_first + r * r_step
    int k_stride, c_stride, r_stride;  // elements of w from one filter, channel, row to the next
};

extern "C" __global__ void conv2d_register_tiled_arrange(const scalar* __restrict__ w,
                                                         scalar* __restrict__ arranged,
                                                         const Conv2dShape shape,
                                                         const Arrangement to) {
    // One thread an element, filters fastest as in `arranged`; filters past K are zero.
    const int i = grid_index(), taps = shape.c * shape.r * shape.s;
    const int k = i / (taps * to.filters) * to.filters + i % to.filters;
    const Index4 at = unflatten(i / to.filters % taps, shape.c, shape.r, shape.s);
    const int c = at.b, r = at.c, s = at.d;
    const bool in_arranged = i < ceil_div(shape.k, to.filters) * to.filters * taps;
    if (in_arranged) {
        const int from = k * to.k_stride + c * to.c_stride +
                         (to.r_first + r * to.r_step) * to.r_stride + to.s_first + s * to.s_step;
        const int r0 = r / to.taps_r * to.taps_r, s0 = s / to.taps_s * to.taps_s;
        const int taps_r = min(to.taps_r, shape.r - r0), taps_s = min(to.taps_s, shape.s - s0);
        const int tap =
            shape.c * (r0 * shape.s + taps_r * s0) + (c * taps_r + r - r0) * taps_s + s - s0;
        arranged[(k / to.filters * taps + tap) * to.filters + k % to.filters] =
            k < shape.k ? w[from] : scalar(0);
    }
}
