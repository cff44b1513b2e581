// Kernels whose counts are derived by hand in test_counts.py. Lines are named by their marks.
#define KERNEL extern "C" __global__ void
#define AT (blockIdx.x * blockDim.x + threadIdx.x)

KERNEL strided(const float* x, float* y, int stride, int first) {
    y[AT] = x[first + static_cast<int>(AT) * stride];  // MARK load
}
KERNEL broadcast(const float* x, float* y) {
    y[AT] = x[blockIdx.x];  // MARK load
}
KERNEL vectors(const float4* x, float4* y) {
    y[AT] = x[AT];  // MARK load
}
KERNEL made_vectors(const float* x, float4* y) {
    float4 v = __ldg(reinterpret_cast<const float4*>(x) + AT);  // MARK load
    v.w = 0;
    y[AT] = make_float4(v.x, v.y, v.z, v.w);  // MARK store
}
KERNEL pairs_and_bytes(const double* x, unsigned char* y) {
    y[AT] = static_cast<unsigned char>(x[AT]);  // MARK load
}
KERNEL triples(const float3* x, float* y) {
    float3 v = x[AT];  // MARK load
    y[AT] = v.x + v.y + v.z;
}

// A tile of 32 x 32 through shared memory, stored by rows and read by columns.
template <int WIDTH>
__device__ void transpose(const float* x, float* y, float (*tile)[WIDTH]) {
    tile[threadIdx.y][threadIdx.x] = x[threadIdx.y * 32 + threadIdx.x];  // MARK by rows
    __syncthreads();
    y[threadIdx.y * 32 + threadIdx.x] = tile[threadIdx.x][threadIdx.y];  // MARK by columns
}
KERNEL conflicting_transpose(const float* x, float* y) {
    __shared__ float tile[32][32];
    transpose<32>(x, y, tile);
}
KERNEL padded_transpose(const float* x, float* y) {
    __shared__ float tile[32][33];
    transpose<33>(x, y, tile);
}
KERNEL shared_strides(float* y, int stride) {
    __shared__ float tile[1024];
    for (int i = threadIdx.x; i < 1024; i += 32) tile[i] = i;  // MARK fill
    __syncthreads();
    y[threadIdx.x] = tile[threadIdx.x * stride % 1024];  // MARK read
}
KERNEL shared_vectors(float* y) {
    __shared__ float4 fours[32];
    __shared__ float2 twos[32];
    fours[threadIdx.x] = make_float4(1, 2, 3, 4);  // MARK fours
    twos[threadIdx.x] = make_float2(1, 2);         // MARK twos
    __syncwarp();
    y[threadIdx.x] = fours[0].x + twos[threadIdx.x].y;  // MARK read
}

