// dw[l][i][j] = sum_n h[l][n][i] d[l+1][n][j];  db[l][j] = sum_n d[l+1][n][j]
// x (N,inputs), outputs and deltas (N,PITCH) of linear_stack.cu, partial (slices,length) laid out
// as the parameters are A block has ROWS inputs and THREADS outputs of a layer, for the images of a
// slice; a thread a column, its sums in registers. Against a product and a reduction a layer: one
// launch for all layers. Slices are added up by whoever takes the gradient, in one order, without
// atomics.
#include "training/linear_stack.cuh"

constexpr int ROWS = 16, IMAGES = 32;  // in shared memory at a time
static_assert(THREADS % ROWS == 0, "a thread loads one input's elements");

template <int LAYER>
__device__ __forceinline__ void add_products(const scalar* __restrict__ x,
                                             const scalar* __restrict__ outputs,
                                             const scalar* __restrict__ deltas,
                                             scalar* __restrict__ partial, int tile, int begin,
                                             int end) {
    constexpr int INPUTS = size_of(LAYER), OUTPUTS = size_of(LAYER + 1);
    constexpr int TILES_I = (INPUTS + ROWS - 1) / ROWS;
    constexpr int TILES = TILES_I * ((OUTPUTS + THREADS - 1) / THREADS);
    if (tile >= TILES) {
        if constexpr (LAYER + 1 < LAYERS) {
            add_products<LAYER + 1>(x, outputs, deltas, partial, tile - TILES, begin, end);
        }
        return;
    }
    alignas(16) __shared__ scalar inputs[IMAGES][ROWS];
    const scalar* from = LAYER == 0 ? x : outputs + outputs_at(LAYER - (LAYER > 0));
    const int pitch = LAYER == 0 ? INPUTS : PITCH;
    const int i0 = tile % TILES_I * ROWS, j = tile / TILES_I * THREADS + threadIdx.x;
    const bool is_column = j < OUTPUTS;
    deltas += outputs_at(LAYER) + (is_column ? j : 0);

    scalar sums[ROWS] = {}, bias = 0;
    for (int n0 = begin; n0 < end; n0 += IMAGES) {
        const int images = min(end - n0, IMAGES), row = threadIdx.x % ROWS;
        for (int n = threadIdx.x / ROWS; n < IMAGES; n += THREADS / ROWS) {
            const bool is_there = n < images && i0 + row < INPUTS;
            inputs[n][row] = is_there ? from[(n0 + n) * pitch + i0 + row] : scalar(0);
        }
        __syncthreads();  // a thread needs what others loaded
#pragma unroll 8
        for (int n = 0; n < IMAGES; n++) {
            const scalar delta = n < images ? deltas[(n0 + n) * PITCH] : scalar(0);
            bias += delta;
#pragma unroll
            for (int i = 0; i < ROWS; i++) sums[i] += inputs[n][i] * delta;
        }
        __syncthreads();  // the next images overwrite what others still read
    }

    if (!is_column) return;
    if (i0 == 0) partial[biases_at(LAYER) + j] = bias;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
        if (i0 + i < INPUTS) partial[weights_at(LAYER) + (i0 + i) * OUTPUTS + j] = sums[i];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    linear_stack_gradient(const scalar* __restrict__ x, const scalar* __restrict__ outputs,
                          const scalar* __restrict__ deltas, scalar* __restrict__ partial,
                          const int rows, const int slices, const int length) {
    const int slice = blockIdx.y;
    const int begin = (int)((long long)rows * slice / slices);
    const int end = (int)((long long)rows * (slice + 1) / slices);
    add_products<0>(x, outputs, deltas, partial + slice * length, blockIdx.x, begin, end);
}
