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
#include "conv2d_relu_pool/fused.cuh"

constexpr int WINDOWS = layer.pooled_p * layer.pooled_q;
constexpr int FIBERS = CHANNELS * R;  // (c, r) of a filter
// FIBER_LANES of FIBERS lanes, or more, are a filter's: where a warp has one filter alone, all of
// it reads x at the same offset.
constexpr int SHARE_LANES = (FILTERS * FIBER_LANES + 31) / 32 * 32;
constexpr int THREADS = SHARES * SHARE_LANES;
static_assert(FIBER_LANES >= FIBERS, "a lane for each fiber");
static_assert(THREADS <= 1024, "CUDA's limit of threads a block");

// A window's gradient, and where in the tile its winner's first tap is; -1 where the ReLU is
// closed.
struct alignas(2 * sizeof(scalar)) Entry {
    scalar gradient;
    int offset;
};

__device__ __forceinline__ void load_entries(Entry* entries, const scalar* __restrict__ dy,
                                             const unsigned char* __restrict__ argmax, int n,
                                             int k0) {
    for (int i = threadIdx.x; i < FILTERS * WINDOWS; i += THREADS) {
        if (k0 + i / WINDOWS >= layer.conv.k) continue;
        const int from = y_offset(layer, n, k0, 0, 0) + i;
        const int place = argmax[from], window = i % WINDOWS;
        const int p = window / layer.pooled_q * layer.pool_r + place / layer.pool_s;
        const int q = window % layer.pooled_q * layer.pool_s + place % layer.pool_s;
        const int offset = p * layer.conv.stride_h * PITCH + q * layer.conv.stride_w;
        entries[i] = Entry{dy[from], place == CLOSED ? -1 : offset};
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    conv2d_relu_pool_fused_backward_filter(const scalar* __restrict__ x,
                                           const scalar* __restrict__ dy,
                                           const unsigned char* __restrict__ argmax,
                                           scalar* __restrict__ partial, const BlockShape shape,
                                           const int slices, const int pitch, const int bias_at) {
    extern __shared__ Entry entries[];
    scalar* const tile = reinterpret_cast<scalar*>(entries + FILTERS * WINDOWS);

    const Index4 block =
        unflatten(blockIdx.x, FILTER_TILES, (layer.conv.c + CHANNELS - 1) / CHANNELS, 1);
    const int slice = block.a, k0 = block.b * FILTERS, c0 = block.c * CHANNELS;
    const int share = threadIdx.x / SHARE_LANES;
    const int k = threadIdx.x % SHARE_LANES / FIBER_LANES;
    const int fiber = threadIdx.x % SHARE_LANES % FIBER_LANES, c = fiber / R, r = fiber % R;
    const bool is_owner = k < FILTERS && k0 + k < layer.conv.k && fiber < FIBERS;

    scalar sums[S] = {}, bias = 0;
    const scalar* const seen = tile + c * PLANE + r * layer.conv.dilation_h * PITCH;
    for (int n = slice; n < shape.conv.n; n += slices) {
        load_image<THREADS>(tile, x, n, true, c0, -layer.conv.pad_top);
        load_entries(entries, dy, argmax, n, k0);
        __syncthreads();  // every thread needs the whole tile

        if (is_owner) {
#pragma unroll 4
            for (int i = share; i < WINDOWS; i += SHARES) {
                const Entry entry = entries[k * WINDOWS + i];
                if (entry.offset < 0) continue;
                bias += entry.gradient;
#pragma unroll
                for (int s = 0; s < S; s++) {
                    sums[s] += entry.gradient * seen[entry.offset + s * layer.conv.dilation_w];
                }
            }
        }
        __syncthreads();  // the next image overwrites what others still read
    }

    // Add up the shares, and store the block's part of dw, a filter's taps side by side. All fibers
    // of a filter have its db: the first one's counts.
    scalar* const biases = tile + SHARES * FILTERS * FIBERS * S;
    if (is_owner) {
        if (fiber == 0) biases[share * FILTERS + k] = bias;
#pragma unroll
        for (int s = 0; s < S; s++) {
            tile[(share * FILTERS + k) * FIBERS * S + fiber * S + s] = sums[s];
        }
    }
    __syncthreads();  // a tap's sum is in several threads
    const int taps = min(CHANNELS, layer.conv.c - c0) * R * S;
    for (int i = threadIdx.x; i < FILTERS * FIBERS * S; i += THREADS) {
        const int filter = k0 + i / (FIBERS * S), tap = i % (FIBERS * S);
        const bool in_filter = filter < layer.conv.k && tap < taps;
        if (in_filter) {
            scalar sum = 0;
            for (int other = 0; other < SHARES; other++)
                sum += tile[other * FILTERS * FIBERS * S + i];
            partial[slice * pitch + w_offset(layer.conv, filter, c0, 0, 0) + tap] = sum;
        }
    }
    const bool has_bias = bias_at >= 0 && c0 == 0 && threadIdx.x < FILTERS;
    if (has_bias && k0 + threadIdx.x < layer.conv.k) {
        scalar sum = 0;
        for (int other = 0; other < SHARES; other++) sum += biases[other * FILTERS + threadIdx.x];
        partial[slice * pitch + bias_at + k0 + threadIdx.x] = sum;
    }
}
