// y[n,k,i,j] = max(0, b[k] + max over the window (i,j) of sum_{c,r,s} x[n,c,h,w] w[k,c,r,s])
// x (N,C,H,W), w (K,C,R,S), b (K) or null, y and argmax (N,K,pooled P,pooled Q)
// A thread owns STRIP windows side by side of one filter, and keeps all their convolution outputs
// in registers; a block has IMAGES x FILTERS x ROWS x STRIPS such threads. Against conv2d, ReLU and
// max_pool2d: one launch, and the map before the pooling is never stored. The layer is compiled in,
// N alone is a run-time value: the loop has no index arithmetic, and a row of the input, once in
// registers, serves all taps and both rows of outputs. Shared memory returns 128 bytes a cycle,
// also where lanes share an address: 1 byte a product is the limit, and LeNet's layers read 0.6 and
// 0.9. Limits: tiles that fit (fused_plan.py); fused_general.cu has the rest.
#include "conv2d_relu_pool/fused.cuh"

constexpr int OWNERS = IMAGES * FILTERS * ROWS * STRIPS;
constexpr int THREADS = (OWNERS + 31) / 32 * 32;
constexpr int TAPS = CHANNELS * R * S, FILTER = TAPS + FILTER_PAD;
// The input is read two at a time where that is aligned; there is room behind a row's end.
constexpr bool PAIRS = STEP_W % 2 == 0;
static_assert(PITCH % 2 == 0 && GROUP % 2 == 0 && IMAGE % 2 == 0, "pairs are aligned");
static_assert(THREADS <= 1024, "CUDA's limit of threads a block");
// A block whose outputs are all there is of its images stores one piece of memory.
constexpr bool IS_WHOLE =
    FILTERS == layer.conv.k && ROWS == layer.pooled_p && STRIPS * STRIP == layer.pooled_q;

__device__ __forceinline__ void load_filters(scalar* filters, const scalar* __restrict__ w, int k0,
                                             int c0) {
    for (int i = threadIdx.x; i < FILTERS * TAPS; i += THREADS) {
        const int k = i / TAPS, tap = i % TAPS;
        const bool in_w = k0 + k < layer.conv.k && c0 + tap / (R * S) < layer.conv.c;
        filters[k * FILTER + tap] =
            in_w ? w[w_offset(layer.conv, k0 + k, c0, 0, 0) + tap] : scalar(0);
    }
}

__device__ __forceinline__ void load_row(scalar (&row)[SEEN_W + 1], const scalar* from) {
#pragma unroll
    for (int j = 0; j < SEEN_W; j += PAIRS ? 2 : 1) {
        if (PAIRS) {
            const Pair<scalar> two = *reinterpret_cast<const Pair<scalar>*>(from + j);
            row[j] = two.x;
            row[j + 1] = two.y;
        } else {
            row[j] = from[j];
        }
    }
}

// Unrolled throughout: sums, row and taps are registers, and shared memory is read at constants.
__device__ __forceinline__ void add_channel(scalar (&sums)[layer.pool_r][OUTPUTS],
                                            const scalar* seen, const scalar* filter) {
    scalar taps[R][S];
#pragma unroll
    for (int i = 0; i < SEEN_H; i++) {
        const int r_new = i / layer.conv.dilation_h;
        if (i % layer.conv.dilation_h == 0 && r_new < R) {  // the window's first row needs them now
#pragma unroll
            for (int s = 0; s < S; s++) taps[r_new][s] = filter[r_new * S + s];
        }
        scalar row[SEEN_W + 1];
        load_row(row, seen + i / STEP_H * GROUP + i % STEP_H * PITCH);
#pragma unroll
        for (int a = 0; a < layer.pool_r; a++) {
            const int reach = i - a * layer.conv.stride_h, r = reach / layer.conv.dilation_h;
            if (reach < 0 || reach % layer.conv.dilation_h != 0 || r >= R) continue;
#pragma unroll
            for (int s = 0; s < S; s++) {
#pragma unroll
                for (int q = 0; q < OUTPUTS; q++) {
                    const int col = q * layer.conv.stride_w + s * layer.conv.dilation_w;
                    sums[a][q] += row[col] * taps[r][s];
                }
            }
        }
    }
}

