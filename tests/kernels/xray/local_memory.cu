// What is in local memory, and what is not: counts worked out by hand in test_local_memory.py.
#define KERNEL extern "C" __global__ void

// Every lane at the same index, which the compiler does not know.
KERNEL same_index(const int* at, float* y, int n) {
    float kept[32];
    for (int j = 0; j < n; j++) kept[at[j]] = j;
    float sum = 0;
    for (int j = 0; j < n; j++) sum += kept[at[n - 1 - j]];
    y[blockIdx.x * 32 + threadIdx.x] = sum;
}

// Each lane at an index of its own.
KERNEL other_indices(const int* at, float* y, int n) {
    float kept[32];
    for (int j = 0; j < n; j++) kept[at[j]] = j;
    y[threadIdx.x] = kept[at[threadIdx.x]];
}

// 16 bytes a lane, and half of the warp only.
KERNEL wide(const int* at, float* y, int n) {
    float4 kept[32];
    if (threadIdx.x < 16) {
        for (int j = 0; j < n; j++) kept[at[j]] = make_float4(j, 0, 0, at[j]);
        y[threadIdx.x] = kept[at[0]].w;
    }
}

// All indices are constants once the loops are unrolled.
KERNEL unrolled(const float* x, float* y) {
    float kept[8];
#pragma unroll
    for (int j = 0; j < 8; j++) kept[j] = x[j * 32 + threadIdx.x];
    float sum = 0;
#pragma unroll
    for (int j = 0; j < 8; j++) sum += kept[j] * kept[7 - j];
    y[threadIdx.x] = sum;
}

// 64 values, for which two blocks of 1024 threads leave 32 registers.
extern "C" __global__ void __launch_bounds__(1024, 2) spills(const float* x, float* y) {
    float kept[64];
#pragma unroll
    for (int j = 0; j < 64; j++) kept[j] = x[j * 32 + threadIdx.x];
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 64; j++) y[j * 32 + threadIdx.x] = kept[j] * kept[63 - j];
}
