// y[n,k,i,j] = max(0, b[k] + max over the window (i,j) of sum_{c,r,s} x[n,c,h,w] w[k,c,r,s])
// x (N,C,H,W), w (K,C,R,S), b (K) or null, y and argmax (N,K,pooled P,pooled Q)
// A thread owns STRIP windows side by side of one filter, and keeps all their convolution outputs
// in registers; a block has IMAGES x FILTERS x ROWS x STRIPS such threads. Against conv2d, ReLU and
// max_pool2d: one launch, and the map before the pooling is never stored. The layer is compiled in,
// N alone is a run-time value: the loop has no index arithmetic, and a row of the input, once in
// registers, serves all taps and both rows of outputs. Shared memory returns 128 bytes a cycle,
// also where lanes share an address: 1 byte a product is the limit, and LeNet's layers read 0.6 and
// 0.9. Limits: tiles that fit (fused_plan.py); fused_general.cu has the rest.
#include "conv2d_relu_pool/fused_forward.cuh"

using Block = Forward<the_cut>;
constexpr int OWNERS = Block::OWNERS;
constexpr int THREADS = (OWNERS + 31) / 32 * 32;
static_assert(THREADS <= 1024, "CUDA's limit of threads a block");
// A block whose outputs are all there is of its images stores one piece of memory.
constexpr bool IS_WHOLE =
    FILTERS == layer.conv.k && ROWS == layer.pooled_p && STRIPS * STRIP == layer.pooled_q;

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
    const Index4 own = Block::place_of(threadIdx.x);

    Block block;
    block.start(b && k0 + own.b < layer.conv.k ? b[k0 + own.b] : scalar(0));
    for (int c0 = 0; c0 < layer.conv.c; c0 += CHANNELS) {
        for (int i = 0; i < IMAGES; i++) {
            const int first_row = row0 * STEP_H - layer.conv.pad_top;
            TheTile::load<THREADS>(images + i * IMAGE, x, n0 + i, n0 + i < n, c0, first_row);
        }
        Block::load_filters<THREADS>(filters, w, k0, c0);
        __syncthreads();  // a thread reads what its neighbours loaded

        if (is_owner) block.add(images, filters, own);
        __syncthreads();  // the next channels, or the outputs, overwrite what others still read
    }

    scalar maxima[STRIP];
    int places[STRIP];
    block.find_maxima(maxima, places);
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
