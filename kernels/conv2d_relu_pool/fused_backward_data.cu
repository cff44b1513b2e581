// dx[n,c,h,w] = sum over k and the open windows whose winner sees (h,w) of dy w[k,c,r,s]
// dy and argmax (N,K,pooled P,pooled Q), w (K,C,R,S), dx (N,C,H,W)
// A thread owns STRIP windows side by side of one channel of one image, and in registers all of dx
// that these see: SEEN_H x SEEN_W sums. Threads of a warp differ in image and row alone.
// Against conv2d's gradient: a window adds one filter, laid at its winner's place among zeros, not
// POOL_R x POOL_S of them. All lanes of a warp read one of the same few such patches, 16 bytes at a
// time, without a bank conflict. What neighbouring threads see of each other's windows is added in
// shared memory, some rows at a time and in one order: no atomics. Limits: as for fused.cu; a
// gradient that is no number spoils the zeros around its filter, too.
#include "conv2d_relu_pool/fused.cuh"

// A patch is what a window sees of one channel: the filter among zeros. 16 bytes are read at a
// time, and an odd number of them puts the patches on different banks.
constexpr int VECTOR = 16 / sizeof(scalar);
constexpr int PATCH_W =
    (layer.pool_s - 1) * layer.conv.stride_w + (S - 1) * layer.conv.dilation_w + 1;
constexpr int VECTORS = (SEEN_H * PATCH_W + VECTOR - 1) / VECTOR;
constexpr int PATCH = (VECTORS + 1 - VECTORS % 2) * VECTOR;
constexpr int PATCHES = WINDOW + 1;  // one for each place of a winner, and zeros for a closed ReLU
struct alignas(16) Vector {
    scalar at[VECTOR];
};
struct alignas(2 * sizeof(scalar)) Entry {
    scalar gradient;
    int patch;
};

constexpr int COLS = STRIPS * STRIP, WINDOWS = ROWS * COLS;
constexpr int ENTRIES = FILTERS * WINDOWS + ENTRIES_PAD;  // of an image
constexpr int OWNERS = IMAGES * ROWS * STRIPS;
constexpr int CHANNEL_LANES = (OWNERS + 31) / 32 * 32;
constexpr int THREADS = CHANNELS * CHANNEL_LANES;
static_assert(THREADS <= 1024, "CUDA's limit of threads a block");

// A thread writes one row of a patch.
__device__ __forceinline__ void load_patches(scalar* patches, const scalar* __restrict__ w, int k0,
                                             int c0) {
    for (int i = threadIdx.x; i < FILTERS * CHANNELS * PATCHES * SEEN_H; i += THREADS) {
        const Index4 at = unflatten(i, CHANNELS, PATCHES, SEEN_H);  // filter, channel, place, row
        const int k = k0 + at.a, c = c0 + at.b;
        const int reach_h = at.d - at.c / layer.pool_s * layer.conv.stride_h;
        const int first_w = at.c % layer.pool_s * layer.conv.stride_w;
        const int r = reach_h / layer.conv.dilation_h;
        const bool in_w = k < layer.conv.k && c < layer.conv.c && at.c < WINDOW && reach_h >= 0 &&
                          reach_h % layer.conv.dilation_h == 0 && r < R;
        scalar* const to = patches + i / SEEN_H * PATCH + at.d * PATCH_W;
        scalar row[PATCH_W];
#pragma unroll
        for (int j = 0; j < PATCH_W; j++) {
            const int reach_w = j - first_w, s = reach_w / layer.conv.dilation_w;
            const bool is_tap = reach_w >= 0 && reach_w % layer.conv.dilation_w == 0 && s < S;
            row[j] = in_w && is_tap ? w[w_offset(layer.conv, k, c, r, s)] : scalar(0);
        }
        store_run(to, row);
        if (at.d == SEEN_H - 1) {  // the last 16 bytes may have more room
            for (int j = PATCH_W; j < VECTORS * VECTOR - at.d * PATCH_W; j++) to[j] = 0;
        }
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
        const bool is_open = place < WINDOW;
        entries[image * ENTRIES + in_image] =
            Entry{is_open ? dy[from] : scalar(0), (is_open ? place : WINDOW) * PATCH};
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    conv2d_relu_pool_fused_backward_data(const scalar* __restrict__ dy,
                                         const unsigned char* __restrict__ argmax,
                                         const scalar* __restrict__ w, scalar* __restrict__ dx,
                                         const BlockShape shape) {
    extern __shared__ Vector shared[];
    scalar* const patches = reinterpret_cast<scalar*>(shared);
    Entry* const entries = reinterpret_cast<Entry*>(patches + FILTERS * CHANNELS * PATCHES * PATCH);

    constexpr int channel_tiles = (layer.conv.c + CHANNELS - 1) / CHANNELS;
    const int n0 = blockIdx.x / channel_tiles * IMAGES, c0 = blockIdx.x % channel_tiles * CHANNELS;
    const int n = shape.conv.n, c = threadIdx.x / CHANNEL_LANES;
    const bool is_owner = threadIdx.x % CHANNEL_LANES < OWNERS;
    const Index4 own =
        unflatten(threadIdx.x % CHANNEL_LANES, ROWS, STRIPS, 1);  // image, row, strip

    scalar sums[SEEN_H][SEEN_W] = {};
    for (int k0 = 0; k0 < layer.conv.k; k0 += FILTERS) {
        load_patches(patches, w, k0, c0);
        load_entries(entries, dy, argmax, n0, n, k0);
        __syncthreads();  // a thread reads what its neighbours loaded

        if (is_owner) {
#pragma unroll 1
            for (int k = 0; k < FILTERS; k++) {
                const Entry* const mine =
                    entries + own.a * ENTRIES + k * WINDOWS + own.b * COLS + own.c * STRIP;
                const scalar* const filter = patches + (k * CHANNELS + c) * PATCHES * PATCH;
#pragma unroll
                for (int j = 0; j < STRIP; j++) {
                    const Entry entry = mine[j];
                    const Vector* const patch =
                        reinterpret_cast<const Vector*>(filter + entry.patch);
                    const int left = j * layer.pool_s * layer.conv.stride_w;
#pragma unroll
                    for (int v = 0; v < VECTORS; v++) {
                        const Vector taps = patch[v];
#pragma unroll
                        for (int i = v * VECTOR; i < min((v + 1) * VECTOR, SEEN_H * PATCH_W); i++) {
                            sums[i / PATCH_W][left + i % PATCH_W] +=
                                entry.gradient * taps.at[i % VECTOR];
                        }
                    }
                }
            }
        }
        __syncthreads();  // the next filters, or dx, overwrite what others still read
    }

    // Add up what threads share. Threads of a block write different parts in each round.
    scalar* const tile = patches;
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
