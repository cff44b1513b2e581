// y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s]; filters 3x3, stride and dilation 1
// x (N,C,H,W), w (K,C,3,3), b (K), y (N,K,P,Q)
// BLOCK_X x BLOCK_Y threads have a tile of TILE_P x TILE_Q outputs of TILE_K filters; the launch
// follows these #defines: its grid is (Q / TILE_Q, P / TILE_P, N * (K / TILE_K)), each rounded up.
// As in tiled, a thread has one output. Limits: any extents and padding.
#include "index.cuh"

#define BLOCK_X 32
#define BLOCK_Y 8
#define TILE_Q 32
#define TILE_P 8
#define TILE_K 1

constexpr int TAPS = 3;
constexpr int HALO_H = TILE_P + TAPS - 1, HALO_W = TILE_Q + TAPS - 1;

extern "C" __global__ void conv3x3(const float* __restrict__ x, const float* __restrict__ w,
                                   const float* __restrict__ b, float* __restrict__ y,
                                   const Conv2dShape shape) {
    __shared__ float halo[HALO_H][HALO_W];
    const int n = blockIdx.z / shape.k, k = blockIdx.z % shape.k;
    const int first_row = blockIdx.y * TILE_P, first_col = blockIdx.x * TILE_Q;
    const int top = input_row(shape, first_row, 0), left = input_col(shape, first_col, 0);
    const int p = first_row + threadIdx.y, q = first_col + threadIdx.x;
    const bool in_output = p < shape.p && q < shape.q;

    float sum = b[k];
    for (int c = 0; c < shape.c; c++) {
        const float* plane = x + x_offset(shape, n, c, 0, 0);
        for (int i = threadIdx.y; i < HALO_H; i += BLOCK_Y) {
            for (int j = threadIdx.x; j < HALO_W; j += BLOCK_X) {
                const bool in_image = inside(top + i, shape.h) && inside(left + j, shape.w);
                halo[i][j] = in_image ? plane[(top + i) * shape.w + left + j] : 0;
            }
        }
        __syncthreads();  // a thread reads what its neighbours loaded

        const float* taps = w + w_offset(shape, k, c, 0, 0);
        for (int r = 0; r < TAPS; r++) {
            for (int s = 0; s < TAPS; s++) {
                sum += halo[threadIdx.y + r][threadIdx.x + s] * taps[r * TAPS + s];
            }
        }
        __syncthreads();  // the next channel overwrites what neighbours still read
    }
    if (in_output) y[y_offset(shape, n, k, p, q)] = sum;
}
