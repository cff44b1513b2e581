// The fused block's gradient to x, left in shared memory: fused_backward_data.cu, which stores it,
// and fused_pair_backward.cu, where it is another block's dy.
#pragma once
#include "conv2d_relu_pool/fused.cuh"

// A thread owns STRIP windows side by side of one channel of one image, and in registers all of dx
// that these see: SEEN_H x SEEN_W sums. Threads of a warp differ in image and row alone.
template <const Cut& cut>
struct DataGradient {
    struct alignas(2 * sizeof(scalar)) Entry {
        scalar gradient;
        int place;  // of the winner; any other where the ReLU is closed
    };

    using To = Tile<cut>;
    static constexpr int R = To::R, S = To::S, WINDOW = To::WINDOW;
    static constexpr int COLS = To::STRIPS * cut.strip, WINDOWS = cut.rows * COLS;
    static constexpr int ENTRIES = cut.filters * WINDOWS + cut.pad;  // of an image
    static constexpr int OWNERS = cut.images * cut.rows * To::STRIPS;
    static constexpr int CHANNEL_LANES = (OWNERS + 31) / 32 * 32;
    static constexpr int THREADS = cut.channels * CHANNEL_LANES;
    // Elements of the tile and of what is there before: entries and filters.
    static constexpr int ROOM = larger(
        2 * cut.images * ENTRIES + cut.filters * cut.channels * R * S, cut.images* To::IMAGE);
    static_assert(THREADS <= 1024, "CUDA's limit of threads a block");

    static __device__ __forceinline__ void load_filters(scalar* filters,
                                                        const scalar* __restrict__ w, int k0,
                                                        int c0) {
        constexpr int taps = cut.channels * R * S;
        for (int i = threadIdx.x; i < cut.filters * taps; i += THREADS) {
            const int k = k0 + i / taps, in_filter = i % taps;
            const bool in_w = k < cut.layer.conv.k && c0 + in_filter / (R * S) < cut.layer.conv.c;
            filters[i] = in_w ? w[w_offset(cut.layer.conv, k, c0, 0, 0) + in_filter] : scalar(0);
        }
    }

    static __device__ __forceinline__ void load_entries(Entry* entries,
                                                        const scalar* __restrict__ dy,
                                                        const unsigned char* __restrict__ argmax,
                                                        int n0, int n, int k0) {
        constexpr int filled = cut.filters * WINDOWS;
        for (int i = threadIdx.x; i < cut.images * filled; i += THREADS) {
            const int image = i / filled, in_image = i % filled;
            const int k = k0 + in_image / WINDOWS, col = in_image % COLS;
            const int from = y_offset(cut.layer, n0 + image, k, in_image % WINDOWS / COLS, col);
            const bool in_y = n0 + image < n && k < cut.layer.conv.k && col < cut.layer.pooled_q;
            const int place = in_y ? argmax[from] : CLOSED;
            entries[image * ENTRIES + in_image] =
                Entry{place < WINDOW ? dy[from] : scalar(0), place};
        }
    }

    // Of a filter's windows, laid at each of their places.
    static __device__ __forceinline__ void add_filter(scalar (&sums)[To::SEEN_H][To::SEEN_W],
                                                      const Entry* mine, const scalar* taps) {
        scalar gradients[cut.strip][WINDOW];
#pragma unroll
        for (int j = 0; j < cut.strip; j++) {
            const Entry entry = mine[j];
#pragma unroll
            for (int place = 0; place < WINDOW; place++) {
                gradients[j][place] = entry.place == place ? entry.gradient : scalar(0);
            }
        }
#pragma unroll
        for (int tap = 0; tap < R * S; tap++) {
            const scalar weight = taps[tap];
            const int down = tap / S * cut.layer.conv.dilation_h;
            const int right = tap % S * cut.layer.conv.dilation_w;
#pragma unroll
            for (int i = 0; i < cut.strip * WINDOW; i++) {
                const int window = i / WINDOW, place = i % WINDOW;
                const int row = place / cut.layer.pool_s * cut.layer.conv.stride_h + down;
                const int output = window * cut.layer.pool_s + place % cut.layer.pool_s;
                sums[row][output * cut.layer.conv.stride_w + right] +=
                    gradients[window][place] * weight;
            }
        }
    }

    // Leave dx of the block's images and channels in `tile`, as To has it, with all of its pads;
    // all threads must come here, and find it there behind no further barrier. Before, the tile's
    // memory holds the entries, and behind them the filters.
    static __device__ __forceinline__ void leave(scalar* tile, const scalar* __restrict__ dy,
                                                 const unsigned char* __restrict__ argmax,
                                                 const scalar* __restrict__ w, int n0, int n,
                                                 int c0) {
        Entry* const entries = reinterpret_cast<Entry*>(tile);
        scalar* const filters = reinterpret_cast<scalar*>(entries + cut.images * ENTRIES);
        const int c = threadIdx.x / CHANNEL_LANES;
        const bool is_owner = threadIdx.x % CHANNEL_LANES < OWNERS;
        const Index4 own =  // image, row, strip
            unflatten(threadIdx.x % CHANNEL_LANES, cut.rows, To::STRIPS, 1);

        scalar sums[To::SEEN_H][To::SEEN_W] = {};
        for (int k0 = 0; k0 < cut.layer.conv.k; k0 += cut.filters) {
            load_filters(filters, w, k0, c0);
            load_entries(entries, dy, argmax, n0, n, k0);
            __syncthreads();  // a thread reads what its neighbours loaded

            if (is_owner) {
#pragma unroll 1
                for (int k = 0; k < cut.filters; k++) {
                    add_filter(
                        sums,
                        entries + own.a * ENTRIES + k * WINDOWS + own.b * COLS + own.c * cut.strip,
                        filters + (k * cut.channels + c) * R * S);
                }
            }
            __syncthreads();  // the next filters, or dx, overwrite what others still read
        }

        // Add up what threads share. Threads of a block write different parts in each round.
        for (int i = threadIdx.x; i < cut.images * To::IMAGE; i += THREADS) tile[i] = 0;
        __syncthreads();  // a part may be another thread's first
        constexpr int part_w = To::STRIPS == 1 ? To::SEEN_W : To::STEP_W;
        scalar* const mine =
            tile + own.a * To::IMAGE + c * To::PLANE + own.b * cut.group + own.c * To::STEP_W;
#pragma unroll
        for (int i0 = 0; i0 < To::SEEN_H; i0 += To::STEP_H) {
#pragma unroll
            for (int j0 = 0; j0 < To::SEEN_W; j0 += part_w) {
                if (is_owner) {
#pragma unroll
                    for (int i = i0; i < min(i0 + To::STEP_H, To::SEEN_H); i++) {
#pragma unroll
                        for (int j = j0; j < min(j0 + part_w, To::SEEN_W); j++) {
                            mine[To::at(0, i, j)] += sums[i][j];
                        }
                    }
                }
                __syncthreads();  // the next round adds to what this one wrote
            }
        }
    }
};
