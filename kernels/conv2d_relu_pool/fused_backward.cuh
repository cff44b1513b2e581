// The fused block's gradient to the filters and biases, by shared memory: of fused_backward.cu, and
// of fused_pair_backward.cu, which has dy there.
#pragma once
#include "conv2d_relu_pool/fused.cuh"

// A thread owns the S taps of one (k,c,r), for every `shares`-th window of a tile. OF_SHARE lanes
// are a share's, OF_FILTER of these a filter's.
template <const Cut& cut, int OF_SHARE, int OF_FILTER>
struct FilterGradient {
    // A window's gradient, and where in the tile its winner's first tap is; -1 where the ReLU is
    // closed.
    struct alignas(2 * sizeof(scalar)) Entry {
        scalar gradient;
        int offset;
    };

    using From = Tile<cut>;
    static constexpr int R = From::R, S = From::S;
    static constexpr int WINDOWS = cut.layer.pooled_p * cut.layer.pooled_q;
    static constexpr int FIBERS = cut.channels * R;  // (c, r) of a filter
    static constexpr int SUMS = cut.filters * FIBERS * S, SHARE = SUMS + cut.filters;
    static_assert(OF_FILTER >= FIBERS && OF_SHARE >= cut.filters * OF_FILTER,
                  "a lane for each fiber");

    const int share, k, fiber;
    scalar sums[S], bias;

    __device__ __forceinline__ FilterGradient()
        : share(threadIdx.x / OF_SHARE),
          k(threadIdx.x % OF_SHARE / OF_FILTER),
          fiber(threadIdx.x % OF_SHARE % OF_FILTER),
          sums{},
          bias(0) {}

    static __device__ __forceinline__ Entry entry(int window, scalar gradient, int place) {
        const int p = window / cut.layer.pooled_q * cut.layer.pool_r + place / cut.layer.pool_s;
        const int q = window % cut.layer.pooled_q * cut.layer.pool_s + place % cut.layer.pool_s;
        const int offset = p * cut.layer.conv.stride_h * cut.pitch + q * cut.layer.conv.stride_w;
        return Entry{gradient, place == CLOSED ? -1 : offset};
    }

    __device__ __forceinline__ bool is_owner(int shares, int k0) const {
        return share < shares && k < cut.filters && k0 + k < cut.layer.conv.k && fiber < FIBERS;
    }

    // Add an owner's products with the tile of an image; `entries` are (filters, WINDOWS).
    __device__ __forceinline__ void add(const Entry* entries, const scalar* tile, int shares) {
        const scalar* const seen =
            tile + fiber / R * From::PLANE + fiber % R * cut.layer.conv.dilation_h * cut.pitch;
#pragma unroll 4
        for (int i = share; i < WINDOWS; i += shares) {
            const Entry entry = entries[k * WINDOWS + i];
            if (entry.offset < 0) continue;
            bias += entry.gradient;
#pragma unroll
            for (int s = 0; s < S; s++) {
                sums[s] += entry.gradient * seen[entry.offset + s * cut.layer.conv.dilation_w];
            }
        }
    }

    // Add up the shares by way of `merged`, SHARE elements each, and store the block's part of dw,
    // a filter's taps side by side, and of db. All fibers of a filter have its db: the first one's
    // counts. All threads must come here.
    __device__ __forceinline__ void store(scalar* merged, scalar* __restrict__ partial, int bias_at,
                                          int shares, int k0, int c0) const {
        scalar* const biases = merged + shares * SUMS;
        if (is_owner(shares, k0)) {
            if (fiber == 0) biases[share * cut.filters + k] = bias;
#pragma unroll
            for (int s = 0; s < S; s++) {
                merged[(share * cut.filters + k) * FIBERS * S + fiber * S + s] = sums[s];
            }
        }
        __syncthreads();  // a tap's sum is in several threads
        const int taps = min(cut.channels, cut.layer.conv.c - c0) * R * S;
        for (int i = threadIdx.x; i < SUMS; i += blockDim.x) {
            const int filter = k0 + i / (FIBERS * S), tap = i % (FIBERS * S);
            const bool in_filter = filter < cut.layer.conv.k && tap < taps;
            if (in_filter) {
                scalar sum = 0;
                for (int other = 0; other < shares; other++) sum += merged[other * SUMS + i];
                partial[w_offset(cut.layer.conv, filter, c0, 0, 0) + tap] = sum;
            }
        }
        const bool has_bias = bias_at >= 0 && c0 == 0 && threadIdx.x < cut.filters;
        if (has_bias && k0 + threadIdx.x < cut.layer.conv.k) {
            scalar sum = 0;
            for (int other = 0; other < shares; other++) {
                sum += biases[other * cut.filters + threadIdx.x];
            }
            partial[bias_at + k0 + threadIdx.x] = sum;
        }
    }
};
