// dw[l][i][j] = sum_n h[l][n][i] d[l+1][n][j];  db[l][j] = sum_n d[l+1][n][j]
// x (N,inputs), outputs and deltas (N,PITCH) of linear_stack.cu, partial (slices,length)
// A block has 32 inputs and 32 vectors of outputs of a layer, for the images of a slice; a warp 8
// of the inputs, a lane one vector, their products' sums in registers. Against a product and a
// reduction a layer: one launch for all layers. Slices are laid out as the parameters, and added up
// by whoever takes the gradient, in one order, without atomics.
#include "training/linear_stack.cuh"

constexpr int WARPS = 4, ROWS = 8, INPUT_ROWS = WARPS * ROWS;  // of a warp, of the block
constexpr int IMAGES = 32;                                     // in shared memory at a time
static_assert(THREADS == 32 * WARPS && INPUT_ROWS == 32, "a lane loads one input");

template <int LAYER>
__device__ __forceinline__ void add_products(const scalar* __restrict__ x,
                                             const scalar* __restrict__ outputs,
                                             const scalar* __restrict__ deltas,
                                             scalar* __restrict__ partial,
                                             scalar (*inputs)[INPUT_ROWS], int tile, int begin,
                                             int end) {
    constexpr int INPUTS = size_of(LAYER), OUTPUTS = size_of(LAYER + 1), WIDTH = width_of(LAYER);
    constexpr int TILES_I = (INPUTS + INPUT_ROWS - 1) / INPUT_ROWS;
    constexpr int TILES = TILES_I * ((OUTPUTS / WIDTH + 31) / 32);
    if (tile >= TILES) {
        if constexpr (LAYER + 1 < LAYERS) {
            add_products<LAYER + 1>(x, outputs, deltas, partial, inputs, tile - TILES, begin, end);
        }
        return;
    }
    const scalar* from = LAYER == 0 ? x : outputs + outputs_at(LAYER - (LAYER > 0));
    const int pitch = LAYER == 0 ? INPUTS : PITCH;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int i0 = tile % TILES_I * INPUT_ROWS, j = (tile / TILES_I * 32 + lane) * WIDTH;
    const bool is_column = j < OUTPUTS;
    deltas += outputs_at(LAYER) + (is_column ? j : 0);

    scalar sums[ROWS][WIDTH] = {}, bias[WIDTH] = {};
    for (int n0 = begin; n0 < end; n0 += IMAGES) {
        const int images = min(end - n0, IMAGES);
        for (int n = warp; n < images; n += WARPS) {
            inputs[n][lane] = i0 + lane < INPUTS ? from[(n0 + n) * pitch + i0 + lane] : scalar(0);
        }
        __syncthreads();  // a thread needs what others loaded
#pragma unroll 8
        for (int n = 0; n < images; n++) {
            const Vector<WIDTH> delta =
                *reinterpret_cast<const Vector<WIDTH>*>(deltas + (n0 + n) * PITCH);
#pragma unroll
            for (int c = 0; c < WIDTH; c++) bias[c] += delta.of[c];
#pragma unroll
            for (int i = 0; i < ROWS; i++) {
                const scalar input = inputs[n][warp * ROWS + i];
#pragma unroll
                for (int c = 0; c < WIDTH; c++) sums[i][c] += input * delta.of[c];
            }
        }
        __syncthreads();  // the next images overwrite what others still read
    }

    if (!is_column) return;
#pragma unroll
    for (int c = 0; c < WIDTH; c++) {
        if (i0 == 0 && warp == 0) partial[biases_at(LAYER) + j + c] = bias[c];
    }
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        const int row = i0 + warp * ROWS + i;
#pragma unroll
        for (int c = 0; c < WIDTH; c++) {
            if (row < INPUTS) partial[weights_at(LAYER) + row * OUTPUTS + j + c] = sums[i][c];
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_stack_gradient(const scalar* __restrict__ x, const scalar* __restrict__ outputs,
                          const scalar* __restrict__ deltas, scalar* __restrict__ partial,
                          const int rows, const int slices, const int length) {
    __shared__ __align__(16) scalar inputs[IMAGES][INPUT_ROWS];
    const int slice = blockIdx.y;
    const int begin = (int)((long long)rows * slice / slices);
    const int end = (int)((long long)rows * (slice + 1) / slices);
    add_products<0>(x, outputs, deltas, partial + slice * length, inputs, blockIdx.x, begin, end);
}
