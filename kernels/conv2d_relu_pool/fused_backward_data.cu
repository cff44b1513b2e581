// dx[n,c,h,w] = sum over k and the open windows whose winner sees (h,w) of dy w[k,c,r,s]
// dy and argmax (N,K,pooled P,pooled Q), w (K,C,R,S), dx (N,C,H,W)
// A thread owns STRIP windows side by side of one channel of one image, and in registers all of dx
// that these see: SEEN_H x SEEN_W sums. Threads of a warp differ in image and row alone.
// Against conv2d's gradient: nothing of dy is stored unpooled, and dx is summed in registers, where
// a window lays the filter at each of its places, of which all but the winner's have a gradient of
// zero. That is all of the products, but a filter's tap is read once for STRIP windows. What
// neighbouring threads see of each other's windows is added in shared memory, some rows at a time
// and in one order: no atomics. Limits: as for fused.cu; a weight that is not finite spoils all
// that its windows see.
#include "conv2d_relu_pool/fused_backward_data.cuh"

using Gradient = DataGradient<the_cut>;
constexpr int THREADS = Gradient::THREADS;

// The 1: without it ptxas aims at fewer registers, and spills for it.
extern "C" __global__ void __launch_bounds__(THREADS, 1)
    conv2d_relu_pool_fused_backward_data(const scalar* __restrict__ dy,
                                         const unsigned char* __restrict__ argmax,
                                         const scalar* __restrict__ w, scalar* __restrict__ dx,
                                         const BlockShape shape) {
    extern __shared__ Pair<scalar> shared[];
    scalar* const tile = reinterpret_cast<scalar*>(shared);

    constexpr int channel_tiles = (layer.conv.c + CHANNELS - 1) / CHANNELS;
    const int n0 = blockIdx.x / channel_tiles * IMAGES, c0 = blockIdx.x % channel_tiles * CHANNELS;
    const int n = shape.conv.n;
    Gradient::leave(tile, dy, argmax, w, n0, n, c0);

    constexpr int LINES = IMAGES * CHANNELS * layer.conv.h;
    for (int line = threadIdx.x / LANES; line < LINES; line += THREADS / LANES) {
        const Index4 at = unflatten(line, IMAGES, CHANNELS, layer.conv.h);  // 0, image, c, h
        const int row = at.d + layer.conv.pad_top;
        const bool in_x = n0 + at.b < n && c0 + at.c < layer.conv.c;
        const scalar* const from =
            tile + at.b * IMAGE + TheTile::at(at.c, row, layer.conv.pad_left);
        scalar* const to = dx + x_offset(layer.conv, n0 + at.b, c0 + at.c, at.d, 0);
        for (int col = threadIdx.x % LANES; col < layer.conv.w; col += LANES) {
            const bool is_seen = row < TILE_H && col + layer.conv.pad_left < TILE_W;
            if (in_x) to[col] = is_seen ? from[col] : scalar(0);
        }
    }
}
