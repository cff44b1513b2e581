"""Max-pooling in Numba CUDA, as `max.cu`: one thread a window, a gather backward."""

# y[n,c,p,q] = max of x[n,c,h,w] over the window; argmax = h*W + w of the first maximum, row order
# x (N,C,H,W), y and argmax (N,C,P,Q), dy like y, dx like x
# One thread an output element, q (w in the backward pass) fastest.
# Backward gathers: a thread asks every window over its element whether it was the maximum, so
# overlapping windows need no atomics and the sum has one order. NaN is its window's maximum.

from __future__ import annotations

import math
from typing import Any

from numba import cuda, int32, uint32

from kernels.index_numba import (
    Int32s,
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


@cuda.jit
def max_pool2d_forward(x: Scalars, y: Scalars, argmax: Int32s, shape: PoolShape) -> None:
    """One thread a window."""
    i = grid_index()
    in_output = i < int32(shape.n * shape.c * shape.p * shape.q)
    if in_output:
        n, c, p, q = unflatten(i, shape.c, shape.p, shape.q)
        # The window, clipped: padding is never the maximum.
        top = int32(p * shape.stride_h - shape.pad_top)
        left = int32(q * shape.stride_w - shape.pad_left)
        row_end = min(int32(top + shape.r), shape.h)
        col_end = min(int32(left + shape.s), shape.w)
        row_begin, col_begin = max(top, int32(0)), max(left, int32(0))

        best_at = int32(row_begin * shape.w + col_begin)
        plane = x_offset(shape, n, c, 0, 0)
        best = x[uint32(plane + best_at)]
        for row in range(row_begin, row_end):
            for col in range(col_begin, col_end):
                at = int32(row * shape.w + col)
                value = x[uint32(plane + at)]
                first_nan = value != value and best == best
                if value > best or first_nan:
                    best = value
                    best_at = at
        y[uint32(i)] = best
        argmax[uint32(i)] = best_at


@cuda.jit
def max_pool2d_backward(dy: Scalars, argmax: Int32s, dx: Scalars, shape: PoolShape) -> None:
    """One thread an element of dx."""
    i = grid_index()
    in_input = i < int32(shape.n * shape.c * shape.h * shape.w)
    if in_input:
        n, c, h, w = unflatten(i, shape.c, shape.h, shape.w)
        # The windows over this element: top <= h < top + R, with top = p*stride_h - pad_top.
        row, col = int32(h + shape.pad_top), int32(w + shape.pad_left)
        p_begin = max(ceil_div(int32(row - shape.r + 1), shape.stride_h), int32(0))
        q_begin = max(ceil_div(int32(col - shape.s + 1), shape.stride_w), int32(0))
        p_end = min(int32(quotient(row, shape.stride_h) + 1), shape.p)
        q_end = min(int32(quotient(col, shape.stride_w) + 1), shape.q)

        sum = scalar(0)
        for p in range(p_begin, p_end):
            for q in range(q_begin, q_end):
                window = pool_y_offset(shape, n, c, p, q)
                if argmax[window] == int32(h * shape.w + w):
                    sum += dy[window]
        dx[uint32(i)] = sum


def forward(x: Any, y: Any, argmax: Any, shape: PoolShape) -> None:
    """Write y and argmax (int32), (N,C,P,Q), from x (N,C,H,W)."""
    grid = (host_ceil_div(math.prod(shape.output_shape), THREADS),)
    source.kernel("max_pool2d_forward", like=x)(grid, (THREADS,), (x, y, argmax, shape))


def backward(dy: Any, argmax: Any, dx: Any, shape: PoolShape) -> None:
    """Write dx (N,C,H,W) from dy and argmax, (N,C,P,Q)."""
    grid = (host_ceil_div(math.prod(shape.input_shape), THREADS),)
    source.kernel("max_pool2d_backward", like=dy)(grid, (THREADS,), (dy, argmax, dx, shape))
