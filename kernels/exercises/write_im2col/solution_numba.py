"""im2col in Numba CUDA: one thread an element of the columns."""

# columns[(c,r,s),(n,p,q)] = x[n,c,h,w], 0 where that is padding; h = input_row(shape, p, r)
# x (N,C,H,W), columns (C*R*S, N*P*Q)
# One thread an element of columns, the last dimension fastest, in blocks of 256.
# A convolution becomes the matrix product of the filters (K, C*R*S) and these columns.
# Limits: any stride, padding and dilation; shape says which.

from __future__ import annotations

from numba import cuda, int32, uint32

from kernels.index_numba import (
    Scalars,
    grid_index,
    input_col,
    input_row,
    inside,
    quotient,
    remainder,
    scalar,
    unflatten,
    x_offset,
)
from kernels.shapes import Conv2dShape


@cuda.jit
def im2col(x: Scalars, columns: Scalars, shape: Conv2dShape) -> None:
    """One thread an element of columns."""
    i = grid_index()
    in_columns = i < int32(shape.c * shape.r * shape.s * shape.n * shape.p * shape.q)
    if in_columns:
        outputs = int32(shape.n * shape.p * shape.q)
        _, c, r, s = unflatten(quotient(i, outputs), shape.c, shape.r, shape.s)
        _, n, p, q = unflatten(remainder(i, outputs), shape.n, shape.p, shape.q)
        row = input_row(shape, p, r)
        col = input_col(shape, q, s)
        in_image = inside(row, shape.h) and inside(col, shape.w)
        columns[uint32(i)] = x[x_offset(shape, n, c, row, col)] if in_image else scalar(0)
