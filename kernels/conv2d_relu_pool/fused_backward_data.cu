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
#include "conv2d_relu_pool/fused.cuh"

struct alignas(2 * sizeof(scalar)) Entry {
    scalar gradient;
    int place;  // of the winner; any other where the ReLU is closed
};

constexpr int COLS = STRIPS * STRIP, WINDOWS = ROWS * COLS;
constexpr int ENTRIES = FILTERS * WINDOWS + ENTRIES_PAD;  // of an image
constexpr int OWNERS = IMAGES * ROWS * STRIPS;
constexpr int CHANNEL_LANES = (OWNERS + 31) / 32 * 32;
constexpr int THREADS = CHANNELS * CHANNEL_LANES;
static_assert(THREADS <= 1024, "CUDA's limit of threads a block");

__device__ __forceinline__ void load_filters(scalar* filters, const scalar* __restrict__ w, int k0,
                                             int c0) {
    for (int i = threadIdx.x; i < FILTERS * CHANNELS * R * S; i += THREADS) {
        const int k = k0 + i / (CHANNELS * R * S), in_filter = i % (CHANNELS * R * S);
        const bool in_w = k < layer.conv.k && c0 + in_filter / (R * S) < layer.conv.c;
        filters[i] = in_w ? w[w_offset(layer.conv, k, c0, 0, 0) + in_filter] : scalar(0);
    }
}

__device__ __forceinline__ void load_entries(Entry* entries, const scalar* __restrict__ dy,
                                             const unsigned char* __restrict__ argmax, int n0,
                                             int n, int k0) {
    for (int i = threadIdx.x; i < IMAGES * FILTERS * WINDOWS; i += THREADS) {
        const int image = i / (FILTERS * WINDOWS), in_image = i % (FILTERS * WINDOWS);
        const int k = k0 + in_image / WINDOWS, col = in_image % COLS;
        const int from = y_offset(layer, n0 + image, k, in_image % WINDOWS / COLS, col);
        const bool in_y = n0 + image < n && k < layer.conv.k && col < layer.pooled_q;
        const int place = in_y ? argmax[from] : CLOSED;
        entries[image * ENTRIES + in_image] = Entry{place < WINDOW ? dy[from] : scalar(0), place};
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    conv2d_relu_pool_fused_backward_data(const scalar* __restrict__ dy,
                                         const unsigned char* __restrict__ argmax,
                                         const scalar* __restrict__ w, scalar* __restrict__ dx,
                                         const BlockShape shape) {
    extern __shared__ Entry entries[];
    scalar* const filters = reinterpret_cast<scalar*>(entries + IMAGES * ENTRIES);

    constexpr int channel_tiles = (layer.conv.c + CHANNELS - 1) / CHANNELS;
    const int n0 = blockIdx.x / channel_tiles * IMAGES, c0 = blockIdx.x % channel_tiles * CHANNELS;
    const int n = shape.conv.n, c = threadIdx.x / CHANNEL_LANES;
    const bool is_owner = threadIdx.x % CHANNEL_LANES < OWNERS;
    const Index4 own =
        unflatten(threadIdx.x % CHANNEL_LANES, ROWS, STRIPS, 1);  // image, row, strip

    scalar sums[SEEN_H][SEEN_W] = {};
    for (int k0 = 0; k0 < layer.conv.k; k0 += FILTERS) {
        load_filters(filters, w, k0, c0);
        load_entries(entries, dy, argmax, n0, n, k0);
        __syncthreads();  // a thread reads what its neighbours loaded

        if (is_owner) {
#pragma unroll 1
            for (int k = 0; k < FILTERS; k++) {
                const Entry* const mine =
                    entries + own.a * ENTRIES + k * WINDOWS + own.b * COLS + own.c * STRIP;
                const scalar* const taps = filters + (k * CHANNELS + c) * R * S;
                scalar gradients[STRIP][WINDOW];
#pragma unroll
                for (int j = 0; j < STRIP; j++) {
                    const Entry entry = mine[j];
#pragma unroll
                    for (int place = 0; place < WINDOW; place++) {
                        gradients[j][place] = entry.place == place ? entry.gradient : scalar(0);
                    }
                }
#pragma unroll
                for (int tap = 0; tap < R * S; tap++) {
                    const scalar weight = taps[tap];
                    const int down = tap / S * layer.conv.dilation_h;
                    const int right = tap % S * layer.conv.dilation_w;
#pragma unroll
                    for (int i = 0; i < STRIP * WINDOW; i++) {
                        const int window = i / WINDOW, place = i % WINDOW;
                        const int row = place / layer.pool_s * layer.conv.stride_h + down;
                        const int output = window * layer.pool_s + place % layer.pool_s;
                        sums[row][output * layer.conv.stride_w + right] +=
                            gradients[window][place] * weight;
                    }
                }
            }
        }
        __syncthreads();  // the next filters, or dx, overwrite what others still read
    }

    // Add up what threads share. Threads of a block write different parts in each round.
    scalar* const tile = reinterpret_cast<scalar*>(entries);
    for (int i = threadIdx.x; i < IMAGES * IMAGE; i += THREADS) tile[i] = 0;
    __syncthreads();  // a part may be another thread's first
    constexpr int part_w = STRIPS == 1 ? SEEN_W : STEP_W;
    scalar* const mine = tile + own.a * IMAGE + c * PLANE + own.b * GROUP + own.c * STEP_W;
#pragma unroll
    for (int i0 = 0; i0 < SEEN_H; i0 += STEP_H) {
#pragma unroll
        for (int j0 = 0; j0 < SEEN_W; j0 += part_w) {
            if (is_owner) {
#pragma unroll
                for (int i = i0; i < min(i0 + STEP_H, SEEN_H); i++) {
#pragma unroll
                    for (int j = j0; j < min(j0 + part_w, SEEN_W); j++) {
                        mine[i / STEP_H * GROUP + i % STEP_H * PITCH + j] += sums[i][j];
                    }
                }
            }
            __syncthreads();  // the next round adds to what this one wrote
        }
    }

    constexpr int LINES = IMAGES * CHANNELS * layer.conv.h;
    for (int line = threadIdx.x / LANES; line < LINES; line += THREADS / LANES) {
        const Index4 at = unflatten(line, IMAGES, CHANNELS, layer.conv.h);  // 0, image, c, h
        const int row = at.d + layer.conv.pad_top;
        const bool in_x = n0 + at.b < n && c0 + at.c < layer.conv.c;
        const scalar* const from = tile + at.b * IMAGE + at.c * PLANE + row / STEP_H * GROUP +
                                   row % STEP_H * PITCH + layer.conv.pad_left;
        scalar* const to = dx + x_offset(layer.conv, n0 + at.b, c0 + at.c, at.d, 0);
        for (int col = threadIdx.x % LANES; col < layer.conv.w; col += LANES) {
            const bool is_seen = row < TILE_H && col + layer.conv.pad_left < TILE_W;
            if (in_x) to[col] = is_seen ? from[col] : scalar(0);
        }
    }
}
