"""A 5x5 convolution in Numba CUDA through shared memory: one thread an output."""

# y[p,q] = sum_{r,s} x[p+r,q+s] w[r,s]
# x (height, width), w (5, 5), y (height - 4, width - 4)
# One thread an output, in blocks of 16 x 8: a block's tile.
# The tile's input, with its halo, is read once, together, to shared memory.
# Limits: none on the extents.

from __future__ import annotations

from numba import cuda, float32, int32, uint32

from kernels.index_numba import Scalars, scalar

TAPS = 5
TILE_H, TILE_W = 8, 16  # the launch's block
HALO_H, HALO_W = TILE_H + TAPS - 1, TILE_W + TAPS - 1


@cuda.jit
def conv5x5(x: Scalars, w: Scalars, y: Scalars, height: int32, width: int32) -> None:
    """One thread an element of y."""
    halo = cuda.shared.array((HALO_H, HALO_W), float32)
    top = int32(cuda.blockIdx.y * TILE_H)
    left = int32(cuda.blockIdx.x * TILE_W)
    rows = int32(height - TAPS + 1)
    cols = int32(width - TAPS + 1)

    # Load the halo; outside of the image it is zero.
    for i in range(int32(cuda.threadIdx.y), HALO_H, TILE_H):
        for j in range(int32(cuda.threadIdx.x), HALO_W, TILE_W):
            in_image = top + i < height and left + j < width
            halo[i, j] = x[uint32((top + i) * width + left + j)] if in_image else scalar(0)
    cuda.syncthreads()  # a thread reads what its neighbours loaded

    p = int32(top + cuda.threadIdx.y)
    q = int32(left + cuda.threadIdx.x)
    in_output = p < rows and q < cols
    if in_output:
        sum = scalar(0)
        for r in range(TAPS):
            for s in range(TAPS):
                sum += halo[cuda.threadIdx.y + r, cuda.threadIdx.x + s] * w[uint32(r * TAPS + s)]
        y[uint32(p * cols + q)] = sum
