// y[p,q] = sum_{c,r,s} x[c,p+r,q+s] w[c,r,s]
// x (channels, height, width), w (channels, 3, 3), y (height - 2, width - 2)
// One thread an output, in blocks of 16 x 8: a block's tile.
// Against conv5x5: channel after channel goes through the same piece of shared memory.
// Limits: none on the extents.
constexpr int TAPS = 3;
constexpr int TILE_H = 8, TILE_W = 16;  // the launch's block
constexpr int HALO_H = TILE_H + TAPS - 1, HALO_W = TILE_W + TAPS - 1;

extern "C" __global__ void conv_channels(const float* __restrict__ x, const float* __restrict__ w,
                                         float* __restrict__ y, int channels, int height,
                                         int width) {
    __shared__ float halo[HALO_H][HALO_W];
    const int top = blockIdx.y * TILE_H, left = blockIdx.x * TILE_W;
    const int rows = height - TAPS + 1, cols = width - TAPS + 1;
    const int p = top + threadIdx.y, q = left + threadIdx.x;
    const bool in_output = p < rows && q < cols;

    float sum = 0;
    for (int c = 0; c < channels; c++) {
        const float* plane = x + c * height * width;
        for (int i = threadIdx.y; i < HALO_H; i += TILE_H) {
            for (int j = threadIdx.x; j < HALO_W; j += TILE_W) {
                const bool in_image = top + i < height && left + j < width;
                halo[i][j] = in_image ? plane[(top + i) * width + left + j] : 0;
            }
        }
        __syncthreads();  // a thread reads what its neighbours loaded

        for (int r = 0; r < TAPS; r++) {
            for (int s = 0; s < TAPS; s++) {
                sum += halo[threadIdx.y + r][threadIdx.x + s] * w[(c * TAPS + r) * TAPS + s];
            }
        }
        __syncthreads();  // the next channel overwrites what neighbours still read
    }
    if (in_output) y[p * cols + q] = sum;
}
