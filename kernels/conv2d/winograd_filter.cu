// dw[k,c] = G^T [sum_tiles (A dy A^T) . (B^T x B)] G: winograd.cu's gradient, F(3x3, 2x2)
// x (N,C,H,W), dy (N,K,P,Q), dw (K,C,3,3); partial (slices,K,C,3,3)
// A block owns 32 filters x 32 channels and every `slices`-th run of tiles; a warp 2 of the 16
// points, a lane 8 x 4 sums.
// Against register_tiled_filter: 16 products for 9 taps and 4 outputs, not 36.
// Limits and error: winograd.cu's.
#include "conv2d/winograd.cuh"

constexpr int STEP = POINTS * SIDE + 4;  // padded: threads of different tiles store to other banks

// 2 blocks a multiprocessor; in double the sums alone fill the registers of half as many threads.
extern "C" __global__ void __launch_bounds__(THREADS, 8 / sizeof(scalar))
    conv2d_winograd_backward_filter(const scalar* __restrict__ x, const scalar* __restrict__ dy,
                                    scalar* __restrict__ partial, const Conv2dShape shape,
                                    const int slices) {
    extern __shared__ Vector shared_vectors[];
    scalar* gradients = reinterpret_cast<scalar*>(shared_vectors);
    scalar* data = gradients + STEPS * STEP;

    const int slice = blockIdx.x % slices;
    const int channel_blocks = ceil_div(shape.c, SIDE);
    const int first_k = blockIdx.x / slices / channel_blocks * SIDE;
    const int first_c = blockIdx.x / slices % channel_blocks * SIDE;
    const int tiles = shape.n * ceil_div(shape.p, 2) * ceil_div(shape.q, 2);
    const int step = threadIdx.x % STEPS;
    // Then a tile's two outputs of a row are whole and aligned.
    const bool in_pairs = shape.q % 2 == 0 && reinterpret_cast<size_t>(dy) % sizeof(Pair) == 0;

    scalar sums[2][LEFT][RIGHT] = {};
    for (int first = slice * STEPS; first < tiles; first += slices * STEPS) {
        // Load and transform: neighbouring threads take neighbouring tiles of a channel or filter.
        const WinogradTile tile = tile_of(first + step, shape);
        for (int i = threadIdx.x / STEPS; i < SIDE; i += THREADS / STEPS) {
            scalar at[4][4];
            load_data<STEPS>(at, x, shape, tile, first_c + i, first_c + i < shape.c);
#pragma unroll
            for (int point = 0; point < POINTS; point++) {
                data[step * STEP + point * SIDE + i] = at[point / 4][point % 4];
            }
            scalar outputs[2][2];
            const bool in_filters = tile.exists && first_k + i < shape.k;
            const scalar* from = dy + y_offset(shape, tile.n, first_k + i, tile.p, tile.q);
#pragma unroll
            for (int row = 0; row < 2; row++) {
                const bool in_rows = in_filters && tile.p + row < shape.p;
                Pair pair = {};
                if (in_rows && in_pairs) {
                    pair = *reinterpret_cast<const Pair*>(from + row * shape.q);
                } else if (in_rows) {
                    pair.first = from[row * shape.q];
                    if (tile.q + 1 < shape.q) pair.second = from[row * shape.q + 1];
                }
                outputs[row][0] = pair.first;
                outputs[row][1] = pair.second;
            }
            both_ways(gradient_points, outputs, at);
#pragma unroll
            for (int point = 0; point < POINTS; point++) {
                gradients[step * STEP + point * SIDE + i] = at[point / 4][point % 4];
            }
        }
        __syncthreads();  // a warp reads its points of all filters and channels
        multiply_points<STEP>(sums, gradients, data, STEPS);
        __syncthreads();  // the next tiles overwrite what others still read
    }

    // Store: a thread takes all points of a filter and channel, by way of shared memory, and its
    // warp's taps go out through the same words, so that lanes write neighbouring ones.
    const int lane = threadIdx.x % 32;
    const int taps_left = (shape.c - first_c) * 9;
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        exchange(gradients, sums, round);
        __syncthreads();  // a thread reads what 8 warps stored
        for (int row = threadIdx.x / 32; row < ROUND_ROWS; row += THREADS / 32) {
            const int k = first_k + round * ROUND_ROWS + row;
            const bool in_filters = k < shape.k;  // the same for the whole warp
            if (in_filters) {
                scalar products[4][4], taps[3][3];
#pragma unroll
                for (int point = 0; point < POINTS; point++) {
                    products[point / 4][point % 4] =
                        gradients[(point * ROUND_ROWS + row) * PITCH + lane];
                }
                both_ways(gradients_of, products, taps);
                __syncwarp();  // all lanes have read the row's products
#pragma unroll
                for (int tap = 0; tap < 9; tap++) {
                    const int i = lane * 9 + tap;
                    gradients[(i / 32 * ROUND_ROWS + row) * PITCH + i % 32] =
                        taps[tap / 3][tap % 3];
                }
                __syncwarp();  // a lane stores what others worked out
                scalar* to = partial + ((slice * shape.k + k) * shape.c + first_c) * 9;
#pragma unroll
                for (int j = 0; j < 9; j++) {
                    const int i = j * 32 + lane;
                    if (i < taps_left) to[i] = gradients[(j * ROUND_ROWS + row) * PITCH + lane];
                }
            }
        }
        __syncthreads();  // the next round overwrites what others still read
    }
}
