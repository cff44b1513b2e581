// dw[k,c,r,s] = sum over n and the windows with an open ReLU of dy x at the winner's tap (r,s);
// db[k] = sum of the same dy
// x (N,C,H,W), dy and argmax (N,K,pooled P,pooled Q), partial (slices,pitch): dw (K,C,R,S) and, at
// bias_at unless that is negative, db (K)
// A thread owns the S taps of one (k,c,r), for every SHARES-th window of every `slices`-th image.
// Against conv2d's gradient: one convolution output in POOL_R x POOL_S has a gradient, and only
// those are summed. Where a winner is, is data: each product reads x anew, so shared memory's loads
// are the limit, not the arithmetic; fused_backward_registers.cu is for layers of more (c,r).
// Slices and shares are added in one order, without atomics. Limits: what the macros' tile fits, as
// for fused.cu; its rows are all rows.
#include "conv2d_relu_pool/fused_backward.cuh"

// FIBER_LANES of the fibers of a filter, or more, are lanes: where a warp has one filter alone, all
// of it reads x at the same offset.
constexpr int SHARE_LANES = (FILTERS * FIBER_LANES + 31) / 32 * 32;
constexpr int THREADS = SHARES * SHARE_LANES;
static_assert(THREADS <= 1024, "CUDA's limit of threads a block");
using Gradient = FilterGradient<the_cut, SHARE_LANES, FIBER_LANES>;

extern "C" __global__ void __launch_bounds__(THREADS)
    conv2d_relu_pool_fused_backward_filter(const scalar* __restrict__ x,
                                           const scalar* __restrict__ dy,
                                           const unsigned char* __restrict__ argmax,
                                           scalar* __restrict__ partial, const BlockShape shape,
                                           const int slices, const int pitch, const int bias_at) {
    extern __shared__ Pair<scalar> shared[];
    constexpr int ENTRIES = FILTERS * Gradient::WINDOWS;
    auto* const entries = reinterpret_cast<Gradient::Entry*>(shared);
    scalar* const tile = reinterpret_cast<scalar*>(entries + ENTRIES);

    const Index4 block =
        unflatten(blockIdx.x, FILTER_TILES, (layer.conv.c + CHANNELS - 1) / CHANNELS, 1);
    const int slice = block.a, k0 = block.b * FILTERS, c0 = block.c * CHANNELS;
    Gradient gradient;
    const bool is_owner = gradient.is_owner(SHARES, k0);
    for (int n = slice; n < shape.conv.n; n += slices) {
        TheTile::load<THREADS>(tile, x, n, true, c0, -layer.conv.pad_top);
        for (int i = threadIdx.x; i < ENTRIES; i += THREADS) {
            if (k0 + i / Gradient::WINDOWS >= layer.conv.k) continue;
            const int from = y_offset(layer, n, k0, 0, 0) + i;
            entries[i] = Gradient::entry(i % Gradient::WINDOWS, dy[from], argmax[from]);
        }
        __syncthreads();  // every thread needs the whole tile

        if (is_owner) gradient.add(entries, tile, SHARES);
        __syncthreads();  // the next image overwrites what others still read
    }
    gradient.store(tile, partial + slice * pitch, bias_at, SHARES, k0, c0);
}
