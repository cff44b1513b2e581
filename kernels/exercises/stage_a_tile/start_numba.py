"""A 5x5 convolution in Numba CUDA: one thread an output."""

# y[p,q] = sum_{r,s} x[p+r,q+s] w[r,s]
# x (height, width), w (5, 5), y (height - 4, width - 4)
# One thread an output, in blocks of 16 x 8.
# Every operand comes from global memory, every time: neighbouring outputs read 20 of 25 again.
# Limits: none on the extents.

from __future__ import annotations

from numba import cuda, int32, uint32

from kernels.index_numba import Scalars, scalar

TAPS = 5


@cuda.jit
def conv5x5(x: Scalars, w: Scalars, y: Scalars, height: int32, width: int32) -> None:
    """One thread an element of y."""
    p = int32(cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y)
    q = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    rows = int32(height - TAPS + 1)
    cols = int32(width - TAPS + 1)
    in_output = p < rows and q < cols
    if in_output:
        sum = scalar(0)
        for r in range(TAPS):
            for s in range(TAPS):
                sum += x[uint32((p + r) * width + q + s)] * w[uint32(r * TAPS + s)]
        y[uint32(p * cols + q)] = sum
