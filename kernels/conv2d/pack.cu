// packed[batch, col, row] = from[batch, row, col], rounded to TF32 or bfloat16: tensor cores'
// factors from (batches, rows, cols), float32; packed (batches, cols, rows), rows filled up with
// zeros to whole vectors of 16 bytes. A block turns a tile of 4 vectors by 64 columns, a thread
// packs one. What a product sums over comes to lie innermost, where its tiles are copied from 16
// bytes at once. Limits: a batch's rows are row_pitch apart; the offsets of all are 32 bits.
#include "index.cuh"
#include "tensor_core.cuh"

static_assert(sizeof(scalar) == 4, "tensor cores take no doubles here");

constexpr int IN_VECTOR = BF16 ? 8 : 4;  // factors in 16 bytes
constexpr int ROW = 4;                   // vectors of a tile's column
constexpr int PACK_THREADS = 256, PACK_COLS = PACK_THREADS / ROW, PACK_ROWS = ROW * IN_VECTOR;
extern "C" __global__ void __launch_bounds__(PACK_THREADS)
    conv2d_pack(const float* __restrict__ from, unsigned* __restrict__ packed, const int rows,
                const int cols, const int batch_pitch, const int row_pitch) {
    // Padded so that 8 columns of each of a row's vectors are on different banks.
    __shared__ float tile[PACK_ROWS][PACK_COLS + 8 / IN_VECTOR];
    const Index4 block =
        unflatten(blockIdx.x, 1, ceil_div(cols, PACK_COLS), ceil_div(rows, PACK_ROWS));
    const int row0 = block.d * PACK_ROWS, col0 = block.c * PACK_COLS;
    const float* part = from + block.a * batch_pitch + row0 * row_pitch + col0;

    const int col = threadIdx.x % PACK_COLS;
#pragma unroll
    for (int row = threadIdx.x / PACK_COLS; row < PACK_ROWS; row += PACK_THREADS / PACK_COLS) {
        const bool is_there = row0 + row < rows && col0 + col < cols;
        tile[row][col] = is_there ? part[row * row_pitch + col] : 0.0f;
    }
    __syncthreads();  // a thread packs what others read

    const int vectors = ceil_div(rows, IN_VECTOR);
    const int vector = threadIdx.x % ROW, to_col = threadIdx.x / ROW;
    if (col0 + to_col >= cols || block.d * ROW + vector >= vectors) return;
    unsigned words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = vector * IN_VECTOR + i * IN_VECTOR / 4;
        words[i] =
            BF16 ? pack_bf16(tile[row][to_col], tile[row + 1][to_col]) : to_tf32(tile[row][to_col]);
    }
    const int pixel = block.a * cols + col0 + to_col;
    reinterpret_cast<uint4*>(packed)[pixel * vectors + block.d * ROW + vector] =
        make_uint4(words[0], words[1], words[2], words[3]);
}
