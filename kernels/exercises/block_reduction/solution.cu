// db[k] += sum_{n,i} dy[n,k,i]
// dy (images, filters, plane), db (filters), which holds 0 before
// A block of 256 threads a plane: block (k, n) has filter k of image n.
// The block adds up in shared memory, by halves; its first thread alone adds to global memory.
// Limits: none on the extents.
constexpr int THREADS = 256;  // the launch's block, a power of 2: it is halved

extern "C" __global__ void bias_gradient(const float* __restrict__ dy, float* __restrict__ db,
                                         int filters, int plane) {
    __shared__ float shares[THREADS];
    const int k = blockIdx.x, n = blockIdx.y;
    const float* gradient = dy + (n * filters + k) * plane;
    float sum = 0;
    for (int i = threadIdx.x; i < plane; i += THREADS) sum += gradient[i];
    shares[threadIdx.x] = sum;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();  // the shares of the round before are there
        if (threadIdx.x < half) shares[threadIdx.x] += shares[threadIdx.x + half];
    }
    if (threadIdx.x == 0) atomicAdd(&db[k], shares[0]);
}
