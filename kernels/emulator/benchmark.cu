// y[p][q] = sum over r, s of x[p + r][q + s] * w[r][s]        (one plane, VALID, stride 1)
// x: H x W, w: FILTER x FILTER, y: P x Q; P = H - FILTER + 1, Q = W - FILTER + 1
// One thread an output; a block computes TILE x TILE of them.
// The block's inputs, a halo included, are loaded to shared memory once.
// Limits: float32, square filters, one channel.

#define IN (TILE + FILTER - 1)

extern "C" __global__ void conv2d_tiled(const float* x, const float* w, float* y, int H, int W,
                                        int P, int Q) {
    __shared__ float tile[IN][IN];
    int p0 = blockIdx.y * TILE, q0 = blockIdx.x * TILE;

    // Load the tile; outside of the image it is zero.
    for (int i = threadIdx.y; i < IN; i += TILE) {
        for (int j = threadIdx.x; j < IN; j += TILE) {
            bool inside = p0 + i < H && q0 + j < W;
            tile[i][j] = inside ? x[(p0 + i) * W + q0 + j] : 0.0f;
        }
    }
    __syncthreads();  // every thread reads what others loaded

    float sum = 0.0f;
    for (int r = 0; r < FILTER; ++r) {
        for (int s = 0; s < FILTER; ++s) {
            sum += tile[threadIdx.y + r][threadIdx.x + s] * w[r * FILTER + s];
        }
    }

    int p = p0 + threadIdx.y, q = q0 + threadIdx.x;
    bool has_output = p < P && q < Q;
    if (has_output) y[p * Q + q] = sum;
}
