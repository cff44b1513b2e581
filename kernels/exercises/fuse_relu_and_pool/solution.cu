// y[k,i,j] = max over 2x2 windows of max(0, b[k] + sum_{r,s} x[p+r,q+s] w[k,r,s])
// x (height, width), w (filters, 3, 3), b (filters), y (filters, P/2, Q/2), map (filters, P, Q)
// A block of 128 threads a filter. P = height - 2, Q = width - 2; an odd row or column is left out.
// In one step: a thread keeps the four sums of its window to itself; map is not touched.
// Limits: none on the extents.
constexpr int TAPS = 3, POOL = 2;

__device__ float convolved(const float* x, const float* w, float bias, int width, int p, int q) {
    float sum = bias;
    for (int r = 0; r < TAPS; r++) {
        for (int s = 0; s < TAPS; s++) sum += x[(p + r) * width + q + s] * w[r * TAPS + s];
    }
    return sum;
}

extern "C" __global__ void conv_relu_pool(const float* __restrict__ x, const float* __restrict__ w,
                                          const float* __restrict__ b, float* __restrict__ y,
                                          float* __restrict__ map, int height, int width) {
    const int k = blockIdx.x;
    const int rows = height - TAPS + 1, cols = width - TAPS + 1;
    const int pooled_rows = rows / POOL, pooled_cols = cols / POOL;
    const float* taps = w + k * TAPS * TAPS;

    for (int i = threadIdx.x; i < pooled_rows * pooled_cols; i += blockDim.x) {
        const int p = i / pooled_cols * POOL, q = i % pooled_cols * POOL;
        float best = 0;  // what ReLU leaves at the least
        for (int window = 0; window < POOL * POOL; window++) {
            const int row = p + window / POOL, col = q + window % POOL;
            best = max(best, convolved(x, taps, b[k], width, row, col));
        }
        y[k * pooled_rows * pooled_cols + i] = best;
    }
}
