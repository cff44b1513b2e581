// What the fused block's kernels share: how a layer is cut up, a block's tile of the input in
// shared memory, and how it is filled. The numbers are fused_plan.py's.
#pragma once
#include "index.cuh"

struct Cut {
    BlockShape layer;  // compiled in; all but N, which is 0 here
    int images, filters, channels, rows, strip;
    int pitch, group, plane_pad, image_pad;
    int pad;  // forward behind a filter's taps, backward behind an image's entries
};

// What ROWS x STRIPS threads see of an image, each of STRIP windows side by side.
template <const Cut& cut>
struct Tile {
    static constexpr int R = cut.layer.conv.r, S = cut.layer.conv.s;
    static constexpr int WINDOW = cut.layer.pool_r * cut.layer.pool_s;
    static constexpr int STRIPS = (cut.layer.pooled_q + cut.strip - 1) / cut.strip;
    static constexpr int OUTPUTS = cut.strip * cut.layer.pool_s;  // of the convolution, in a row
    static constexpr int SEEN_H =
        (cut.layer.pool_r - 1) * cut.layer.conv.stride_h + (R - 1) * cut.layer.conv.dilation_h + 1;
    static constexpr int SEEN_W =
        (OUTPUTS - 1) * cut.layer.conv.stride_w + (S - 1) * cut.layer.conv.dilation_w + 1;
    static constexpr int STEP_H = cut.layer.pool_r * cut.layer.conv.stride_h;
    static constexpr int STEP_W = OUTPUTS * cut.layer.conv.stride_w;
    static constexpr int TILE_H = (cut.rows - 1) * STEP_H + SEEN_H;
    static constexpr int TILE_W = (STRIPS - 1) * STEP_W + SEEN_W;
    // In shared memory a row takes a pitch and the STEP_H rows from one window to the next take a
    // group: with the pads so chosen that a warp's threads read from different banks.
    static constexpr int PLANE = (TILE_H + STEP_H - 1) / STEP_H * cut.group + cut.plane_pad;
    static constexpr int IMAGE = cut.channels * PLANE + cut.image_pad;
    static_assert(cut.pitch >= TILE_W && cut.group >= STEP_H * cut.pitch,
                  "rows and groups do not overlap");

    static constexpr int FILTER_TILES = (cut.layer.conv.k + cut.filters - 1) / cut.filters;
    static constexpr int ROW_TILES = (cut.layer.pooled_p + cut.rows - 1) / cut.rows;
    // Where the tile is all there is of an image, a channel is one piece of memory.
    static constexpr bool IS_COPY =
        cut.layer.conv.pad_top == 0 && cut.layer.conv.pad_left == 0 && ROW_TILES == 1 &&
        TILE_H == cut.layer.conv.h && TILE_W == cut.layer.conv.w && cut.pitch == TILE_W &&
        cut.group == STEP_H * cut.pitch && cut.layer.conv.c % cut.channels == 0;
    // It may be read in pairs.
    static constexpr int FILLED_W = TILE_W + (TILE_W < cut.pitch && TILE_W % 2);
    static constexpr int LANES = TILE_W > 16 ? 32 : TILE_W > 8 ? 16 : 8;  // of a warp, on one row

    static __device__ __forceinline__ int at(int c, int row, int col) {
        return c * PLANE + row / STEP_H * cut.group + row % STEP_H * cut.pitch + col;
    }

    // Fill some channels of a tile with what `pixel` returns of (channel, row, column) of the
    // image, and with zeros beyond its edges.
    template <int THREADS, class Pixel>
    static __device__ __forceinline__ void fill(scalar* to, int first_row, bool in_batch, int c0,
                                                const Pixel& pixel) {
        for (int line = threadIdx.x / LANES; line < cut.channels * TILE_H;
             line += THREADS / LANES) {
            const int c = line / TILE_H, i = line % TILE_H, row = first_row + i;
            const bool in_image =
                in_batch && c0 + c < cut.layer.conv.c && inside(row, cut.layer.conv.h);
            for (int j = threadIdx.x % LANES; j < FILLED_W; j += LANES) {
                const int col = j - cut.layer.conv.pad_left;
                to[at(c, i, j)] =
                    in_image && inside(col, cut.layer.conv.w) ? pixel(c0 + c, row, col) : scalar(0);
            }
        }
    }

    // Copy some channels of an image's tile to shared memory.
    template <int THREADS>
    static __device__ __forceinline__ void load(scalar* to, const scalar* __restrict__ x, int n,
                                                bool in_batch, int c0, int first_row) {
        if (IS_COPY) {
            const scalar* from = x + x_offset(cut.layer.conv, n, c0, 0, 0);
            constexpr int channel = TILE_H * TILE_W, elements = cut.channels * channel;
#pragma unroll 4
            for (int done = 0; done < elements; done += THREADS) {
                const int i = done + threadIdx.x;
                if (i < elements) {
                    to[i / channel * PLANE + i % channel] = in_batch ? from[i] : scalar(0);
                }
            }
            return;
        }
        fill<THREADS>(to, first_row, in_batch, c0, [&](int c, int row, int col) {
            return x[x_offset(cut.layer.conv, n, c, row, col)];
        });
    }
};

__device__ constexpr int larger(int a, int b) {
    return a > b ? a : b;
}
__device__ constexpr int even(int elements) {
    return (elements + 1) / 2 * 2;
}

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

#ifdef LAYER  // a kernel of one layer
#ifndef PAD
#define PAD 0
#endif
__device__ constexpr Cut the_cut = {{LAYER}, IMAGES, FILTERS,   CHANNELS,  ROWS, STRIP,
                                    PITCH,   GROUP,  PLANE_PAD, IMAGE_PAD, PAD};
__device__ constexpr BlockShape layer = the_cut.layer;
using TheTile = Tile<the_cut>;
constexpr int R = TheTile::R, S = TheTile::S, WINDOW = TheTile::WINDOW;
constexpr int STRIPS = TheTile::STRIPS, SEEN_H = TheTile::SEEN_H, SEEN_W = TheTile::SEEN_W;
constexpr int STEP_H = TheTile::STEP_H, STEP_W = TheTile::STEP_W;
constexpr int TILE_H = TheTile::TILE_H, TILE_W = TheTile::TILE_W;
constexpr int PLANE = TheTile::PLANE, IMAGE = TheTile::IMAGE, LANES = TheTile::LANES;
constexpr int FILTER_TILES = TheTile::FILTER_TILES, ROW_TILES = TheTile::ROW_TILES;
#endif
