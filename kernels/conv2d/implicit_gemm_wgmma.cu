// y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s] on Hopper's tensor cores; dx likewise
// packed_w (K,R,S,C) and packed_x (N,H,W,C) in bfloat16, b (K) or null, y (N,K,P,Q) float32
// A warpgroup owns 64 filters x COLUMNS positions of a tile, a thread pairs of them of two filters.
// Against implicit_gemm_bf16: a product reads both its factors from shared memory, without a
// thread's registers between. The padded images lie end to end, one position a pixel; a block
// copies a tile's positions with their halo once for all taps, and a tap is the same matrix, begun
// further on. Limits: stride 1. One block of 8 warps (or two of 4) is resident: the sums fill the
// registers, and what keeps the tensor cores busy is that a product is always under way, of one
// tile after another.
#include "index.cuh"
#include "warpgroup.cuh"

static_assert(sizeof(scalar) == 4, "tensor cores take no doubles here");

constexpr int THREADS = 128 * WARPGROUPS_M * WARPGROUPS_N;
constexpr int RESIDENT_BLOCKS = THREADS == 128 || COLUMNS <= 112 ? 2 : 1;
constexpr int TILE_M = 64 * WARPGROUPS_M, TILE_N = COLUMNS * WARPGROUPS_N;
constexpr int IN_VECTOR = 8;            // factors in 16 bytes
constexpr int LINES = THREADS / CHUNK;  // pixels, or filters, that are copied at a time
// In shared memory a chunk is CHUNK vectors by pixels (or filters): 8 neighbours are a core matrix,
// wherever they begin. The pitch puts the vectors that 8 lanes copy on different banks.
constexpr int PITCH_STEP = 8 / CHUNK;
constexpr int W_PITCH = TILE_M + PITCH_STEP;
static_assert(CHUNK == 8 || CHUNK == 2, "a product takes 2 vectors, 8 lanes copy 8 of a pixel");

// Divides by one number again and again: by a product and a shift, where a division would take some
// 20 instructions, of which a step has little time for. Exact for dividends from 0 to 2^31 - 1: the
// multiplier is less than 1 too large, and so the quotient less than 1 / divisor.
struct Divisor {
    int divisor, shift;
    unsigned multiplier;

    __device__ __forceinline__ explicit Divisor(int by) : divisor(by), shift(31) {
        while (1u << (shift - 31) < (unsigned)by) shift++;
        multiplier = (unsigned)(((1ull << shift) + by - 1) / by);
    }
    __device__ __forceinline__ int quotient(int of) const {
        return (int)((unsigned long long)of * multiplier >> shift);
    }
    __device__ __forceinline__ int remainder(int of, int quotient) const {
        return of - quotient * divisor;
    }
};

struct Counts {
    int chunks, r, s, x_stages, w_stages;
};

// A product of a block, which takes tiles gridDim.x apart, of each all chunks of channels, and of a
// chunk all taps. Counters that wrap, for a division would stand before the next product.
struct Step {
    int tile, chunk, r, s, x_stage, w_stage;

    __device__ __forceinline__ void next_chunk(const Counts& of) {
        x_stage = x_stage + 1 == of.x_stages ? 0 : x_stage + 1;
        if (++chunk < of.chunks) return;
        chunk = 0;
        tile += gridDim.x;
    }
    __device__ __forceinline__ void next(const Counts& of) {
        w_stage = w_stage + 1 == of.w_stages ? 0 : w_stage + 1;
        if (++s < of.s) return;
        s = 0;
        if (++r < of.r) return;
        r = 0;
        next_chunk(of);
    }
};

