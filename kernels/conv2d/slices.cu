// dw = sum over slices of partial[slice]
// partial (slices,K,C,R,S), dw (K,C,R,S)
// A block of 32 x THREADS_Y sums 32 elements; a thread every THREADS_Y-th slice of one.
// Several slices are on their way at once where a thread an element would wait for one after the
// other. One order of sums, no atomics: the same bits every time.
#include "index.cuh"

extern "C" __global__ void __launch_bounds__(32 * THREADS_Y)
    conv2d_sum_slices(const scalar* __restrict__ partial, scalar* __restrict__ dw,
                      const Conv2dShape shape, const int slices) {
    __shared__ scalar sums[THREADS_Y][32];
    const int i = blockIdx.x * 32 + threadIdx.x;
    const int filters = shape.k * shape.c * shape.r * shape.s;
    const bool in_filters = i < filters;

    scalar sum = 0;
#pragma unroll 4
    for (int slice = threadIdx.y; slice < (in_filters ? slices : 0); slice += THREADS_Y) {
        sum += partial[slice * filters + i];
    }
    sums[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();  // the first row of threads adds up the others
    if (threadIdx.y == 0 && in_filters) {
#pragma unroll
        for (int other = 1; other < THREADS_Y; other++) sum += sums[other][threadIdx.x];
        dw[i] = sum;
    }
}
