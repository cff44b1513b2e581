// y[p,q] = sum_{r,s} x[p+r-1,q+s-1] w[r,s], where x is 0 outside of the image
// x (height, width), w (3, 3), y (height, width)
// One thread an output, in blocks of 16 x 8: x along a row, y along a column.
// Against filter_1d: two dimensions, and SAME padding, so that the output is as large as the input.
// Limits: none on the extents.
extern "C" __global__ void conv3x3_same(const float* __restrict__ x, const float* __restrict__ w,
                                        float* __restrict__ y, int height, int width) {
    const int q = blockIdx.x * blockDim.x + threadIdx.x;
    const int p = blockIdx.y * blockDim.y + threadIdx.y;
    const bool in_output = p < height && q < width;
    if (in_output) {
        float sum = 0;
        for (int r = 0; r < 3; r++) {
            for (int s = 0; s < 3; s++) {
                const int row = p + r - 1, col = q + s - 1;
                const bool in_image = row >= 0 && row < height && col >= 0 && col < width;
                if (in_image) sum += x[row * width + col] * w[r * 3 + s];
            }
        }
        y[p * width + q] = sum;
    }
}
