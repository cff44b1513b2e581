// dw[k,c,r,s] = sum over n and the windows with an open ReLU of dy x at the winner's tap (r,s);
// db[k] = sum of the same dy
// x (N,C,H,W), dy and argmax (N,K,pooled P,pooled Q), partial (slices,pitch): dw (K,C,R,S) and, at
// bias_at unless that is negative, db (K)
// A thread owns the S taps of one (c,r) for OWN filters, for every SHARES-th window of every
// `slices`-th image. Against fused_backward.cu: what any place of a window sees of x is read once,
// for all OWN filters, and stays in registers; which of them a product takes is a branch on the
// winner's place, the same for a whole warp, whose threads differ in (c,r) alone. Slices and shares
// are added in one order, without atomics. Limits: few (c,r) would leave lanes idle, and the sums
// and a window's x have to fit in registers (fused_plan.py).
#include "conv2d_relu_pool/fused.cuh"

constexpr int WINDOWS = layer.pooled_p * layer.pooled_q;
constexpr int FIBERS = CHANNELS * R;  // (c, r) of a filter
constexpr int FIBER_LANES = (FIBERS + 31) / 32 * 32;
constexpr int TEAMS = FILTERS / OWN;  // of threads; each has its filters
constexpr int SHARE_LANES = TEAMS * FIBER_LANES;
constexpr int THREADS = SHARES * SHARE_LANES;
static_assert(FILTERS % OWN == 0 && OWN % 4 == 0 && OWN <= 32, "four at a time, a lane for each");
static_assert(WINDOW <= CLOSED / 2, "a closed ReLU is the one place with the highest bit");
static_assert(THREADS <= 1024, "CUDA's limit of threads a block");

// From a window to the next: in four filters' steps, an odd number of which spreads the banks.
constexpr int SPACING = FILTERS % 8 == 0 ? FILTERS + 4 : FILTERS;
// What a thread sees of a window: in rows that are a stride apart, so many columns, read two at a
// time where that is aligned.
constexpr int WINDOW_STEP = layer.pool_s * layer.conv.stride_w;
constexpr int COLS = WINDOW_STEP - layer.conv.stride_w + (S - 1) * layer.conv.dilation_w + 1;
constexpr bool PAIRS = WINDOW_STEP % 2 == 0 && PITCH % 2 == 0 && GROUP % 2 == 0 && PLANE % 2 == 0;
using Seen = scalar[layer.pool_r][COLS + 1];
constexpr int MERGED = TEAMS * 4 * FIBERS * S;  // sums that are added up over the shares at a time

struct alignas(16) Four {
    scalar of[4];
};

// The gradients lie as [window][filter], zero where the ReLU is closed, and so do the places.
__device__ __forceinline__ void load_windows(scalar* gradients, unsigned char* places,
                                             const scalar* __restrict__ dy,
                                             const unsigned char* __restrict__ argmax, int n,
                                             int k0) {
#pragma unroll 4
    for (int done = 0; done < FILTERS * WINDOWS; done += THREADS) {
        const int i = done + threadIdx.x, k = i / WINDOWS, to = i % WINDOWS * SPACING + k;
        const int from = y_offset(layer, n, k0, 0, 0) + i;
        const bool is_filled = i < FILTERS * WINDOWS, in_y = is_filled && k0 + k < layer.conv.k;
        const int place = in_y ? argmax[from] : CLOSED;
        const scalar gradient = in_y ? dy[from] : scalar(0);
        if (is_filled) {
            gradients[to] = place == CLOSED ? scalar(0) : gradient;
            places[to] = place;
        }
    }
}

__device__ __forceinline__ void load_seen(Seen& seen, const scalar* from) {
#pragma unroll
    for (int i = 0; i < layer.pool_r; i++) {
#pragma unroll
        for (int j = 0; j < COLS; j += PAIRS ? 2 : 1) {
            const scalar* const at = from + i * layer.conv.stride_h * PITCH + j;
            if (PAIRS) {
                const Pair<scalar> two = *reinterpret_cast<const Pair<scalar>*>(at);
                seen[i][j] = two.x;
                seen[i][j + 1] = two.y;
            } else {
                seen[i][j] = *at;
            }
        }
    }
}

// Add a window's products: of the places from PLACE on, which of 2 x BIT it is says the byte at
// `shift` of `places`. A closed ReLU has all bits set: an odd place has to ask whether it is one.
// Two things are for the compiler. Every odd place asks, not the last alone: a branch between
// products and products becomes conditions on all of them. And of two branches that test one bit
// the first tests the closed ReLU's with it: a test that both share is two instructions, not one.
template <int BIT, int PLACE>
__device__ __forceinline__ void add_window(scalar (&sums)[S], unsigned places, int shift,
                                           scalar gradient, const Seen& seen) {
    constexpr unsigned closed = 0x80, bits = BIT == 1 && PLACE % 4 == 0 ? BIT | closed : BIT;
    if constexpr (PLACE >= WINDOW) {
        return;
    } else if constexpr (BIT == 0) {
#pragma unroll
        for (int s = 0; s < S; s++) {
            const int col = PLACE % layer.pool_s * layer.conv.stride_w + s * layer.conv.dilation_w;
            sums[s] += gradient * seen[PLACE / layer.pool_s][col];
        }
    } else if (!(places & bits << shift)) {
        add_window<BIT / 2, PLACE>(sums, places, shift, gradient, seen);
    } else if (BIT > 1 || !(places & closed << shift)) {
        add_window<BIT / 2, PLACE + BIT>(sums, places, shift, gradient, seen);
    }
}

