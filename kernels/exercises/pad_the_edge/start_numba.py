"""A 3x3 convolution with SAME padding in Numba CUDA: one thread an output."""

# y[p,q] = sum_{r,s} x[p+r-1,q+s-1] w[r,s], where x is 0 outside of the image
# x (height, width), w (3, 3), y (height, width)
# One thread an output, in blocks of 16 x 8: x along a row, y along a column.
# Against filter_1d: two dimensions, and SAME padding, so that the output is as large as the input.
# Limits: none on the extents.

from __future__ import annotations

from numba import cuda, int32, uint32

from kernels.index_numba import Scalars, inside, scalar


@cuda.jit
def conv3x3_same(x: Scalars, w: Scalars, y: Scalars, height: int32, width: int32) -> None:
    """One thread an element of y."""
    q = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    p = int32(cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y)
    in_output = p < height and q < width
    if in_output:
        sum = scalar(0)
        for r in range(3):
            for s in range(3):
                row = int32(p + r)
                col = int32(q + s)
                in_image = inside(row, height) and inside(col, width)
                if in_image:
                    sum += x[uint32(row * width + col)] * w[uint32(r * 3 + s)]
        y[uint32(p * width + q)] = sum
