// Barriers and shared memory: what the tests of blocks need.

struct Pair {
    int a;
    float b;
};

__device__ int counter = 5;
__constant__ float table[4] = {1.0f, 2.0f, 4.0f, 8.0f};

extern "C" __global__ void place(int* out) {
    int block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
    int thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
    int threads = blockDim.x * blockDim.y * blockDim.z;
    out[block * threads + thread] = block * 10000 + thread + (warpSize - 32);
}

extern "C" __global__ void rotate(const float* x, float* y) {
    __shared__ float line[256];
    __shared__ float cube[2][4][8];
    __shared__ Pair pair;
    extern __shared__ __align__(16) float dynamic[];
    int i = threadIdx.x;
    line[i] = x[blockIdx.x * blockDim.x + i];
    dynamic[i] = 2.0f * line[i];
    if (i < 64) cube[i / 32][i / 8 % 4][i % 8] = i;
    if (i == 0) pair = {3, 0.5f};
    __syncthreads();
    int next = (i + 1) % blockDim.x;
    float value = line[next] + dynamic[next] + pair.a * pair.b + cube[1][3][7];
    for (int round = 0; round < 3; ++round) {
        __syncthreads();
        line[i] = value;
        __syncthreads();
        value = line[next];
    }
    y[blockIdx.x * blockDim.x + i] = value;
}

extern "C" __global__ void two_dynamic(int* out) {
    extern __shared__ int first[];
    extern __shared__ unsigned second[];
    first[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = second[blockDim.x - 1 - threadIdx.x];
}

extern "C" __global__ void unset(float* out) {
    __shared__ float never[32];
    out[threadIdx.x] = never[threadIdx.x];
    never[threadIdx.x] = 1.0f;
}

extern "C" __global__ void votes(const int* x, int* out) {
    int predicate = x[threadIdx.x] > 3;
    int count = __syncthreads_count(predicate);
    int all = __syncthreads_and(predicate);
    int any = __syncthreads_or(predicate);
    out[threadIdx.x] = count * 100 + (all != 0) * 10 + (any != 0);
}

extern "C" __global__ void race(int* out) {
    __shared__ int box[64];
    box[threadIdx.x] = threadIdx.x;
    // A barrier is missing here.
    out[threadIdx.x] = box[(threadIdx.x + 1) % 64];
}

extern "C" __global__ void order_of_arrival(int* out, int* ticket) {
    out[atomicAdd(ticket, 1)] = threadIdx.x;
    __syncthreads();
    out[atomicAdd(ticket, 1)] = threadIdx.x;
}

extern "C" __global__ void order_of_blocks(int* out, int* ticket) {
    out[atomicAdd(ticket, 1)] = blockIdx.x;
}

extern "C" __global__ void globals(float* out) {
    out[threadIdx.x] = table[threadIdx.x % 4] + counter;
}

extern "C" __global__ void __launch_bounds__(4 * 16, 2) bounded(int* out) {
    out[threadIdx.x] = 1;
}

extern "C" __global__ void large(int* out) {
    __shared__ int room[10000];
    extern __shared__ int more[];
    room[threadIdx.x] = 1;
    __syncthreads();
    out[threadIdx.x] = room[(threadIdx.x + 1) % blockDim.x];
}

extern "C" __global__ void past_the_end() {
    extern __shared__ int first[];
    first[threadIdx.x + 1] = 7;
}

#ifdef NEVER
extern "C" __global__ void not_there() {}
#endif
// extern "C" __global__ void commented_out() {}

#define MAKE(name, value)                       \
    extern "C" __global__ void name(int* out) { \
        out[threadIdx.x] = value;               \
    }
MAKE(by_macro, 42)

namespace inner {
__global__ void spaced(int* out) {
    out[threadIdx.x] = 8;
}
}  // namespace inner

template <typename T, int N>
__global__ void scale(T* x) {
    x[threadIdx.x] *= N;
}
