// y[n,k,p,q] = b[k] + sum_c A^T [(G w G^T) . (B^T x B)] A: Winograd's F(2x2, 3x3); dx alike
// x (N,C,H,W), w (K,C,3,3), b (K) or null, y (N,K,P,Q); points (blocks of K,C,16,32): G w G^T
// A block owns 32 filters x 32 tiles of 2x2 outputs; a warp 2 of the 16 points, a lane 8 x 4 sums.
// Against register_tiled: 16 products for 4 outputs of a channel, not 36. Filters are transformed
// once, tiles on their way to shared memory; no transformed image is stored. Limits: 3x3, stride
// and dilation 1. An infinite input makes NaN of its tile, and so may one beyond a quarter of the
// largest float, of which four are added. Images of odd width are read one word a lane, 2 columns
// apart: 8 sectors a request where 4 would do.
//
// After Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016. Its error: in
// one dimension y0 = (d0-d2) g0 + (d1+d2)(g0+g1+g2)/2 + (d2-d1)(g0-g1+g2)/2. With magnitudes
// everywhere, no |d_i||g_j| of the output's own window occurs more than twice and none outside it
// at all (y1 alike); in two dimensions, four times. A term is rounded in 2 additions of B^T, 4 of
// G, C fused multiply-adds, 4 additions of A^T and the bias, C + 11 times. So, by Higham, Accuracy
// and Stability of Numerical Algorithms, 2nd ed., section 3.1, and with one to spare,
//     |error| <= (C + 12) u 4 sum_c (sum of |x| in the window) (sum of |w| over the taps)
//              = (C + 12) u 36 conv(|x|, mean of |w| over the taps).
// The 36 is `growth` in table.py. For dw the same holds with N*P*Q for C, of which there are no
// more tiles, and op(|x|, |dy|) averaged over the taps.
#include "conv2d/winograd.cuh"

constexpr int STEP = POINTS * SIDE;

// 2 blocks a multiprocessor; in double the sums alone fill the registers of half as many threads.
extern "C" __global__ void __launch_bounds__(THREADS, 8 / sizeof(scalar))
    conv2d_winograd(const scalar* __restrict__ x, const scalar* __restrict__ points,
                    const scalar* __restrict__ b, scalar* __restrict__ y, const Conv2dShape shape) {
    extern __shared__ Vector shared_vectors[];
    scalar* filters = reinterpret_cast<scalar*>(shared_vectors);
    scalar* data = filters + STEPS * STEP;

    const int filter_blocks = ceil_div(shape.k, SIDE);
    const int filter_block = blockIdx.x % filter_blocks;  // neighbouring blocks share their tiles
    const int lane = threadIdx.x % 32;
    const WinogradTile tile = tile_of(blockIdx.x / filter_blocks * SIDE + lane, shape);

    scalar sums[2][LEFT][RIGHT] = {};
    const Vector* from = reinterpret_cast<const Vector*>(points + filter_block * shape.c * STEP);
    for (int c = 0; c < shape.c; c += STEPS) {
        // Load: filters as they lie in memory, tiles transformed, a channel and tile a thread.
        const int channels = min(STEPS, shape.c - c);
        for (int i = threadIdx.x; i < channels * STEP / LANES; i += THREADS) {
            shared_vectors[i] = from[i];
        }
        from += channels * STEP / LANES;
        for (int channel = threadIdx.x / 32; channel < channels; channel += THREADS / 32) {
            scalar at[4][4];
            load_data<32>(at, x, shape, tile, c + channel, true);
#pragma unroll
            for (int point = 0; point < POINTS; point++) {
                data[channel * STEP + point * SIDE + lane] = at[point / 4][point % 4];
            }
        }
        __syncthreads();  // a warp reads its points of all tiles and filters
        multiply_points<STEP>(sums, filters, data, channels);
        __syncthreads();  // the next channels overwrite what others still read
    }

    // Store: a thread takes all points of a filter and tile, by way of shared memory.
    const int p_end = shape.p - tile.p, q_end = shape.q - tile.q;
    const bool in_pairs = shape.q % 2 == 0;  // then rows of a tile are whole and aligned
#pragma unroll
    for (int round = 0; round < ROUNDS; round++) {
        exchange(filters, sums, round);
        __syncthreads();  // a thread reads what 8 warps stored
        for (int row = threadIdx.x / 32; row < ROUND_ROWS; row += THREADS / 32) {
            const int k = filter_block * SIDE + round * ROUND_ROWS + row;
            const bool in_output = tile.exists && k < shape.k;
            if (in_output) {
                scalar products[4][4], outputs[2][2];
#pragma unroll
                for (int point = 0; point < POINTS; point++) {
                    products[point / 4][point % 4] =
                        filters[(point * ROUND_ROWS + row) * PITCH + lane];
                }
                both_ways(outputs_of, products, outputs);
                const scalar bias = b ? b[k] : scalar(0);
                scalar* to = y + y_offset(shape, tile.n, k, tile.p, tile.q);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    if (i < p_end && in_pairs) {
                        const Pair pair = {outputs[i][0] + bias, outputs[i][1] + bias};
                        *reinterpret_cast<Pair*>(to + i * shape.q) = pair;
                    } else if (i < p_end) {
                        to[i * shape.q] = outputs[i][0] + bias;
                        if (1 < q_end) to[i * shape.q + 1] = outputs[i][1] + bias;
                    }
                }
            }
        }
        __syncthreads();  // the next round overwrites what others still read
    }
}

// Transform filter k of channel c, found at k * k_stride + c * c_stride, backwards if turned.
extern "C" __global__ void conv2d_winograd_filters(const scalar* __restrict__ w,
                                                   scalar* __restrict__ points,
                                                   const Conv2dShape shape, const int k_stride,
                                                   const int c_stride, const int turned) {
    const int i = grid_index();
    const int c = i / SIDE % shape.c, k = i / (SIDE * shape.c) * SIDE + i % SIDE;
    const bool in_points = i < ceil_div(shape.k, SIDE) * SIDE * shape.c;
    if (in_points) {
        scalar filter[3][3], at[4][4];
#pragma unroll
        for (int tap = 0; tap < 9; tap++) {
            const int from = k * k_stride + c * c_stride + (turned ? 8 - tap : tap);
            filter[tap / 3][tap % 3] = k < shape.k ? w[from] : scalar(0);
        }
        both_ways(filter_points, filter, at);
#pragma unroll
        for (int point = 0; point < POINTS; point++) {
            points[i / SIDE * STEP + point * SIDE + i % SIDE] = at[point / 4][point % 4];
        }
    }
}
