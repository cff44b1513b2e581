// y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s]; its gradients to x and w
// x (N,C,H,W), w (K,C,R,S), b (K) or null, y (N,K,P,Q); gradients shaped like what they belong to
// A block owns a TILE_P x TILE_Q tile of one output plane; thread (x, y) owns one element of it.
// Against naive: what neighbouring outputs share is read from global memory once, into shared
// memory: the tile's input with its halo. Limits: any shape; `taps_r` x `taps_s` taps of the filter
// at a time, as many as the halo has room for (tiled.py decides; nearly always the whole filter).
#include "index.cuh"

static_assert(TILE_P * TILE_Q <= 1024, "one thread an output: CUDA's limit of threads a block");

// A block's place: which tile of which plane of which image.
struct Tile {
    int image, plane, first_row, first_col;
};
__device__ __forceinline__ Tile tile_of(int block, int planes, int rows, int cols) {
    const Index4 at = unflatten(block, planes, ceil_div(rows, TILE_P), ceil_div(cols, TILE_Q));
    return Tile{at.a, at.b, at.c * TILE_P, at.d * TILE_Q};
}

// Copy a height x width window of a plane to shared memory; outside the plane it is zero.
__device__ __forceinline__ void load_window(scalar* __restrict__ window,
                                            const scalar* __restrict__ plane, int top, int left,
                                            int height, int width, int rows, int cols) {
    for (int i = threadIdx.y; i < height; i += TILE_P) {
        for (int j = threadIdx.x; j < width; j += TILE_Q) {
            const bool in_plane = inside(top + i, rows) && inside(left + j, cols);
            window[i * width + j] = in_plane ? plane[(top + i) * cols + left + j] : scalar(0);
        }
    }
}

// The 2: without a least number of resident blocks ptxas aims at more of them, and spills for it.
extern "C" __global__ void __launch_bounds__(TILE_P* TILE_Q, 2)
    conv2d_tiled_forward(const scalar* __restrict__ x, const scalar* __restrict__ w,
                         const scalar* __restrict__ b, scalar* __restrict__ y,
                         const Conv2dShape shape, const int taps_r, const int taps_s) {
    extern __shared__ scalar shared[];
    const int halo_h = (TILE_P - 1) * shape.stride_h + (taps_r - 1) * shape.dilation_h + 1;
    const int halo_w = (TILE_Q - 1) * shape.stride_w + (taps_s - 1) * shape.dilation_w + 1;
    const Tile tile = tile_of(blockIdx.x, shape.k, shape.p, shape.q);
    const int k = tile.plane;
    const int p = tile.first_row + threadIdx.y, q = tile.first_col + threadIdx.x;
    const bool in_output = p < shape.p && q < shape.q;

    scalar sum = b ? b[k] : scalar(0);
    for (int c = 0; c < shape.c; c++) {
        const scalar* plane = x + x_offset(shape, tile.image, c, 0, 0);
        for (int r0 = 0; r0 < shape.r; r0 += taps_r) {
            for (int s0 = 0; s0 < shape.s; s0 += taps_s) {
                load_window(shared, plane, input_row(shape, tile.first_row, r0),
                            input_col(shape, tile.first_col, s0), halo_h, halo_w, shape.h, shape.w);
                __syncthreads();  // a thread reads what its neighbours loaded

                // Beyond the plane's edge there is nothing to sum, but the next loads need all
                // threads.
                const int r_end = in_output ? min(taps_r, shape.r - r0) : 0;
                const int s_end = min(taps_s, shape.s - s0);
                for (int r = 0; r < r_end; r++) {
                    const int i = threadIdx.y * shape.stride_h + r * shape.dilation_h;
                    const scalar* taps = w + w_offset(shape, k, c, r0 + r, s0);
                    for (int s = 0; s < s_end; s++) {
                        const int j = threadIdx.x * shape.stride_w + s * shape.dilation_w;
                        sum += shared[i * halo_w + j] * taps[s];
                    }
                }
                __syncthreads();  // the next window overwrites what neighbours still read
            }
        }
    }
    if (in_output) y[y_offset(shape, tile.image, k, p, q)] = sum;
}

// The tile is of dx; its halo is the part of dy whose filters reach into it. Output row p reads
// input row h through tap r where p * stride == h + pad - r * dilation.
extern "C" __global__ void __launch_bounds__(TILE_P* TILE_Q, 2)
    conv2d_tiled_backward_data(const scalar* __restrict__ dy, const scalar* __restrict__ w,
                               scalar* __restrict__ dx, const Conv2dShape shape, const int taps_r,
                               const int taps_s) {
    extern __shared__ scalar shared[];
    const int halo_h = (TILE_P - 1 + (taps_r - 1) * shape.dilation_h) / shape.stride_h + 1;
    const int halo_w = (TILE_Q - 1 + (taps_s - 1) * shape.dilation_w) / shape.stride_w + 1;
    const Tile tile = tile_of(blockIdx.x, shape.c, shape.h, shape.w);
    const int c = tile.plane;
    const int row = tile.first_row + threadIdx.y, col = tile.first_col + threadIdx.x;
    const bool in_input = row < shape.h && col < shape.w;

    scalar sum = 0;
    for (int r0 = 0; r0 < shape.r; r0 += taps_r) {
        for (int s0 = 0; s0 < shape.s; s0 += taps_s) {
            const int reach_h = tile.first_row + shape.pad_top - r0 * shape.dilation_h;
            const int reach_w = tile.first_col + shape.pad_left - s0 * shape.dilation_w;
            const int top = ceil_div(reach_h - (taps_r - 1) * shape.dilation_h, shape.stride_h);
            const int left = ceil_div(reach_w - (taps_s - 1) * shape.dilation_w, shape.stride_w);
            const int r_end = in_input ? min(taps_r, shape.r - r0) : 0;
            const int s_end = min(taps_s, shape.s - s0);
            const Hits in_r =
                find_hits(reach_h + (int)threadIdx.y, shape.stride_h, shape.dilation_h, r_end, top);
            const Hits in_s = find_hits(reach_w + (int)threadIdx.x, shape.stride_w,
                                        shape.dilation_w, s_end, left);

            for (int k = 0; k < shape.k; k++) {
                const scalar* plane = dy + y_offset(shape, tile.image, k, 0, 0);
                load_window(shared, plane, top, left, halo_h, halo_w, shape.p, shape.q);
                __syncthreads();  // a thread reads what its neighbours loaded

                const scalar* taps = w + w_offset(shape, k, c, r0, s0);
                for (int r = in_r.first, i = in_r.at; r < r_end; r += in_r.step, i -= in_r.move) {
                    for (int s = in_s.first, j = in_s.at; s < s_end;
                         s += in_s.step, j -= in_s.move) {
                        sum += shared[i * halo_w + j] * taps[r * shape.s + s];
                    }
                }
                __syncthreads();  // the next window overwrites what neighbours still read
            }
        }
    }
    if (in_input) dx[x_offset(shape, tile.image, c, row, col)] = sum;
}
