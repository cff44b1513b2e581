// What people write, and write rightly: test_healthy.py wants no finding on any of it.
#define KERNEL extern "C" __global__ void
#define AT (blockIdx.x * blockDim.x + threadIdx.x)

KERNEL sums_by_shuffles(const float* x, float* total, int n) {
    __shared__ float warps[32];
    float sum = 0;
    for (int i = AT; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    for (int delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(0xffffffff, sum, delta);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = threadIdx.x < blockDim.x / 32 ? warps[threadIdx.x] : 0.0f;
        for (int delta = 16; delta > 0; delta /= 2) sum += __shfl_xor_sync(0xffffffff, sum, delta);
        if (threadIdx.x == 0) atomicAdd(total, sum);
    }
}
KERNEL tree_of_sums(const float* x, float* total, int n) {
    extern __shared__ float sums[];
    const int t = threadIdx.x;
    sums[t] = AT < n ? x[AT] : 0.0f;
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) sums[t] += sums[t + half];
        __syncthreads();
    }
    if (t == 0) atomicAdd(total, sums[0]);
}
KERNEL last_steps_by_syncwarp(const float* x, float* total, int n) {
    __shared__ volatile float sums[64];
    const int t = threadIdx.x;
    sums[t] = AT < n ? x[AT] : 0.0f;
    __syncthreads();
    if (t < 32) {
        for (int half = 32; half > 0; half /= 2) {
            float other = sums[t + half];
            __syncwarp();
            sums[t] = sums[t] + other;
            __syncwarp();
        }
        if (t == 0) atomicAdd(total, sums[0]);
    }
}
KERNEL histogram(const float* x, int* bins, int n) {
    __shared__ int local[16];
    if (threadIdx.x < 16) local[threadIdx.x] = 0;
    __syncthreads();
    for (int i = AT; i < n; i += gridDim.x * blockDim.x) {
        atomicAdd(&local[static_cast<int>(x[i]) % 16], 1);
    }
    __syncthreads();
    if (threadIdx.x < 16) atomicAdd(&bins[threadIdx.x], local[threadIdx.x]);
}
KERNEL scan(const float* x, float* y, int n) {
    __shared__ float sums[2][64];
    const int t = threadIdx.x;
    int now = 0;
    sums[0][t] = t < n ? x[t] : 0.0f;
    __syncthreads();
    for (int offset = 1; offset < 64; offset *= 2) {
        sums[1 - now][t] = sums[now][t] + (t >= offset ? sums[now][t - offset] : 0.0f);
        now = 1 - now;
        __syncthreads();
    }
    if (t < n) y[t] = sums[now][t];
}
KERNEL product(const float* a, const float* b, float* c, int n) {
    __shared__ float a_tile[16][16], b_tile[16][16 + 1];
    const int tx = threadIdx.x, ty = threadIdx.y;
    const int row = blockIdx.y * 16 + ty, column = blockIdx.x * 16 + tx;
    float sum = 0;
    for (int k = 0; k < n; k += 16) {
        a_tile[ty][tx] = row < n && k + tx < n ? a[row * n + k + tx] : 0.0f;
        b_tile[ty][tx] = k + ty < n && column < n ? b[(k + ty) * n + column] : 0.0f;
        __syncthreads();
        for (int i = 0; i < 16; i++) sum += a_tile[ty][i] * b_tile[i][tx];
        __syncthreads();
    }
    if (row < n && column < n) c[row * n + column] = sum;
}
KERNEL copy_by_fours(const float* x, float* y, int n) {
    const int fours = n / 4;
    for (int i = AT; i < fours; i += gridDim.x * blockDim.x) {
        reinterpret_cast<float4*>(y)[i] = reinterpret_cast<const float4*>(x)[i];
    }
    if (AT < n % 4) y[4 * fours + AT] = x[4 * fours + AT];
}
struct Pair {
    float value;
    int index;
};
KERNEL largest(const float* x, float* value, int* index, int n) {
    __shared__ Pair best[64];
    const int t = threadIdx.x;
    Pair mine = {-1.0f, -1};
    for (int i = t; i < n; i += 64) {
        if (x[i] > mine.value) mine = Pair{x[i], i};
    }
    best[t] = mine;
    __syncthreads();
    if (t == 0) {
        for (int i = 1; i < 64; i++) {
            if (best[i].value > mine.value) mine = best[i];
        }
        *value = mine.value;
        *index = mine.index;
    }
}
KERNEL bytes(const unsigned char* x, unsigned char* y, int n) {
    __shared__ unsigned char tile[66];
    const int t = threadIdx.x, i = AT;
    tile[t + 1] = i < n ? x[i] : 0;
    if (t == 0) tile[0] = i > 0 ? x[i - 1] : 0;
    if (t == 63) tile[65] = i + 1 < n ? x[i + 1] : 0;
    __syncthreads();
    if (i < n) y[i] = (tile[t] + tile[t + 1] + tile[t + 2]) / 3;
}
KERNEL local_array(const float* x, float* y, int n) {
    float kept[8];
    for (int j = 0; j < 8; j++) kept[j] = x[(AT + j) % n];
    float* from = kept;
    float sum = 0;
    for (int j = 0; j < 8; j++) sum += from[(j + static_cast<int>(AT)) % 8];
    if (AT < n) y[AT] = sum;
}

// Read by all lanes, twice, and written by one when all have read it.
KERNEL rescaled(const float* x, float* y, int n) {
    __shared__ float scales[2];
    const int warp = threadIdx.x / 32, i = AT;
    if (threadIdx.x % 32 == 0) scales[warp] = 2;
    __syncwarp();
    float sum = i < n ? x[i] * scales[warp] : 0;
    __syncwarp();
    sum += scales[warp];
    __syncwarp();
    if (threadIdx.x % 32 == 3) scales[warp] = 3;
    __syncwarp();
    if (i < n) y[i] = sum + scales[warp];
}
