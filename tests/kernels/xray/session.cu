// Kernels for test_session.py.
#define KERNEL extern "C" __global__ void

KERNEL fill(float* y, int first) {
    y[first + static_cast<int>(threadIdx.x)] = 1;
}
KERNEL add_to(const float* x, float* total) {
    total[threadIdx.x] += x[threadIdx.x];
}
KERNEL stops(float* y) {
    y[threadIdx.x] = 1;
    if (threadIdx.x == 7) return;
    __syncthreads();
}
KERNEL traps() {
    __trap();
}
KERNEL endless(volatile float* y) {
    while (y[0] == 0) {
    }
}
KERNEL counts_up(volatile float* y, int n) {
    y[0] = 0;
    for (int i = 0; i < n; i++) y[0] = y[0] + 1;
}
