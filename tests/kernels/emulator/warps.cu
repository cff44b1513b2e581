// Warp primitives, lane by lane.

#define FULL 0xffffffffu

template <typename T>
__device__ void shuffles(T* out, T value) {
    int i = threadIdx.x, n = blockDim.x;
    out[0 * n + i] = __shfl_sync(FULL, value, 5);
    out[1 * n + i] = __shfl_up_sync(FULL, value, 3);
    out[2 * n + i] = __shfl_down_sync(FULL, value, 3);
    out[3 * n + i] = __shfl_xor_sync(FULL, value, 6);
    out[4 * n + i] = __shfl_sync(FULL, value, 2, 8);
    out[5 * n + i] = __shfl_up_sync(FULL, value, 1, 8);
    out[6 * n + i] = __shfl_down_sync(FULL, value, 1, 8);
    out[7 * n + i] = __shfl_xor_sync(FULL, value, 1, 8);
}

#define SHUFFLES(name, T)                           \
    extern "C" __global__ void name(T* out) {       \
        shuffles<T>(out, (T)(threadIdx.x * 3 - 7)); \
    }
SHUFFLES(shuffle_int, int)
SHUFFLES(shuffle_unsigned, unsigned)
SHUFFLES(shuffle_long, long long)
SHUFFLES(shuffle_float, float)
SHUFFLES(shuffle_double, double)

extern "C" __global__ void votes(unsigned* out) {
    unsigned lane = threadIdx.x % 32, n = blockDim.x, i = threadIdx.x;
    unsigned mask = __activemask();
    out[0 * n + i] = __ballot_sync(mask, lane % 3 == 0);
    out[1 * n + i] = __any_sync(mask, lane == 7);
    out[2 * n + i] = __all_sync(mask, lane < 31);
    out[3 * n + i] = __match_any_sync(mask, lane / 8);
    out[4 * n + i] = mask;
    int same = -1;
    out[5 * n + i] = __match_all_sync(mask, 4, &same);
    out[6 * n + i] = same;
}

extern "C" __global__ void reductions(int* out) {
    int lane = threadIdx.x, n = 32;
    int value = lane * 7 % 32 - 16;
    out[0 * n + lane] = __reduce_add_sync(FULL, value);
    out[1 * n + lane] = __reduce_min_sync(FULL, value);
    out[2 * n + lane] = __reduce_max_sync(FULL, value);
    out[3 * n + lane] = __reduce_and_sync(FULL, 0xF0u | lane);
    out[4 * n + lane] = __reduce_or_sync(FULL, 1u << lane);
    out[5 * n + lane] = __reduce_xor_sync(FULL, (unsigned)lane);
    out[6 * n + lane] = __reduce_max_sync(FULL, (unsigned)value);
}

extern "C" __global__ void sum(const float* x, float* y) {
    __shared__ float of_warp[32];
    float value = x[blockIdx.x * blockDim.x + threadIdx.x];
    for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(FULL, value, step);
    if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x < 32) {
        value = threadIdx.x < blockDim.x / 32 ? of_warp[threadIdx.x] : 0.0f;
        for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(FULL, value, step);
        if (threadIdx.x == 0) y[blockIdx.x] = value;
    }
}

extern "C" __global__ void halves(int* out) {
    int lane = threadIdx.x;
    unsigned mask = lane < 16 ? 0x0000ffffu : 0xffff0000u;
    int value = lane;
    for (int i = 0; i < 4; ++i) value = __shfl_xor_sync(mask, value, 1 << i) + 1;
    out[lane] = __shfl_sync(FULL, value, 31 - lane);
}

extern "C" __global__ void synchronised(int* out) {
    __shared__ int box[64];
    box[threadIdx.x] = threadIdx.x;
    __syncwarp();
    out[threadIdx.x] = box[threadIdx.x ^ 31];
}

extern "C" __global__ void early_return(float* out) {
    if (threadIdx.x >= 20) return;
    out[threadIdx.x] = __shfl_down_sync(FULL, 1.0f, 4);
}

extern "C" __global__ void lane_missing(int* out) {
    if (threadIdx.x == 3) __syncthreads();
    out[threadIdx.x] = __shfl_sync(FULL, 1, 0);
    if (threadIdx.x != 3) __syncthreads();
}

extern "C" __global__ void not_in_mask(int* out) {
    out[threadIdx.x] = __shfl_sync(0x1u, 1, 0);
}
