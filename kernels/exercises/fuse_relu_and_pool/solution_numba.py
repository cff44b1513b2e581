"""A convolution, its ReLU and a max-pooling in Numba CUDA: one block a filter."""

# y[k,i,j] = max over 2x2 windows of max(0, b[k] + sum_{r,s} x[p+r,q+s] w[k,r,s])
# x (height, width), w (filters, 3, 3), b (filters), y (filters, P/2, Q/2), map (filters, P, Q)
# A block of 128 threads a filter. P = height - 2, Q = width - 2; an odd row or column is left out.
# In one step: a thread keeps the four sums of its window to itself; map is not touched.
# Limits: none on the extents.

from __future__ import annotations

from typing import Any

from numba import cuda, int32, uint32

from kernels.index_numba import Scalars, quotient, remainder, scalar

TAPS, POOL = 3, 2


@cuda.jit(device=True)
def convolved(
    x: Scalars, w: Scalars, first: int32, bias: scalar, width: int32, p: int32, q: int32
) -> Any:
    """Return one sum; the filter begins at w[first]."""
    sum = bias
    for r in range(TAPS):
        for s in range(TAPS):
            sum += x[uint32((p + r) * width + q + s)] * w[uint32(first + r * TAPS + s)]
    return sum


@cuda.jit
def conv_relu_pool(
    x: Scalars, w: Scalars, b: Scalars, y: Scalars, map: Scalars, height: int32, width: int32
) -> None:
    """One block a plane of y."""
    k = int32(cuda.blockIdx.x)
    rows = int32(height - TAPS + 1)
    cols = int32(width - TAPS + 1)
    pooled_rows = quotient(rows, POOL)
    pooled_cols = quotient(cols, POOL)
    first = int32(k * TAPS * TAPS)
    pooled_plane = int32(k * pooled_rows * pooled_cols)

    pooled = int32(pooled_rows * pooled_cols)
    for i in range(int32(cuda.threadIdx.x), pooled, int32(cuda.blockDim.x)):
        p = int32(quotient(i, pooled_cols) * POOL)
        q = int32(remainder(i, pooled_cols) * POOL)
        best = scalar(0)  # what ReLU leaves at the least
        for row in range(p, p + POOL):
            for col in range(q, q + POOL):
                best = max(best, convolved(x, w, first, b[uint32(k)], width, row, col))
        y[uint32(pooled_plane + i)] = best
