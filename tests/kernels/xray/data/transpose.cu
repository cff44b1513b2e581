// out (width x height) is the transpose of in (height x width): a tile at a time through shared
// memory, so that both the loads and the stores of a warp are neighbours in global memory.
#define TILE 16

__global__ void transpose(const float* in, float* out, int width, int height) {
    __shared__ float tile[TILE][TILE];
    int x = blockIdx.x * TILE + threadIdx.x;
    int y = blockIdx.y * TILE + threadIdx.y;
    if (x < width && y < height) {
        tile[threadIdx.y][threadIdx.x] = in[y * width + x];
    }
    // The planted bug: no __syncthreads() between the stores above and the loads below.
    int to_x = blockIdx.y * TILE + threadIdx.x;
    int to_y = blockIdx.x * TILE + threadIdx.y;
    if (to_x < height && to_y < width) {
        out[to_y * height + to_x] = tile[threadIdx.x][threadIdx.y];
    }
}
