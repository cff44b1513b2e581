"""Average pooling in Numba CUDA, as `avg.cu`: one thread a window, a gather backward."""

# y[n,c,p,q] = sum of x[n,c,h,w] over the window / divisor
# x (N,C,H,W), y (N,C,P,Q), dy like y, dx like x; divisor = window elements inside the image, or
# R*S with include_pad
# One thread an output element, q (w in the backward pass) fastest.
# Backward gathers: a thread adds up its share of every window over it; no atomics.

from __future__ import annotations

import math
from typing import Any

from numba import cuda, int32, uint32

from kernels.index_numba import (
    Scalars,
    ceil_div,
    grid_index,
    pool_y_offset,
    quotient,
    scalar,
    unflatten,
    x_offset,
)
from kernels.numba_cuda import NumbaSource
from kernels.shapes import PoolShape
from kernels.source import ceil_div as host_ceil_div

THREADS = 256
source = NumbaSource(__name__)


@cuda.jit(device=True)
def clipped(p: int32, stride: int32, pad: int32, size: int32, extent: int32) -> tuple[int32, int32]:
    """Return (begin, end) of the image's rows (columns) under output p, without the padding."""
    first = int32(p * stride - pad)
    return max(first, int32(0)), min(int32(first + size), extent)


@cuda.jit(device=True)
def divisor(shape: PoolShape, rows: tuple[int32, int32], cols: tuple[int32, int32]) -> Any:
    """Return how many elements the mean is over."""
    # Converted one by one: Numba makes a float64 of the product of an int32 and a float32.
    if shape.include_pad:
        return scalar(shape.r) * scalar(shape.s)
    return scalar(int32(rows[1] - rows[0])) * scalar(int32(cols[1] - cols[0]))


@cuda.jit
def avg_pool2d_forward(x: Scalars, y: Scalars, shape: PoolShape) -> None:
    """One thread a window."""
    i = grid_index()
    in_output = i < int32(shape.n * shape.c * shape.p * shape.q)
    if in_output:
        n, c, p, q = unflatten(i, shape.c, shape.p, shape.q)
        rows = clipped(p, shape.stride_h, shape.pad_top, shape.r, shape.h)
        cols = clipped(q, shape.stride_w, shape.pad_left, shape.s, shape.w)
        sum = scalar(0)
        for row in range(rows[0], rows[1]):
            for col in range(cols[0], cols[1]):
                sum += x[x_offset(shape, n, c, row, col)]
        y[uint32(i)] = sum / divisor(shape, rows, cols)


@cuda.jit
def avg_pool2d_backward(dy: Scalars, dx: Scalars, shape: PoolShape) -> None:
    """One thread an element of dx."""
    i = grid_index()
    in_input = i < int32(shape.n * shape.c * shape.h * shape.w)
    if in_input:
        n, c, row, col = unflatten(i, shape.c, shape.h, shape.w)
        # The windows over this element: top <= h < top + R, with top = p*stride_h - pad_top.
        h, w = int32(row + shape.pad_top), int32(col + shape.pad_left)
        p_begin = max(ceil_div(int32(h - shape.r + 1), shape.stride_h), int32(0))
        q_begin = max(ceil_div(int32(w - shape.s + 1), shape.stride_w), int32(0))
        p_end = min(int32(quotient(h, shape.stride_h) + 1), shape.p)
        q_end = min(int32(quotient(w, shape.stride_w) + 1), shape.q)

        sum = scalar(0)
        for p in range(p_begin, p_end):
            rows = clipped(p, shape.stride_h, shape.pad_top, shape.r, shape.h)
            for q in range(q_begin, q_end):
                cols = clipped(q, shape.stride_w, shape.pad_left, shape.s, shape.w)
                sum += dy[pool_y_offset(shape, n, c, p, q)] / divisor(shape, rows, cols)
        dx[uint32(i)] = sum


def forward(x: Any, y: Any, shape: PoolShape) -> None:
    """Write y (N,C,P,Q) from x (N,C,H,W)."""
    grid = (host_ceil_div(math.prod(shape.output_shape), THREADS),)
    source.kernel("avg_pool2d_forward", like=x)(grid, (THREADS,), (x, y, shape))


def backward(dy: Any, dx: Any, shape: PoolShape) -> None:
    """Write dx (N,C,H,W) from dy (N,C,P,Q)."""
    grid = (host_ceil_div(math.prod(shape.input_shape), THREADS),)
    source.kernel("avg_pool2d_backward", like=dy)(grid, (THREADS,), (dy, dx, shape))
