// A whole program, as nvcc takes it: y = a x + y, and the host code that launches it.
#include <cuda_runtime.h>
#include <cstdio>
#include <vector>

__global__ void saxpy(int n, float a, const float* x, float* y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) {  // the planted bug: one thread too many
        y[i] = a * x[i] + y[i];
    }
}

int main() {
    const int n = 1000;
    std::vector<float> host(n, 1.0f);
    float *x, *y;
    cudaMalloc(&x, n * sizeof(float));
    cudaMalloc(&y, n * sizeof(float));
    cudaMemcpy(x, host.data(), n * sizeof(float), cudaMemcpyHostToDevice);
    saxpy<<<4, 256>>>(n, 2.0f, x, y);
    printf("%s\n", cudaGetErrorString(cudaDeviceSynchronize()));
    return 0;
}
