// What the register-blocked kernels have in common: 16-byte vectors, and the copy of a block's part
// of the images to shared memory.
#pragma once
#include "index.cuh"

// 16 bytes, the most that one load moves.
constexpr int LANES = 16 / sizeof(scalar);
struct __align__(16) Vector {
    scalar at[LANES];
};

struct __align__(2 * sizeof(scalar)) Pair {
    scalar first, second;
};

// This thread's number in its block.
__device__ __forceinline__ int block_thread() {
    return (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
}
__device__ __forceinline__ int block_threads() {
    return blockDim.x * blockDim.y * blockDim.z;
}

// A height x width piece of every plane of some images, in shared memory as [channel][image][row]:
// rows are `pitch` apart, images `plane`, which keeps the lanes that read them on different banks.
struct Window {
    int images, height, width, pitch, plane;
};

__device__ __forceinline__ void clear_window(scalar* __restrict__ shared, int elements) {
    for (int i = block_thread(); i < elements; i += block_threads()) shared[i] = 0;
}

// Copy what lies inside the image; around it the window keeps its zeros, in every channel the same
// places. Threads run along the valid columns alone: whole rows are read as one run of memory.
__device__ __forceinline__ void load_window(scalar* __restrict__ shared,
                                            const scalar* __restrict__ x, const Conv2dShape& shape,
                                            const Window& window, int n, int c, int channels,
                                            int top, int left) {
    const int row_begin = max(top, 0), rows = min(top + window.height, shape.h) - row_begin;
    const int col_begin = max(left, 0), cols = min(left + window.width, shape.w) - col_begin;
    const int images = min(window.images, shape.n - n);
    const bool meets_image = rows > 0 && cols > 0;
    const int elements = meets_image ? images * rows * cols : 0;
    for (int i = block_thread(); i < elements; i += block_threads()) {
        const Index4 at = unflatten(i, images, rows, cols);
        const int row = row_begin + at.c, col = col_begin + at.d;
        const scalar* from = x + x_offset(shape, n + at.b, c, row, col);
        scalar* to = shared + at.b * window.plane + (row - top) * window.pitch + col - left;
        // The indices are worked out once for all channels.
#pragma unroll 4
        for (int channel = 0; channel < channels; channel++) {
            to[channel * window.images * window.plane] = from[channel * shape.h * shape.w];
        }
    }
}
