// y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s]; filters 3x3, stride and dilation 1
// x (N,C,H,W), w (K,C,3,3), b (K), y (N,K,P,Q)
// BLOCK_X x BLOCK_Y threads have a tile of TILE_P x TILE_Q outputs of TILE_K filters; the launch
// follows these #defines: its grid is (Q / TILE_Q, P / TILE_P, N * (K / TILE_K)), each rounded up.
// A thread has ROWS outputs of TILE_K filters in registers. Limits: any extents and padding.
#include "index.cuh"

#define BLOCK_X 32
#define BLOCK_Y 4
#define TILE_Q 32
#define TILE_P 8
#define TILE_K 4

constexpr int TAPS = 3;
constexpr int HALO_H = TILE_P + TAPS - 1, HALO_W = TILE_Q + TAPS - 1;
constexpr int ROWS = TILE_P / BLOCK_Y;  // of a thread, one below the other

extern "C" __global__ void conv3x3(const float* __restrict__ x, const float* __restrict__ w,
                                   const float* __restrict__ b, float* __restrict__ y,
                                   const Conv2dShape shape) {
    __shared__ float halo[HALO_H][HALO_W];
    const int groups = ceil_div(shape.k, TILE_K);
    const int n = blockIdx.z / groups, first_k = blockIdx.z % groups * TILE_K;
    const int first_row = blockIdx.y * TILE_P, first_col = blockIdx.x * TILE_Q;
    const int top = input_row(shape, first_row, 0), left = input_col(shape, first_col, 0);
    const int row = threadIdx.y * ROWS, q = first_col + threadIdx.x;

    float sums[TILE_K][ROWS] = {};
    for (int c = 0; c < shape.c; c++) {
        const float* plane = x + x_offset(shape, n, c, 0, 0);
        for (int i = threadIdx.y; i < HALO_H; i += BLOCK_Y) {
            for (int j = threadIdx.x; j < HALO_W; j += BLOCK_X) {
                const bool in_image = inside(top + i, shape.h) && inside(left + j, shape.w);
                halo[i][j] = in_image ? plane[(top + i) * shape.w + left + j] : 0;
            }
        }
        __syncthreads();  // a thread reads what its neighbours loaded

        // Each value that is read is used for TILE_K planes, each tap for ROWS outputs.
#pragma unroll  // so that sums[][] and window[] are registers
        for (int s = 0; s < TAPS; s++) {
            float window[ROWS + TAPS - 1];
#pragma unroll
            for (int i = 0; i < ROWS + TAPS - 1; i++) window[i] = halo[row + i][threadIdx.x + s];
#pragma unroll
            for (int k = 0; k < TILE_K; k++) {
                const int filter = min(first_k + k, shape.k - 1);  // past the last: not stored
#pragma unroll
                for (int r = 0; r < TAPS; r++) {
                    const float tap = w[w_offset(shape, filter, c, r, s)];
#pragma unroll
                    for (int i = 0; i < ROWS; i++) sums[k][i] += window[i + r] * tap;
                }
            }
        }
        __syncthreads();  // the next channel overwrites what neighbours still read
    }
#pragma unroll
    for (int k = 0; k < TILE_K; k++) {
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            const int filter = first_k + k, p = first_row + row + i;
            const bool in_output = filter < shape.k && p < shape.p && q < shape.q;
            if (in_output) y[y_offset(shape, n, filter, p, q)] = b[filter] + sums[k][i];
        }
    }
}
