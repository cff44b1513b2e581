"""A 3x3 convolution over channels in Numba CUDA: one thread an output."""

# y[p,q] = sum_{c,r,s} x[c,p+r,q+s] w[c,r,s]
# x (channels, height, width), w (channels, 3, 3), y (height - 2, width - 2)
# One thread an output, in blocks of 16 x 8: a block's tile.
# Against conv5x5: channel after channel goes through the same piece of shared memory.
# Limits: none on the extents.

from __future__ import annotations

from numba import cuda, float32, int32, uint32

from kernels.index_numba import Scalars, scalar

TAPS = 3
TILE_H, TILE_W = 8, 16  # the launch's block
HALO_H, HALO_W = TILE_H + TAPS - 1, TILE_W + TAPS - 1


@cuda.jit
def conv_channels(
    x: Scalars, w: Scalars, y: Scalars, channels: int32, height: int32, width: int32
) -> None:
    """One thread an element of y."""
    halo = cuda.shared.array((HALO_H, HALO_W), float32)
    top = int32(cuda.blockIdx.y * TILE_H)
    left = int32(cuda.blockIdx.x * TILE_W)
    rows = int32(height - TAPS + 1)
    cols = int32(width - TAPS + 1)
    p = int32(top + cuda.threadIdx.y)
    q = int32(left + cuda.threadIdx.x)
    in_output = p < rows and q < cols

    sum = scalar(0)
    for c in range(channels):
        plane = int32(c * height * width)
        for i in range(int32(cuda.threadIdx.y), HALO_H, TILE_H):
            for j in range(int32(cuda.threadIdx.x), HALO_W, TILE_W):
                in_image = top + i < height and left + j < width
                at = uint32(plane + (top + i) * width + left + j)
                halo[i, j] = x[at] if in_image else scalar(0)
        cuda.syncthreads()  # a thread reads what its neighbours loaded

        for r in range(TAPS):
            for s in range(TAPS):
                tap = w[uint32((c * TAPS + r) * TAPS + s)]
                sum += halo[cuda.threadIdx.y + r, cuda.threadIdx.x + s] * tap
    if in_output:
        y[uint32(p * cols + q)] = sum
