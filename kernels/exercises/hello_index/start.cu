// y[i] = max(x[i], 0)
// x (n), y (n)
// One thread an element; the launch has n / 256 blocks of 256 threads, and n is a multiple of 256.
// The first kernel of all: what a thread does follows from its index, and from nothing else.
// Limits: n a multiple of the block.
extern "C" __global__ void relu(const float* __restrict__ x, float* __restrict__ y, int n) {
    const int i = threadIdx.x;
    y[i] = x[i] > 0 ? x[i] : 0;
}
