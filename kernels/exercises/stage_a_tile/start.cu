// y[p,q] = sum_{r,s} x[p+r,q+s] w[r,s]
// x (height, width), w (5, 5), y (height - 4, width - 4)
// One thread an output, in blocks of 16 x 8.
// Every operand comes from global memory, every time: neighbouring outputs read 20 of 25 again.
// Limits: none on the extents.
constexpr int TAPS = 5;

extern "C" __global__ void conv5x5(const float* __restrict__ x, const float* __restrict__ w,
                                   float* __restrict__ y, int height, int width) {
    const int p = blockIdx.y * blockDim.y + threadIdx.y;
    const int q = blockIdx.x * blockDim.x + threadIdx.x;
    const int rows = height - TAPS + 1, cols = width - TAPS + 1;
    const bool in_output = p < rows && q < cols;
    if (in_output) {
        float sum = 0;
        for (int r = 0; r < TAPS; r++) {
            for (int s = 0; s < TAPS; s++) {
                sum += x[(p + r) * width + q + s] * w[r * TAPS + s];
            }
        }
        y[p * cols + q] = sum;
    }
}
