// Kernels that end badly. The tests know the line numbers by the marks at their ends.

extern "C" __global__ void some_return(int* out) {
    if (threadIdx.x >= 16) return;
    __syncthreads();  // MARK returned
    out[threadIdx.x] = 1;
}

extern "C" __global__ void two_lines(int* out) {
    if (threadIdx.x == 5) {
        __syncthreads();  // MARK five
    } else {
        __syncthreads();  // MARK others
    }
    out[threadIdx.x] = 1;
}

extern "C" __global__ void endless(volatile int* flag) {
    if (blockIdx.x == 1 && threadIdx.x == 2) {
        while (*flag == 0) {  // MARK endless
        }
    }
}

extern "C" __global__ void counts(int* out, int go_on) {
    while (go_on) atomicAdd(out, 1);  // MARK counts
}

extern "C" __global__ void wild(int* out) {
    if (threadIdx.x == 3) {
        out[-(1LL << 40)] = 1;  // MARK wild
    }
}

extern "C" __global__ void divide(int* out, int by) {
    out[0] = 7 / by;
}

__device__ __noinline__ int deeper(int n, int* out) {
    volatile int room[64];
    room[n % 64] = n;
    return n < 0 ? 0 : deeper(n + 1, out) + room[n % 64];
}

extern "C" __global__ void recursion(int* out) {
    out[0] = deeper(1, out);
}

extern "C" __global__ void trap() {
    if (threadIdx.x == 1) __trap();  // MARK trap
}

extern "C" __global__ void asserts(int n) {
    assert(n > 3);  // MARK assert
}

extern "C" __global__ void prints(float x) {
    printf("thread %d of block %d: %.2f\n", (int)threadIdx.x, (int)blockIdx.x, x);
}

extern "C" __global__ void fine(int* out) {
    __shared__ int box[32];
    box[threadIdx.x] = threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = box[31 - threadIdx.x];
}

extern "C" __global__ void clears(char* out, int n) {
    memset(out + (1LL << 40), 0, n);  // MARK memset
}