constexpr int FIRST_BIT = WINDOW > 64   ? 64
                          : WINDOW > 32 ? 32
                          : WINDOW > 16 ? 16
                          : WINDOW > 8  ? 8
                          : WINDOW > 4  ? 4
                          : WINDOW > 2  ? 2
                                        : 1;

// The 2: two blocks a multiprocessor, one of which works while the other loads.
extern "C" __global__ void __launch_bounds__(THREADS, 2)
    conv2d_relu_pool_fused_backward_filter(const scalar* __restrict__ x,
                                           const scalar* __restrict__ dy,
                                           const unsigned char* __restrict__ argmax,
                                           scalar* __restrict__ partial, const BlockShape shape,
                                           const int slices, const int pitch, const int bias_at) {
    extern __shared__ Four shared[];
    scalar* const gradients = reinterpret_cast<scalar*>(shared);
    scalar* const tile = gradients + WINDOWS * SPACING;
    unsigned char* const places = reinterpret_cast<unsigned char*>(tile + IMAGE);

    const Index4 block =
        unflatten(blockIdx.x, FILTER_TILES, (layer.conv.c + CHANNELS - 1) / CHANNELS, 1);
    const int slice = block.a, k0 = block.b * FILTERS, c0 = block.c * CHANNELS;
    // The first lane's, so that the compiler knows a warp's threads to have one share, one team.
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
    const int share = warp / (SHARE_LANES / 32);
    const int team = warp % (SHARE_LANES / 32) / (FIBER_LANES / 32);
    const int fiber = threadIdx.x % FIBER_LANES, lane = threadIdx.x % 32;
    const int c = min(fiber, FIBERS - 1) / R, r = min(fiber, FIBERS - 1) % R;

    scalar sums[OWN][S] = {}, bias = 0;
    const scalar* const mine = tile + c * PLANE + r * layer.conv.dilation_h * PITCH;
    for (int n = slice; n < shape.conv.n; n += slices) {
        TheTile::load<THREADS>(tile, x, n, true, c0, -layer.conv.pad_top);
        load_windows(gradients, places, dy, argmax, n, k0);
        __syncthreads();  // every thread needs the whole tile

        int col = share % layer.pooled_q;
        const scalar* from = mine + share / layer.pooled_q * GROUP + col * WINDOW_STEP;
        const scalar* own = gradients + share * SPACING + team * OWN;
        const unsigned char* own_places = places + share * SPACING + team * OWN;
#pragma unroll 1
        for (int i = share; i < WINDOWS; i += SHARES) {
            Seen seen;
            load_seen(seen, from);
            bias += own[lane % OWN];  // a filter a lane
#pragma unroll
            for (int k = 0; k < OWN; k += 4) {
                const Four four = *reinterpret_cast<const Four*>(own + k);
                const unsigned of_four = *reinterpret_cast<const unsigned*>(own_places + k);
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    add_window<FIRST_BIT, 0>(sums[k + j], of_four, 8 * j, four.of[j], seen);
                }
            }
            own += SHARES * SPACING;
            own_places += SHARES * SPACING;
            from += SHARES / layer.pooled_q * GROUP + SHARES % layer.pooled_q * WINDOW_STEP;
            col += SHARES % layer.pooled_q;
            if (SHARES % layer.pooled_q != 0 && col >= layer.pooled_q) {
                col -= layer.pooled_q;
                from += GROUP - layer.pooled_q * WINDOW_STEP;
            }
        }
        __syncthreads();  // the next image overwrites what others still read
    }

    // Add up the shares, and store the block's part of db and, four filters of each team at a time,
    // of dw, a filter's taps side by side.
    scalar* const merged = gradients;
    scalar* const biases = merged + SHARES * MERGED;
    if (fiber < OWN) biases[share * FILTERS + team * OWN + fiber] = bias;
    const int taps = min(CHANNELS, layer.conv.c - c0) * R * S;
#pragma unroll
    for (int k = 0; k < OWN; k += 4) {
        if (fiber < FIBERS) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
#pragma unroll
                for (int s = 0; s < S; s++) {
                    merged[share * MERGED + (team * 4 + j) * FIBERS * S + fiber * S + s] =
                        sums[k + j][s];
                }
            }
        }
        __syncthreads();  // a tap's sum is in several threads
#pragma unroll 1
        for (int i = warp; i < TEAMS * 4; i += THREADS / 32) {  // a warp a filter
            const int filter = k0 + i / 4 * OWN + k + i % 4;
            const int to = slice * pitch + w_offset(layer.conv, filter, c0, 0, 0);
#pragma unroll 4
            for (int done = 0; done < FIBERS * S; done += 32) {
                const int tap = done + lane;
                const bool in_filter = filter < layer.conv.k && tap < taps;
                if (in_filter) {
                    scalar sum = 0;
                    for (int other = 0; other < SHARES; other++) {
                        sum += merged[other * MERGED + i * FIBERS * S + tap];
                    }
                    partial[to + tap] = sum;
                }
            }
        }
        __syncthreads();  // the next filters' sums overwrite what others still read
    }
    const bool has_bias = bias_at >= 0 && c0 == 0 && threadIdx.x < FILTERS;
    if (has_bias && k0 + threadIdx.x < layer.conv.k) {
        scalar sum = 0;
        for (int other = 0; other < SHARES; other++) sum += biases[other * FILTERS + threadIdx.x];
        partial[slice * pitch + bias_at + k0 + threadIdx.x] = sum;
    }
}
