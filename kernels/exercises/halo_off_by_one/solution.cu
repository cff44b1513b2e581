// y[p,q] = sum_{r,s} x[p+r,q+s] w[r,s]
// x (height, width), w (5, 5), y (height - 4, width - 4)
// One thread an output, in blocks of 16 x 8: a block's tile.
// The tile's input, with its halo, is read once, together, to shared memory.
// Limits: none on the extents.
constexpr int TAPS = 5;
constexpr int TILE_H = 8, TILE_W = 16;  // the launch's block
constexpr int HALO_H = TILE_H + TAPS - 1, HALO_W = TILE_W + TAPS - 1;

extern "C" __global__ void conv5x5(const float* __restrict__ x, const float* __restrict__ w,
                                   float* __restrict__ y, int height, int width) {
    __shared__ float halo[HALO_H][HALO_W];
    const int top = blockIdx.y * TILE_H, left = blockIdx.x * TILE_W;
    const int rows = height - TAPS + 1, cols = width - TAPS + 1;

    // Load the halo; outside of the image it is zero.
    for (int i = threadIdx.y; i < HALO_H; i += TILE_H) {
        for (int j = threadIdx.x; j < HALO_W; j += TILE_W) {
            const bool in_image = top + i < height && left + j < width;
            halo[i][j] = in_image ? x[(top + i) * width + left + j] : 0;
        }
    }
    __syncthreads();  // a thread reads what its neighbours loaded

    const int p = top + threadIdx.y, q = left + threadIdx.x;
    const bool in_output = p < rows && q < cols;
    if (in_output) {
        float sum = 0;
        for (int r = 0; r < TAPS; r++) {
            for (int s = 0; s < TAPS; s++) {
                sum += halo[threadIdx.y + r][threadIdx.x + s] * w[r * TAPS + s];
            }
        }
        y[p * cols + q] = sum;
    }
}
