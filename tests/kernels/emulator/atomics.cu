// Every atomic operation, from many blocks at once.

extern "C" __global__ void add(int* i, unsigned* u, unsigned long long* l, float* f, double* d) {
    atomicAdd(i, 1);
    atomicAdd(u, 2u);
    atomicAdd(l, 3ULL);
    atomicAdd(f, 1.0f);
    atomicAdd(d, 0.5);
}

extern "C" __global__ void others(int* v) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    atomicSub(&v[0], 1);
    atomicMin(&v[1], i);
    atomicMax(&v[2], i);
    atomicAnd(&v[3], ~(1 << i % 8));
    atomicOr(&v[4], 1 << i % 8);
    atomicXor(&v[5], i);
    atomicExch(&v[6], 9);
    atomicCAS(&v[7], 0, 11);
    atomicInc((unsigned*)&v[8], 6u);
    atomicDec((unsigned*)&v[9], 6u);
    __threadfence();
}

extern "C" __global__ void histogram(const int* x, int* bins, int n) {
    __shared__ int local[16];
    if (threadIdx.x < 16) local[threadIdx.x] = 0;
    __syncthreads();
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(&local[x[i]], 1);
    __syncthreads();
    if (threadIdx.x < 16) atomicAdd(&bins[threadIdx.x], local[threadIdx.x]);
}