// The 2: two blocks a multiprocessor, one of which works while the other loads or stores.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    conv2d_relu_pool_fused_forward(const scalar* __restrict__ x, const scalar* __restrict__ w,
                                   const scalar* __restrict__ b, scalar* __restrict__ y,
                                   unsigned char* __restrict__ argmax, const BlockShape shape) {
    extern __shared__ Pair<scalar> shared[];
    scalar* const images = reinterpret_cast<scalar*>(shared);
    scalar* const filters = images + IMAGES * IMAGE;

    // The block's place, and the thread's in it; the last threads of a last warp own nothing.
    const Index4 tile = unflatten(blockIdx.x, FILTER_TILES, ROW_TILES, 1);
    const int n0 = tile.a * IMAGES, k0 = tile.b * FILTERS, row0 = tile.c * ROWS;
    const int n = shape.conv.n;
    const bool is_owner = threadIdx.x < OWNERS;
    const Index4 own = unflatten(threadIdx.x, FILTERS, ROWS, STRIPS);  // image, filter, row, strip

    scalar sums[layer.pool_r][OUTPUTS];
    const scalar bias = b && k0 + own.b < layer.conv.k ? b[k0 + own.b] : scalar(0);
#pragma unroll
    for (int a = 0; a < layer.pool_r; a++) {
#pragma unroll
        for (int q = 0; q < OUTPUTS; q++) sums[a][q] = bias;
    }

    const scalar* seen = images + own.a * IMAGE + own.c * GROUP + own.d * STEP_W;
    for (int c0 = 0; c0 < layer.conv.c; c0 += CHANNELS) {
        for (int i = 0; i < IMAGES; i++) {
            const int first_row = row0 * STEP_H - layer.conv.pad_top;
            load_image<THREADS>(images + i * IMAGE, x, n0 + i, n0 + i < n, c0, first_row);
        }
        load_filters(filters, w, k0, c0);
        __syncthreads();  // a thread reads what its neighbours loaded

        if (is_owner) {
#pragma unroll 1
            for (int c = 0; c < CHANNELS; c++) {
                add_channel(sums, seen + c * PLANE, filters + own.b * FILTER + c * R * S);
            }
        }
        __syncthreads();  // the next channels, or the outputs, overwrite what others still read
    }

    // Each window's maximum, ties to the first in row order; NaN is its window's maximum.
    scalar maxima[STRIP];
    int places[STRIP];
#pragma unroll
    for (int j = 0; j < STRIP; j++) {
        scalar best = sums[0][j * layer.pool_s];
        int best_at = 0;
#pragma unroll
        for (int i = 1; i < WINDOW; i++) {
            const scalar value = sums[i / layer.pool_s][j * layer.pool_s + i % layer.pool_s];
            if (!(value <= best) && best == best) {  // greater, or the first NaN
                best = value;
                best_at = i;
            }
        }
        const bool is_closed = best <= scalar(0);
        maxima[j] = is_closed ? scalar(0) : best;
        places[j] = is_closed ? CLOSED : best_at;
    }
    scalar* const all_maxima = images;
    int* const all_places = reinterpret_cast<int*>(all_maxima + OWNERS * STRIP);
    if (is_owner) {
        store_run(all_maxima + threadIdx.x * STRIP, maxima);
        store_run(all_places + threadIdx.x * STRIP, places);
    }
    __syncthreads();  // neighbouring threads store what neighbouring windows found

    const int filled = min(n - n0, IMAGES) * (OWNERS / IMAGES) * STRIP;
    for (int i = threadIdx.x; i < filled; i += THREADS) {
        const Index4 at = unflatten(i, FILTERS, ROWS, STRIPS * STRIP);
        const int k = k0 + at.b, row = row0 + at.c;
        const bool in_y =
            IS_WHOLE || (k < layer.conv.k && row < layer.pooled_p && at.d < layer.pooled_q);
        if (in_y) {
            const int to = IS_WHOLE ? y_offset(layer, n0, 0, 0, 0) + i
                                    : y_offset(layer, n0 + at.a, k, row, at.d);
            y[to] = all_maxima[i];
            argmax[to] = all_places[i];
        }
    }
}
