// Tensor cores and asynchronous copies, one use each.
#include "tensor_core.cuh"

// d (16x8) = a (16x8) b (8x8), rounded to TF32; each lane loads what PTX says it holds.
extern "C" __global__ void product_tf32(const float* a, const float* b, float* d) {
    const int group = threadIdx.x / 4, t = threadIdx.x % 4;
    float sums[4] = {0, 0, 0, 0};
    const unsigned left[4] = {to_tf32(a[group * 8 + t]), to_tf32(a[(group + 8) * 8 + t]),
                              to_tf32(a[group * 8 + t + 4]), to_tf32(a[(group + 8) * 8 + t + 4])};
    const unsigned right[2] = {to_tf32(b[t * 8 + group]), to_tf32(b[(t + 4) * 8 + group])};
    mma_tf32(sums, left, right);
    d[group * 8 + 2 * t] = sums[0];
    d[group * 8 + 2 * t + 1] = sums[1];
    d[(group + 8) * 8 + 2 * t] = sums[2];
    d[(group + 8) * 8 + 2 * t + 1] = sums[3];
}

// d (16x8) = a (16x16) b (16x8), rounded to bfloat16.
extern "C" __global__ void product_bf16(const float* a, const float* b, float* d) {
    const int group = threadIdx.x / 4, t = threadIdx.x % 4;
    float sums[4] = {0, 0, 0, 0};
    unsigned left[4], right[2];
    for (int i = 0; i < 4; i++) {
        const float* at = a + (group + i % 2 * 8) * 16 + 2 * t + i / 2 * 8;
        left[i] = pack_bf16(at[0], at[1]);
    }
    for (int i = 0; i < 2; i++) {
        const float* at = b + (2 * t + i * 8) * 8 + group;
        right[i] = pack_bf16(at[0], at[8]);
    }
    mma_bf16(sums, left, right);
    for (int i = 0; i < 4; i++) d[(group + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[i];
}

// Each lane's parts of four tiles of 8 rows of 16 bytes.
extern "C" __global__ void matrices(const unsigned char* x, unsigned* parts, int lanes) {
    __shared__ __align__(16) unsigned char tiles[32 * 16];
    if (threadIdx.x >= lanes) return;
    for (int i = 0; i < 16; i++) tiles[threadIdx.x * 16 + i] = x[threadIdx.x * 16 + i];
    __syncwarp();
    unsigned mine[4];
    load_matrices(mine, tiles + threadIdx.x * 16);
    for (int tile = 0; tile < 4; tile++) parts[threadIdx.x * 4 + tile] = mine[tile];
}

extern "C" __global__ void rounded(const float* x, unsigned* tf32, unsigned* bf16) {
    tf32[threadIdx.x] = to_tf32(x[threadIdx.x]);
    bf16[threadIdx.x] = pack_bf16(x[threadIdx.x], 1.0f);
}

extern "C" __global__ void too_few_lanes(float* d) {
    float sums[4] = {0, 0, 0, 0};
    const unsigned left[4] = {}, right[2] = {};
    if (threadIdx.x < 16) return;
    mma_tf32(sums, left, right);
    d[threadIdx.x] = sums[0];
}

// Three groups of one copy each, the last without a source; what is there before any wait, with one
// group still under way, and in the end.
extern "C" __global__ void copies(const float* x, float* seen) {
    __shared__ float to[3][32];
    const int i = threadIdx.x;
    for (int group = 0; group < 3; group++) {
        to[group][i] = -1.0f;
        copy_async(&to[group][i], x + group * 32 + i, group < 2);
        copy_commit();
    }
    for (int group = 0; group < 3; group++) seen[group * 32 + i] = to[group][i];
    copy_wait<1>();
    for (int group = 0; group < 3; group++) seen[(3 + group) * 32 + i] = to[group][i];
    copy_wait<0>();
    for (int group = 0; group < 3; group++) seen[(6 + group) * 32 + i] = to[group][i];
}

extern "C" __global__ void neighbours(const float4* x, float4* y) {
    __shared__ float4 to[32];
    copy_async(&to[threadIdx.x], x + threadIdx.x, true);
    copy_commit();
    copy_wait<0>();
#ifndef NO_BARRIER
    __syncthreads();
#endif
    y[threadIdx.x] = to[(threadIdx.x + 1) % 64 % 32];
}
