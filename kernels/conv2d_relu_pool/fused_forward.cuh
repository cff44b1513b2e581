// The fused block's forward pass in registers, for one layer: fused.cu, and fused_pair.cu of two.
#pragma once
#include "conv2d_relu_pool/fused.cuh"

// A thread owns STRIP windows side by side of one filter, and all their convolution outputs.
template <const Cut& cut>
struct Forward {
    using In = Tile<cut>;
    static constexpr int R = In::R, S = In::S, OUTPUTS = In::OUTPUTS;
    static constexpr int OWNERS = cut.images * cut.filters * cut.rows * In::STRIPS;
    static constexpr int TAPS = cut.channels * R * S, FILTER = TAPS + cut.pad;
    // The input is read two at a time where that is aligned; there is room behind a row's end.
    static constexpr bool PAIRS = In::STEP_W % 2 == 0;
    static_assert(cut.pitch % 2 == 0 && cut.group % 2 == 0 && In::IMAGE % 2 == 0,
                  "pairs are aligned");

    static constexpr int SUMS = cut.layer.pool_r * OUTPUTS;
    scalar sums[cut.layer.pool_r][OUTPUTS];

    template <int THREADS>
    static __device__ __forceinline__ void load_filters(scalar* filters,
                                                        const scalar* __restrict__ w, int k0,
                                                        int c0) {
        for (int i = threadIdx.x; i < cut.filters * TAPS; i += THREADS) {
            const int k = i / TAPS, tap = i % TAPS;
            const bool in_w = k0 + k < cut.layer.conv.k && c0 + tap / (R * S) < cut.layer.conv.c;
            filters[k * FILTER + tap] =
                in_w ? w[w_offset(cut.layer.conv, k0 + k, c0, 0, 0) + tap] : scalar(0);
        }
    }

    // An owner's image, filter, row and strip.
    static __device__ __forceinline__ Index4 place_of(int owner) {
        return unflatten(owner, cut.filters, cut.rows, In::STRIPS);
    }

    __device__ __forceinline__ void start(scalar bias) {
#pragma unroll
        for (int a = 0; a < cut.layer.pool_r; a++) {
#pragma unroll
            for (int q = 0; q < OUTPUTS; q++) sums[a][q] = bias;
        }
    }

    // Add what the thread's windows see of some channels of a tile of images.
    __device__ __forceinline__ void add(const scalar* images, const scalar* filters,
                                        const Index4& own, int first_c = 0,
                                        int last_c = cut.channels) {
        const scalar* seen = images + own.a * In::IMAGE + own.c * cut.group + own.d * In::STEP_W;
#pragma unroll 1
        for (int c = first_c; c < last_c; c++) {
            add_channel(seen + c * In::PLANE, filters + own.b * FILTER + c * R * S);
        }
    }

    // Store the sums for another thread, or add another's, `pitch` apart.
    __device__ __forceinline__ void hand_over(scalar* to, int pitch) const {
#pragma unroll
        for (int i = 0; i < SUMS; i++) to[i * pitch] = sums[i / OUTPUTS][i % OUTPUTS];
    }
    __device__ __forceinline__ void take_over(const scalar* from, int pitch) {
#pragma unroll
        for (int i = 0; i < SUMS; i++) sums[i / OUTPUTS][i % OUTPUTS] += from[i * pitch];
    }

    // Each window's maximum, ties to the first in row order; NaN is its window's maximum.
    __device__ __forceinline__ void find_maxima(scalar (&maxima)[cut.strip],
                                                int (&places)[cut.strip]) const {
        constexpr int pool_s = cut.layer.pool_s;
#pragma unroll
        for (int j = 0; j < cut.strip; j++) {
            scalar best = sums[0][j * pool_s];
            int best_at = 0;
#pragma unroll
            for (int i = 1; i < In::WINDOW; i++) {
                const scalar value = sums[i / pool_s][j * pool_s + i % pool_s];
                if (!(value <= best) && best == best) {  // greater, or the first NaN
                    best = value;
                    best_at = i;
                }
            }
            const bool is_closed = best <= scalar(0);
            maxima[j] = is_closed ? scalar(0) : best;
            places[j] = is_closed ? CLOSED : best_at;
        }
    }

  private:
    static __device__ __forceinline__ void load_row(scalar (&row)[In::SEEN_W + 1],
                                                    const scalar* from) {
#pragma unroll
        for (int j = 0; j < In::SEEN_W; j += PAIRS ? 2 : 1) {
            if (PAIRS) {
                const Pair<scalar> two = *reinterpret_cast<const Pair<scalar>*>(from + j);
                row[j] = two.x;
                row[j + 1] = two.y;
            } else {
                row[j] = from[j];
            }
        }
    }

    // Unrolled throughout: sums, row and taps are registers, and shared memory is read at
    // constants.
    __device__ __forceinline__ void add_channel(const scalar* seen, const scalar* filter) {
        constexpr Conv2dShape conv = cut.layer.conv;
        scalar taps[R][S];
#pragma unroll
        for (int i = 0; i < In::SEEN_H; i++) {
            const int r_new = i / conv.dilation_h;
            if (i % conv.dilation_h == 0 && r_new < R) {  // the window's first row needs them now
#pragma unroll
                for (int s = 0; s < S; s++) taps[r_new][s] = filter[r_new * S + s];
            }
            scalar row[In::SEEN_W + 1];
            load_row(row, seen + i / In::STEP_H * cut.group + i % In::STEP_H * cut.pitch);
#pragma unroll
            for (int a = 0; a < cut.layer.pool_r; a++) {
                const int reach = i - a * conv.stride_h, r = reach / conv.dilation_h;
                if (reach < 0 || reach % conv.dilation_h != 0 || r >= R) continue;
#pragma unroll
                for (int s = 0; s < S; s++) {
#pragma unroll
                    for (int q = 0; q < OUTPUTS; q++) {
                        const int col = q * conv.stride_w + s * conv.dilation_w;
                        sums[a][q] += row[col] * taps[r][s];
                    }
                }
            }
        }
    }
};
