// y[plane] = mean of x[plane,i]
// x (planes, size), y (planes): a global average pooling
// A warp a plane, in blocks of 32 x 4 threads: threadIdx.x is the lane, threadIdx.y the warp.
// Against bias_gradient: a warp adds up alone, from register to register.
// Limits: none on the extents.
constexpr int WARP = 32, WARPS = 4;  // the launch's block
constexpr unsigned ALL = 0xffffffff;

extern "C" __global__ void plane_means(const float* __restrict__ x, float* __restrict__ y,
                                       int planes, int size) {
    const int lane = threadIdx.x, plane = blockIdx.x * WARPS + threadIdx.y;
    const bool in_output = plane < planes;
    float sum = 0;
    for (int i = lane; in_output && i < size; i += WARP) sum += x[plane * size + i];
    for (int half = WARP / 2; half > 0; half /= 2) sum += __shfl_down_sync(ALL, sum, half);
    if (in_output && lane == 0) y[plane] = sum / size;
}
