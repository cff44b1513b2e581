// Kernels that measure the GPU rather than compute: empty, and a read of a whole array.
// shapes: values (4 * vectors), sums (blocks)
// threads: any; read_all strides its grid over the vectors
// idea: an empty launch is what every time contains
// limits: none
#include "shape.cuh"

extern "C" __global__ void empty() {}

extern "C" __global__ void read_all(const float4* __restrict__ values, float* __restrict__ sums,
                                    long long vectors) {
    float sum = 0;
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < vectors; i += step) {
        const float4 four = values[i];
        sum += four.x + four.y + four.z + four.w;
    }
    // Never true for the finite values it is given: the loads are kept, nothing is written.
    if (sum != sum) sums[blockIdx.x] = sum;
}
