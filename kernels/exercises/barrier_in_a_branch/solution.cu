// y[i] = x[i-1] + x[i] + x[i+1], where x is 0 outside
// x (n), y (n)
// One thread an output, in blocks of 256; a block's inputs are staged with one on either side.
// Against filter_1d: through shared memory, so there is a barrier.
// Limits: none on n.
constexpr int THREADS = 256;  // the launch's block

extern "C" __global__ void smooth(const float* __restrict__ x, float* __restrict__ y, int n) {
    __shared__ float staged[THREADS + 2];
    const int i = blockIdx.x * THREADS + threadIdx.x;
    const int at = threadIdx.x + 1;
    const bool in_output = i < n;
    if (in_output) {
        staged[at] = x[i];
        if (threadIdx.x == 0) staged[0] = i > 0 ? x[i - 1] : 0;
        const bool is_last = threadIdx.x == THREADS - 1 || i == n - 1;
        if (is_last) staged[at + 1] = i + 1 < n ? x[i + 1] : 0;
    }
    __syncthreads();  // a thread reads what its neighbours loaded
    if (in_output) y[i] = staged[at - 1] + staged[at] + staged[at + 1];
}
