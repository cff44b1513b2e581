// db[k] += sum_{n,i} dy[n,k,i]
// dy (images, filters, plane), db (filters), which holds 0 before
// A block of 256 threads a plane: block (k, n) has filter k of image n.
// The gradient to a convolution's bias; blocks of several images add to the same db[k].
// Limits: none on the extents.
extern "C" __global__ void bias_gradient(const float* __restrict__ dy, float* __restrict__ db,
                                         int filters, int plane) {
    const int k = blockIdx.x, n = blockIdx.y;
    const float* gradient = dy + (n * filters + k) * plane;
    for (int i = threadIdx.x; i < plane; i += blockDim.x) atomicAdd(&db[k], gradient[i]);
}