// Forward, and with `is_turned` filters (and sides exchanged) the gradient to x. Of an image there
// are rows x cols positions: its pixels, and as many of zeros behind a row, and behind the last
// row, as the padding on either side of it: what is read left of a row is the end of the one above.
extern "C" __global__ void __launch_bounds__(THREADS, RESIDENT_BLOCKS)
    conv2d_implicit_gemm_wgmma(const unsigned* __restrict__ packed_w,
                               const unsigned* __restrict__ packed_x, const float* __restrict__ b,
                               float* __restrict__ y, const Conv2dShape shape, const int rows,
                               const int cols, const int x_stages, const int w_stages,
                               const int keeps_w, const int is_turned) {
    extern __shared__ uint4 shared[];
    __shared__ __align__(8) int places[2][TILE_N];

    const int taps = shape.r * shape.s, vectors = ceil_div(shape.c, IN_VECTOR);
    const Counts counts{ceil_div(vectors, CHUNK), shape.r, shape.s, x_stages, w_stages};
    const int tiles_m = ceil_div(shape.k, TILE_M);
    const int tiles = tiles_m * ceil_div(shape.n * rows * cols, TILE_N);
    const int tap_row = shape.dilation_h * cols;  // positions from a tap to the one below
    const int pixels = TILE_N + (shape.r - 1) * tap_row + (shape.s - 1) * shape.dilation_w;
    const int x_pitch = ceil_div(pixels - PITCH_STEP, 8) * 8 + PITCH_STEP;
    const int x_stage = CHUNK * x_pitch;
    constexpr int W_STAGE = CHUNK * W_PITCH;
    uint4* const shared_x = shared + w_stages * W_STAGE;

    const Divisor by_tiles_m(tiles_m), by_rows(rows), by_cols(cols);
    const auto position_at = [&](int position) {  // image, nothing, row, column
        const int line = by_cols.quotient(position), image = by_rows.quotient(line);
        return Index4{image, 0, by_rows.remainder(line, image), by_cols.remainder(position, line)};
    };
    const auto first_position = [&](int tile) { return by_tiles_m.quotient(tile) * TILE_N; };
    const auto first_filter = [&](int tile) {
        return by_tiles_m.remainder(tile, by_tiles_m.quotient(tile)) * TILE_M;
    };

    // A thread copies the same vector of several pixels and filters: 128 bytes of each to 8 lanes.
    const int line = threadIdx.x / CHUNK, vector = threadIdx.x % CHUNK;
    const auto copy_pixels = [&](const Step& step, int share, int shares) {
        const int first = first_position(step.tile) - shape.pad_top * cols - shape.pad_left;
        const int from = step.chunk * CHUNK + vector;
        uint4* to = shared_x + step.x_stage * x_stage + vector * x_pitch;
        for (int i = line + share * LINES; i < pixels; i += shares * LINES) {
            const int position = max(first + i, 0);
            const Index4 at = position_at(position);
            const bool is_there = position == first + i && at.a < shape.n && at.c < shape.h &&
                                  at.d < shape.w && from < vectors;
            const int pixel = (at.a * shape.h + at.c) * shape.w + at.d;
            copy_async(to + i, reinterpret_cast<const uint4*>(packed_x) + pixel * vectors + from,
                       is_there);
        }
    };
    const auto copy_filters = [&](const Step& step) {
        const int m0 = first_filter(step.tile), from = step.chunk * CHUNK + vector;
        const int tap = step.r * shape.s + step.s, from_tap = is_turned ? taps - 1 - tap : tap;
        uint4* to = shared + step.w_stage * W_STAGE + vector * W_PITCH;
#pragma unroll
        for (int i = 0; i < TILE_M; i += LINES) {
            const int filter = m0 + line + i;
            if (TILE_M % LINES && line + i >= TILE_M) break;
            copy_async(to + line + i,
                       reinterpret_cast<const uint4*>(packed_w) +
                           (filter * taps + from_tap) * vectors + from,
                       from < vectors && filter < shape.k);
        }
    };
    const auto find_places = [&](int tile, int* place) {
        for (int i = threadIdx.x; i < TILE_N; i += THREADS) {
            const Index4 at = position_at(first_position(tile) + i);
            const bool in_output = at.a < shape.n && at.c < shape.p && at.d < shape.q;
            place[i] = in_output ? y_offset(shape, at.a, 0, at.c, at.d) : -1;
        }
    };

    // With a step's filters comes a share of a later chunk's pixels, `lead` chunks on: their stage
    // is free two steps behind the last product that reads it, and they are there two steps later.
    const int lead = taps == 1 ? 2 : 1, shares = max(taps - 2, 1);
    Step now{(int)blockIdx.x, 0, 0, 0, 0, 0}, of_pixels = now, of_filters = now;
    for (int stage = 0; stage < 2; stage++) {
        if (stage < lead) {
            if (of_pixels.tile < tiles) copy_pixels(of_pixels, 0, 1);
            of_pixels.next_chunk(counts);
        }
        if (of_filters.tile < tiles && stage < w_stages) copy_filters(of_filters);
        of_filters.next(counts);
        copy_commit();
    }
    find_places(now.tile, places[0]);

    const int warpgroup = __shfl_sync(0xffffffffu, threadIdx.x / 128, 0);  // known to be uniform
    const int group_m = warpgroup / WARPGROUPS_N, group_n = warpgroup % WARPGROUPS_N;
    const Descriptor of_w = matrix_descriptor(shared + group_m * 64, W_PITCH * 16, 8 * 16);
    const Descriptor of_x = matrix_descriptor(shared_x + group_n * COLUMNS, x_pitch * 16, 8 * 16);
    for (int turn = 0, step = 0; now.tile < tiles; turn++) {
        const int tile = now.tile;
        float sums[COLUMNS / 2] = {};
        while (now.tile == tile) {
            const Descriptor w = of_w + now.w_stage * W_STAGE;
            const Descriptor x =
                of_x + now.x_stage * x_stage + now.r * tap_row + now.s * shape.dilation_w;
            // This step's factors are there when each thread has waited for its own copies and
            // fenced them for the products; and all warpgroups have waited for the product before
            // the last, whose stage the next copies take, and have stored the tile before.
            copy_wait<1>();
            async_proxy_fence();
            __syncthreads();
            warpgroup_fence();
#pragma unroll  // one after the other, nothing between
            for (int v = 0; v < CHUNK; v += 2) {
                multiply_async(sums, w + v * W_PITCH, x + v * x_pitch);
            }
            multiply_commit();

            const int tap = now.r * shape.s + now.s, share = taps > 2 ? tap - 1 : tap;
            if (now.chunk == 0 && tap == 0) {
                find_places(tile + gridDim.x, places[(turn + 1) % 2]);
            }
            if (share >= 0 && share < shares && of_pixels.tile < tiles) {
                copy_pixels(of_pixels, share, shares);
            }
            if (of_filters.tile < tiles && (!keeps_w || step + 2 < w_stages)) {
                copy_filters(of_filters);
            }
            copy_commit();  // an empty group too: the wait counts them
            now.next(counts);
            if (tap + 1 == taps) of_pixels.next_chunk(counts);
            of_filters.next(counts);
            step++;
            multiply_wait<1>();
        }
        multiply_wait(sums);

        // Store: 4 lanes have 8 neighbours in a row, of two filters.
        const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
        const int filter = first_filter(tile) + group_m * 64 + warp * 16 + lane / 4;
        const int plane = shape.p * shape.q;
        const int* place = &places[turn % 2][group_n * COLUMNS + lane % 4 * 2];
        float start[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            start[i] = b && filter + i * 8 < shape.k ? b[filter + i * 8] : 0.0f;
        }
#pragma unroll
        for (int col = 0; col < COLUMNS / 8; col++) {
            const int2 to = *reinterpret_cast<const int2*>(place + col * 8);
#pragma unroll
            for (int i = 0; i < 2; i++) {
                if (filter + i * 8 >= shape.k) continue;
                float* out = y + (filter + i * 8) * plane;
                const float2 pair = make_float2(sums[col * 4 + i * 2] + start[i],
                                                sums[col * 4 + i * 2 + 1] + start[i]);
                if (to.x >= 0 && to.y == to.x + 1 && (size_t)(out + to.x) % 8 == 0) {
                    *reinterpret_cast<float2*>(out + to.x) = pair;
                    continue;
                }
                if (to.x >= 0) out[to.x] = pair.x;
                if (to.y >= 0) out[to.y] = pair.y;
            }
        }
    }
}
