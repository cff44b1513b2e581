// y[col,row] = x[row,col]
// x (rows, cols), y (cols, rows)
// A block of 32 x 8 threads moves a 32 x 32 tile through shared memory, four rows a thread.
// Against a plain transposition: both loads and stores of global memory are whole rows.
// Limits: none on the extents.
constexpr int TILE = 32, ROWS = 8;  // a warp's row; the launch's block has 32 x 8 threads

extern "C" __global__ void transpose(const float* __restrict__ x, float* __restrict__ y, int rows,
                                     int cols) {
    __shared__ float tile[TILE][TILE];
    const int top = blockIdx.y * TILE, left = blockIdx.x * TILE;
    for (int i = threadIdx.y; i < TILE; i += ROWS) {
        const int row = top + i, col = left + threadIdx.x;
        if (row < rows && col < cols) tile[i][threadIdx.x] = x[row * cols + col];
    }
    __syncthreads();  // a thread reads what others loaded
    for (int i = threadIdx.y; i < TILE; i += ROWS) {
        const int row = top + threadIdx.x, col = left + i;
        if (row < rows && col < cols) y[col * rows + row] = tile[threadIdx.x][i];
    }
}
