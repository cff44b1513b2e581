// db[k] = sum_{n,p,q} dy[n,k,p,q]
// dy (N,K,P,Q), db (K)
// One block a filter; thread t takes every THREADS-th element of the filter's N*P*Q.
// Two-level reduction: 32 lanes of a warp by shuffles (registers only), then the warps' sums
// through shared memory. One order of sums, no atomics: the same bits every time.
#include "index.cuh"

static_assert(THREADS % 32 == 0, "whole warps: every lane takes part in the shuffles");

__device__ __forceinline__ scalar warp_sum(scalar value) {
    for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffff, value, step);
    return value;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    conv2d_bias_backward(const scalar* __restrict__ dy, scalar* __restrict__ db,
                         const Conv2dShape shape) {
    __shared__ scalar warp_sums[THREADS / 32];
    const int k = blockIdx.x;
    const int plane = shape.p * shape.q;

    scalar sum = 0;
    for (int n = 0; n < shape.n; n++) {
        const scalar* values = dy + y_offset(shape, n, k, 0, 0);
        for (int i = threadIdx.x; i < plane; i += THREADS) sum += values[i];
    }

    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) warp_sums[threadIdx.x / 32] = sum;
    __syncthreads();  // thread 0 reads every warp's sum
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < THREADS / 32; warp++) sum += warp_sums[warp];
        db[k] = sum;
    }
}
