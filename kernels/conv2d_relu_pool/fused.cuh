// What the kernels of fused.cu and fused_backward*.cu share: the layer, a block's tile of the input
// in shared memory, and how it is filled. The macros are fused.py's.
#pragma once
#include "index.cuh"

__device__ constexpr BlockShape layer = {LAYER};  // compiled in; all but N, which is 0 here

constexpr int R = layer.conv.r, S = layer.conv.s;
constexpr int WINDOW = layer.pool_r * layer.pool_s;
// A tile is what ROWS x STRIPS threads see of an image, each of STRIP windows side by side.
constexpr int STRIPS = (layer.pooled_q + STRIP - 1) / STRIP;
constexpr int OUTPUTS = STRIP * layer.pool_s;  // of the convolution, in a row
constexpr int SEEN_H =
    (layer.pool_r - 1) * layer.conv.stride_h + (R - 1) * layer.conv.dilation_h + 1;
constexpr int SEEN_W = (OUTPUTS - 1) * layer.conv.stride_w + (S - 1) * layer.conv.dilation_w + 1;
constexpr int STEP_H = layer.pool_r * layer.conv.stride_h, STEP_W = OUTPUTS * layer.conv.stride_w;
constexpr int TILE_H = (ROWS - 1) * STEP_H + SEEN_H, TILE_W = (STRIPS - 1) * STEP_W + SEEN_W;
// In shared memory a row takes PITCH and the STEP_H rows from one window to the next, a group, take
// GROUP: with PLANE_PAD and IMAGE_PAD so chosen that a warp's threads read from different banks.
constexpr int PLANE = (TILE_H + STEP_H - 1) / STEP_H * GROUP + PLANE_PAD;
constexpr int IMAGE = CHANNELS * PLANE + IMAGE_PAD;
static_assert(PITCH >= TILE_W && GROUP >= STEP_H * PITCH, "rows and groups do not overlap");

constexpr int FILTER_TILES = (layer.conv.k + FILTERS - 1) / FILTERS;
constexpr int ROW_TILES = (layer.pooled_p + ROWS - 1) / ROWS;
// Where the tile is all there is of an image, it is one piece of memory, but for pads of channels.
constexpr bool IS_COPY = layer.conv.pad_top == 0 && layer.conv.pad_left == 0 && ROW_TILES == 1 &&
                         TILE_H == layer.conv.h && TILE_W == layer.conv.w && PITCH == TILE_W &&
                         GROUP == STEP_H * PITCH && layer.conv.c % CHANNELS == 0;
constexpr int FILLED_W = TILE_W + (TILE_W < PITCH && TILE_W % 2);  // it may be read in pairs
constexpr int LANES = TILE_W > 16 ? 32 : TILE_W > 8 ? 16 : 8;  // of a warp, on one row of the tile

template <class T>
struct alignas(2 * sizeof(T)) Pair {
    T x, y;
};

// Store what a thread has behind what its neighbour has: an odd LENGTH sends them to different
// banks, an even one does two at a time.
template <class T, int LENGTH>
__device__ __forceinline__ void store_run(T* to, const T (&from)[LENGTH]) {
#pragma unroll
    for (int i = 0; i < LENGTH; i += 2 - LENGTH % 2) {
        if (LENGTH % 2 == 0) {
            *reinterpret_cast<Pair<T>*>(to + i) = Pair<T>{from[i], from[i + 1]};
        } else {
            to[i] = from[i];
        }
    }
}

// Copy CHANNELS channels of an image's tile to shared memory, zero beyond the image's edges.
template <int THREADS>
__device__ __forceinline__ void load_image(scalar* to, const scalar* __restrict__ x, int n,
                                           bool in_batch, int c0, int first_row) {
    if (IS_COPY) {
        const scalar* from = x + x_offset(layer.conv, n, c0, 0, 0);
        constexpr int channel = TILE_H * TILE_W, elements = CHANNELS * channel;
#pragma unroll 4
        for (int done = 0; done < elements; done += THREADS) {
            const int i = done + threadIdx.x;
            if (i < elements) {
                to[i / channel * PLANE + i % channel] = in_batch ? from[i] : scalar(0);
            }
        }
        return;
    }
    for (int line = threadIdx.x / LANES; line < CHANNELS * TILE_H; line += THREADS / LANES) {
        const int c = line / TILE_H, i = line % TILE_H, row = first_row + i;
        const bool in_image = in_batch && c0 + c < layer.conv.c && inside(row, layer.conv.h);
        const scalar* from = x + x_offset(layer.conv, n, c0 + c, row, 0);
        for (int j = threadIdx.x % LANES; j < FILLED_W; j += LANES) {
            const int col = j - layer.conv.pad_left;
            to[c * PLANE + i / STEP_H * GROUP + i % STEP_H * PITCH + j] =
                in_image && inside(col, layer.conv.w) ? from[col] : scalar(0);
        }
    }
}
