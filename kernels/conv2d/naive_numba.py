"""Naive direct convolution in Numba CUDA, as `naive.cu`: one thread an output element."""

# y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s],  h = p*stride_h - pad_top + r*dilation_h
# x (N,C,H,W), w (K,C,R,S), b (K) or empty, y (N,K,P,Q); gradients shaped like what they belong to
# One thread an output element, the last dimension fastest: a warp's stores are consecutive.
# The formula as it stands: the first rung; every operand comes from global memory, every time.
# Any shape below 2^31 elements a tensor. The bias gradient has K threads in all: slow, and plain.

from __future__ import annotations

import math
from typing import Any

from numba import cuda, int32, uint32

from kernels.index_numba import (
    Scalars,
    grid_index,
    input_col,
    input_row,
    inside,
    output_col,
    output_row,
    scalar,
    unflatten,
    w_offset,
    x_offset,
    y_offset,
)
from kernels.numba_cuda import NumbaSource
from kernels.shapes import Conv2dShape
from kernels.source import ceil_div

THREADS = 256
source = NumbaSource(__name__)


@cuda.jit
def conv2d_naive_forward(
    x: Scalars, w: Scalars, b: Scalars, y: Scalars, shape: Conv2dShape
) -> None:
    """One thread an element of y."""
    i = grid_index()
    in_output = i < int32(shape.n * shape.k * shape.p * shape.q)
    if in_output:
        n, k, p, q = unflatten(i, shape.k, shape.p, shape.q)
        sum = b[uint32(k)] if len(b) else scalar(0)  # no None for a kernel: an absent b is empty
        for c in range(shape.c):
            for r in range(shape.r):
                row = input_row(shape, p, r)
                if not inside(row, shape.h):
                    continue
                for s in range(shape.s):
                    col = input_col(shape, q, s)
                    if not inside(col, shape.w):
                        continue
                    sum += x[x_offset(shape, n, c, row, col)] * w[w_offset(shape, k, c, r, s)]
        y[uint32(i)] = sum


# dx[n,c,h,w] = sum over the outputs that read it: a gather, so no atomics and one order of sums.
@cuda.jit
def conv2d_naive_backward_data(dy: Scalars, w: Scalars, dx: Scalars, shape: Conv2dShape) -> None:
    """One thread an element of dx."""
    i = grid_index()
    in_input = i < int32(shape.n * shape.c * shape.h * shape.w)
    if in_input:
        n, c, row, col = unflatten(i, shape.c, shape.h, shape.w)
        sum = scalar(0)
        for r in range(shape.r):
            p = output_row(shape, row, r)
            if p < 0:
                continue
            for s in range(shape.s):
                q = output_col(shape, col, s)
                if q < 0:
                    continue
                for k in range(shape.k):
                    sum += dy[y_offset(shape, n, k, p, q)] * w[w_offset(shape, k, c, r, s)]
        dx[uint32(i)] = sum


@cuda.jit
def conv2d_naive_backward_filter(x: Scalars, dy: Scalars, dw: Scalars, shape: Conv2dShape) -> None:
    """One thread an element of dw."""
    i = grid_index()
    in_filters = i < int32(shape.k * shape.c * shape.r * shape.s)
    if in_filters:
        k, c, r, s = unflatten(i, shape.c, shape.r, shape.s)
        sum = scalar(0)
        for n in range(shape.n):
            for p in range(shape.p):
                row = input_row(shape, p, r)
                if not inside(row, shape.h):
                    continue
                for q in range(shape.q):
                    col = input_col(shape, q, s)
                    if not inside(col, shape.w):
                        continue
                    sum += x[x_offset(shape, n, c, row, col)] * dy[y_offset(shape, n, k, p, q)]
        dw[uint32(i)] = sum


@cuda.jit
def conv2d_naive_backward_bias(dy: Scalars, db: Scalars, shape: Conv2dShape) -> None:
    """One thread a filter."""
    k = grid_index()
    in_bias = k < shape.k
    if in_bias:
        sum = scalar(0)
        for n in range(shape.n):
            plane = y_offset(shape, n, k, 0, 0)  # no pointers: a plane is where it begins
            for i in range(int32(shape.p * shape.q)):
                sum += dy[uint32(plane + i)]
        db[uint32(k)] = sum


def forward(x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape) -> None:
    """Write y (N,K,P,Q) from x (N,C,H,W), w (K,C,R,S) and b (K,) or None."""
    _launch("conv2d_naive_forward", shape.output_shape, (x, w, b, y, shape))


def backward_data(dy: Any, w: Any, dx: Any, shape: Conv2dShape) -> None:
    """Write dx (N,C,H,W) from dy (N,K,P,Q) and w (K,C,R,S)."""
    _launch("conv2d_naive_backward_data", shape.input_shape, (dy, w, dx, shape))


def backward_filter(x: Any, dy: Any, dw: Any, shape: Conv2dShape) -> None:
    """Write dw (K,C,R,S) from x (N,C,H,W) and dy (N,K,P,Q)."""
    _launch("conv2d_naive_backward_filter", shape.filter_shape, (x, dy, dw, shape))


def backward_bias(dy: Any, db: Any, shape: Conv2dShape) -> None:
    """Write db (K,) from dy (N,K,P,Q)."""
    _launch("conv2d_naive_backward_bias", (shape.k,), (dy, db, shape))


def _launch(name: str, dims: tuple[int, ...], args: tuple[Any, ...]) -> None:
    grid = (ceil_div(math.prod(dims), THREADS),)
    source.kernel(name, like=args[0])(grid, (THREADS,), args)
