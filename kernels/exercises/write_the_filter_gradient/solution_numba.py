"""A convolution's gradient to its filters in Numba CUDA: one thread an element of dw."""

# dw[k,c,r,s] = sum_{n,p,q} dy[n,k,p,q] x[n,c,h,w], h = input_row(shape, p, r), w alike
# x (N,C,H,W), dy (N,K,P,Q), dw (K,C,R,S)
# One thread an element of dw, in blocks of 32.
# What a filter's tap has to learn: each output's gradient times what the tap saw there.
# Limits: any stride, padding and dilation; shape says which.

from __future__ import annotations

from numba import cuda, int32, uint32

from kernels.index_numba import (
    Scalars,
    grid_index,
    input_col,
    input_row,
    inside,
    scalar,
    unflatten,
    x_offset,
    y_offset,
)
from kernels.shapes import Conv2dShape


@cuda.jit
def filter_gradient(x: Scalars, dy: Scalars, dw: Scalars, shape: Conv2dShape) -> None:
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
