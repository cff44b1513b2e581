"""A convolution, its ReLU and a max-pooling in Numba CUDA: one block a filter."""

# y[k,i,j] = max over 2x2 windows of max(0, b[k] + sum_{r,s} x[p+r,q+s] w[k,r,s])
# x (height, width), w (filters, 3, 3), b (filters), y (filters, P/2, Q/2), map (filters, P, Q)
# A block of 128 threads a filter. P = height - 2, Q = width - 2; an odd row or column is left out.
# In two steps: the convolution and its ReLU to map, then the maxima of map.
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
    """Return the ReLU of one output; the filter begins at w[first]."""
    sum = bias
    for r in range(TAPS):
        for s in range(TAPS):
            sum += x[uint32((p + r) * width + q + s)] * w[uint32(first + r * TAPS + s)]
    return max(sum, scalar(0))


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
    plane = int32(k * rows * cols)
    pooled_plane = int32(k * pooled_rows * pooled_cols)

    for i in range(int32(cuda.threadIdx.x), int32(rows * cols), int32(cuda.blockDim.x)):
        p = quotient(i, cols)
        q = remainder(i, cols)
        map[uint32(plane + i)] = convolved(x, w, first, b[uint32(k)], width, p, q)
    cuda.syncthreads()  # a thread reads what others stored
    pooled = int32(pooled_rows * pooled_cols)
    for i in range(int32(cuda.threadIdx.x), pooled, int32(cuda.blockDim.x)):
        p = int32(quotient(i, pooled_cols) * POOL)
        q = int32(remainder(i, pooled_cols) * POOL)
        at = int32(plane + p * cols + q)
        upper = max(map[uint32(at)], map[uint32(at + 1)])
        lower = max(map[uint32(at + cols)], map[uint32(at + cols + 1)])
        y[uint32(pooled_plane + i)] = max(upper, lower)
