"""A transposition through shared memory in Numba CUDA."""

# y[col,row] = x[row,col]
# x (rows, cols), y (cols, rows)
# A block of 32 x 8 threads moves a 32 x 32 tile through shared memory, four rows a thread.
# Against a plain transposition: both loads and stores of global memory are whole rows.
# Limits: none on the extents.

from __future__ import annotations

from numba import cuda, float32, int32, uint32

from kernels.index_numba import Scalars

TILE, ROWS = 32, 8  # a warp's row; the launch's block has 32 x 8 threads
PITCH = TILE + 1  # the pad: a column is in 32 banks, not in one


@cuda.jit
def transpose(x: Scalars, y: Scalars, rows: int32, cols: int32) -> None:
    """One thread four elements of y."""
    tile = cuda.shared.array((TILE, PITCH), float32)
    top = int32(cuda.blockIdx.y * TILE)
    left = int32(cuda.blockIdx.x * TILE)
    for i in range(int32(cuda.threadIdx.y), TILE, ROWS):
        row = int32(top + i)
        col = int32(left + cuda.threadIdx.x)
        if row < rows and col < cols:
            tile[i, cuda.threadIdx.x] = x[uint32(row * cols + col)]
    cuda.syncthreads()  # a thread reads what others loaded
    for i in range(int32(cuda.threadIdx.y), TILE, ROWS):
        row = int32(top + cuda.threadIdx.x)
        col = int32(left + i)
        if row < rows and col < cols:
            y[uint32(col * rows + row)] = tile[cuda.threadIdx.x, i]
