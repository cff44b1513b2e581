// What kernels/warpgroup.cuh promises, a launch each: the tests hold it against NumPy.
#include "warpgroup.cuh"

#ifndef COLUMNS
#define COLUMNS 80
#endif
extern __shared__ uint4 memory[];

// In bfloat16 and at places that leading_bytes and stride_bytes say: core matrices of 8 rows.
static __device__ void put(char* to, const float* from, int rows, int leading, int stride) {
    for (int i = threadIdx.x; i < rows * 2; i += blockDim.x) {
        const int row = i / 2, vector = i % 2;
        unsigned words[4];
        for (int j = 0; j < 4; j++) {
            const float* two = from + row * 16 + vector * 8 + j * 2;
            words[j] = pack_bf16(two[0], two[1]);
        }
        *reinterpret_cast<uint4*>(to + row / 8 * stride + row % 8 * 16 + vector * leading) =
            make_uint4(words[0], words[1], words[2], words[3]);
    }
}
static __device__ void get(float* d, const float (&sums)[COLUMNS / 2]) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    for (int i = 0; i < COLUMNS / 2; i++) {
        const int row = warp * 16 + lane / 4 + i / 2 % 2 * 8;
        d[row * COLUMNS + i / 4 * 8 + lane % 4 * 2 + i % 2] = sums[i];
    }
}

// d (64 x COLUMNS) += a (64x16) b (COLUMNS x 16) transposed, `times` times over; b begins `offset`
// vectors on.
extern "C" __global__ void product(const float* a, const float* b, float* d, const int a_leading,
                                   const int a_stride, const int b_leading, const int b_stride,
                                   const int a_bytes, const int offset, const int times) {
    char* to_a = reinterpret_cast<char*>(memory);
    char* to_b = to_a + a_bytes;
    put(to_a, a, 64, a_leading, a_stride);
    put(to_b + offset * 16, b, COLUMNS, b_leading, b_stride);
    async_proxy_fence();
    __syncthreads();
    float sums[COLUMNS / 2] = {};
    const Descriptor of_a = matrix_descriptor(to_a, a_leading, a_stride);
    const Descriptor of_b = matrix_descriptor(to_b, b_leading, b_stride) + offset;
#ifndef NO_FENCE
    warpgroup_fence();
#endif
    for (int i = 0; i < times; i++) {
        multiply_async(sums, of_a, of_b + SWIZZLE);
        multiply_commit();
    }
    multiply_wait(sums);
    get(d, sums);
}

// What the sums hold: before the wait, with one group under way, and after all. And, where `late`,
// what becomes of a product whose factors are written while it is under way.
extern "C" __global__ void pending(const float* a, const float* b, float* d, const int late) {
    char* to_a = reinterpret_cast<char*>(memory);
    char* to_b = to_a + 64 * 32;
    put(to_a, a, 64, 1024, 128);
    put(to_b, b, COLUMNS, COLUMNS * 16, 128);
    async_proxy_fence();
    __syncthreads();
    float sums[COLUMNS / 2] = {};
    const Descriptor of_a = matrix_descriptor(to_a, 1024, 128);
    const Descriptor of_b = matrix_descriptor(to_b, COLUMNS * 16, 128);
    warpgroup_fence();
    for (int i = 0; i < 2; i++) {
        multiply_async(sums, of_a, of_b);
        multiply_commit();
    }
    get(d, sums);
    multiply_wait<1>();
    get(d + 64 * COLUMNS, sums);
    if (late) put(to_b, a, 64, COLUMNS * 16, 128);
    __syncthreads();
    multiply_wait(sums);
    get(d + 2 * 64 * COLUMNS, sums);
}

// Copied asynchronously, with and without a fence; by fewer than a warpgroup's warps.
extern "C" __global__ void copied(const uint4* x, float* d, const int fenced, const int warps) {
    for (int i = threadIdx.x; i < 2 * (64 + COLUMNS); i += blockDim.x)
        copy_async(memory + i, x + i, true);
    copy_commit();
    copy_wait<0>();
    if (fenced) async_proxy_fence();
    __syncthreads();
    float sums[COLUMNS / 2] = {};
    const Descriptor of_a = matrix_descriptor(memory, 1024, 128);
    warpgroup_fence();
    if (threadIdx.x / 32 < warps) multiply_async(sums, of_a, of_a + 128);
    multiply_commit();
    multiply_wait(sums);
    get(d, sums);
}

extern "C" __global__ void described(const int offset, const int leading, const int stride) {
    matrix_descriptor(reinterpret_cast<char*>(memory) + offset, leading, stride);
}