KERNEL paired_vectors(const int* at, int lanes, float* y) {
    __shared__ float4 fours[128];
    for (int i = threadIdx.x; i < 128; i += 32) fours[i] = make_float4(1, 2, 3, 4);
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < lanes) {
        const float4 four = fours[at[threadIdx.x]];  // MARK read
        y[threadIdx.x] = four.x + four.y + four.z + four.w;
    }
}
KERNEL half_of_the_lanes(float* y) {
    if (threadIdx.x % 2) {   // MARK if
        y[threadIdx.x] = 1;  // MARK odd
    } else {
        y[threadIdx.x] = 0;  // MARK even
    }
    y[threadIdx.x + 32] = 2;  // MARK together
}
KERNEL uneven_loops(float* y) {
    float sum = 0;
    for (int i = 0; i < static_cast<int>(threadIdx.x); i++) {  // MARK loop
        sum += y[i];                                           // MARK body
    }
    y[threadIdx.x + 32] = sum;  // MARK together
}
KERNEL nested_loops(float* y) {
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        if (i > static_cast<int>(threadIdx.x) % 4) continue;  // MARK continue
        for (int j = 0; j <= i; j++) {                        // MARK inner
            sum += y[i * 4 + j];                              // MARK body
        }
        y[64 + i * 32 + threadIdx.x] = sum;  // MARK after
    }
    y[threadIdx.x + 32] = sum;  // MARK together
}
KERNEL early_return(const float* x, float* y, int n) {
    int i = AT;
    if (i >= n) return;  // MARK guard
    for (int j = 0; j < 2; j++) {
        if (x[j] < 0) break;  // MARK break
        y[i] = x[i];          // MARK body
    }
}
KERNEL calls(const float* x, float* y);
__device__ __noinline__ float triangle(const float* x, int n) {
    return n ? x[n] + triangle(x, n - 1) : 0.0f;  // MARK recursion
}
KERNEL calls(const float* x, float* y) {
    y[threadIdx.x] = triangle(x, threadIdx.x % 4);  // MARK together
}
KERNEL lanes_in_two_functions(const float* x, float* y) {
    float value = threadIdx.x < 16 ? triangle(x, 1) : triangle(x, 2);
    y[threadIdx.x] = value;  // MARK together
}
KERNEL switched(float* y) {
    switch (threadIdx.x % 4) {
        case 0:
            y[threadIdx.x] = 0;  // MARK zero
            break;
        case 1:
            y[threadIdx.x] = 1;  // MARK falls
        case 2:
            y[threadIdx.x] = 2;  // MARK two
            break;
        default:
            y[threadIdx.x] = 3;  // MARK others
    }
    y[threadIdx.x + 32] = 4;  // MARK together
}
KERNEL after_a_barrier(float* y) {
    y[AT] = 1;  // MARK before
    __syncthreads();
    if (threadIdx.x < 8) y[AT + 64] = y[AT];  // MARK eight
    __syncwarp();
    y[AT + 128] = __shfl_xor_sync(0xffffffff, y[AT], 1);  // MARK after
}

KERNEL saxpy(const float* x, float* y, float a) {
    y[AT] = a * x[AT] + y[AT];  // MARK sum
}
KERNEL arithmetic(const float* x, float* y, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) {
        sum += x[i] * x[i];           // MARK products
        if (i % 2) sum = sum / 3.0f;  // MARK quotient
    }
    y[AT] = sqrtf(sum) - fmaxf(sum, 1.0f);  // MARK root
}
KERNEL doubles(const double* x, double* y) {
    y[AT] = fma(x[AT], 2.0, 1.0) - 3.0;  // MARK sum
}

// The block that is done last adds up what the others left: ordered by the fence and the counter.
KERNEL last_block_sums(const float* x, float* y, float* partial, unsigned* done) {
    __shared__ bool is_last;
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = x[blockIdx.x];
        __threadfence();
        is_last = atomicInc(done, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (is_last && threadIdx.x == 0) {
        float sum = 0;
        for (int i = 0; i < static_cast<int>(gridDim.x); i++) sum += partial[i];
        y[0] = sum;
    }
}
KERNEL last_block_without_fence(const float* x, float* y, float* partial, unsigned* done) {
    if (threadIdx.x != 0) return;
    partial[blockIdx.x] = x[blockIdx.x];
    if (atomicInc(done, gridDim.x - 1) != gridDim.x - 1) return;
    float sum = 0;
    for (int i = 0; i < static_cast<int>(gridDim.x); i++) {
        sum += partial[i];  // MARK race
    }
    y[0] = sum;
}

KERNEL histogram(const int* bins, int* y, float* sums) {
    atomicAdd(&y[bins[AT]], 1);         // MARK bins
    atomicAdd(&sums[AT % 2], 1.0f);     // MARK sums
    atomicCAS(&y[threadIdx.x], -1, 0);  // MARK cas
}

// A sum of rows of 32, by a loop that is unrolled: 8 turns that are known, then as many as are
// left.
KERNEL unrolled(const float* x, float* y, int rows) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        sum += x[32 * i + threadIdx.x];  // MARK known
    }
#pragma unroll
    for (int i = 8; i < rows; i++) {
        sum += x[32 * i + threadIdx.x];  // MARK asked
    }
    y[threadIdx.x] = sum;
}
