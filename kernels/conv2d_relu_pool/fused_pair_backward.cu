// The second block's gradient to its input, and from that the first one's to w1 and b1
// dy2 and argmax2 (N,K2,pooled P2,pooled Q2), w2 (K2,K1,R,S), x (N,C,H,W), argmax1 (N,K1,pooled P1,
// pooled Q1), partial (slices,pitch): dw1 (K1,C,R,S) and, at bias_at, db1 (K1)
// A block has SECOND's IMAGES and CHANNELS, which are so many of the first layer's filters, of
// every `slices`-th group of images: threads first as in fused_backward_data.cu, then as in
// fused_backward.cu, but for shares side by side in a warp.
// Against two launches: the gradient between the layers, and a batch of its size, never goes to
// memory, and the image is on its way there while the first gradient is computed. Limits: the first
// layer's tile is all channels, there is no padding between the layers.
#include "conv2d_relu_pool/fused_backward.cuh"
#include "conv2d_relu_pool/fused_backward_data.cuh"

__device__ constexpr Cut first_cut = {FIRST}, second_cut = {SECOND};
__device__ constexpr BlockShape first_layer = first_cut.layer, second_layer = second_cut.layer;
using Between = DataGradient<second_cut>;
constexpr int FIBERS = first_cut.channels * first_layer.conv.r;
constexpr int SHARE_LANES = first_cut.filters * FIBERS;
using Gradient = FilterGradient<first_cut, SHARE_LANES, FIBERS>;
constexpr int THREADS = Between::THREADS, SHARES = THREADS / SHARE_LANES;
static_assert(SHARES > 0, "a thread for each filter's fibers");
static_assert(first_cut.filters == second_cut.channels && first_cut.channels == first_layer.conv.c,
              "what is between is of the same filters, of all of the image");

// Shared memory, in elements: what becomes the gradient between the layers, and in the end holds
// the shares' sums; all images; the entries of one; and, in bytes, where all of the images' maxima
// are.
constexpr int BETWEEN_ROOM = even(larger(Between::ROOM, SHARES* Gradient::SHARE));
constexpr int IMAGES = second_cut.images, IMAGE_ROOM = even(Gradient::From::IMAGE);
constexpr int WINDOWS = Gradient::WINDOWS, ENTRIES = first_cut.filters * WINDOWS;

// The 1: without it ptxas aims at fewer registers, and spills for it.
extern "C" __global__ void __launch_bounds__(THREADS, 1) conv2d_relu_pool_fused_pair_backward(
    const scalar* __restrict__ dy2, const unsigned char* __restrict__ argmax2,
    const scalar* __restrict__ w2, const scalar* __restrict__ x,
    const unsigned char* __restrict__ argmax1, scalar* __restrict__ partial, const int n,
    const int slices, const int pitch, const int bias_at) {
    extern __shared__ Pair<scalar> shared[];
    scalar* const between = reinterpret_cast<scalar*>(shared);
    scalar* const images = between + BETWEEN_ROOM;
    auto* const entries = reinterpret_cast<Gradient::Entry*>(images + IMAGES * IMAGE_ROOM);
    unsigned char* const places = reinterpret_cast<unsigned char*>(entries + ENTRIES);

    constexpr int channel_tiles =
        (second_layer.conv.c + second_cut.channels - 1) / second_cut.channels;
    const int slice = blockIdx.x / channel_tiles;
    const int k0 = blockIdx.x % channel_tiles * first_cut.filters;
    Gradient gradient;
    const bool is_owner = gradient.is_owner(SHARES, k0);
    for (int n0 = slice * IMAGES; n0 < n; n0 += slices * IMAGES) {
        for (int i = 0; i < IMAGES; i++) {
            Gradient::From::load<THREADS>(images + i * IMAGE_ROOM, x, n0 + i, n0 + i < n, 0,
                                          -first_layer.conv.pad_top);
            const int from = y_offset(first_layer, n0 + i, k0, 0, 0);
            const int filled = min(first_layer.conv.k - k0, first_cut.filters) * WINDOWS;
            for (int j = threadIdx.x; j < filled && n0 + i < n; j += THREADS) {
                places[i * ENTRIES + j] = argmax1[from + j];
            }
        }
        Between::leave(between, dy2, argmax2, w2, n0, n, k0);

        for (int i = 0; i < IMAGES && n0 + i < n; i++) {
            const scalar* const dy = between + i * Between::To::IMAGE;
            for (int j = threadIdx.x; j < ENTRIES; j += THREADS) {
                const Index4 at = unflatten(j, 1, first_layer.pooled_p, first_layer.pooled_q);
                if (k0 + at.a >= first_layer.conv.k) continue;
                entries[j] = Gradient::entry(j % WINDOWS, dy[Between::To::at(at.a, at.c, at.d)],
                                             places[i * ENTRIES + j]);
            }
            __syncthreads();  // every thread needs its filter's entries
            if (is_owner) gradient.add(entries, images + i * IMAGE_ROOM, SHARES);
            __syncthreads();  // the next entries, or images, overwrite what others still read
        }
    }
    gradient.store(between, partial + slice * pitch, bias_at, SHARES, k0, 0);
}
