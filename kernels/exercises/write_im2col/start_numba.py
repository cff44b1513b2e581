"""im2col in Numba CUDA: one thread an element of the columns."""

# columns[(c,r,s),(n,p,q)] = x[n,c,h,w], 0 where that is padding; h = input_row(shape, p, r)
# x (N,C,H,W), columns (C*R*S, N*P*Q)
# One thread an element of columns, the last dimension fastest, in blocks of 256.
# A convolution becomes the matrix product of the filters (K, C*R*S) and these columns.
# Limits: any stride, padding and dilation; shape says which.

from __future__ import annotations

from numba import cuda, int32

from kernels.index_numba import Scalars, grid_index
from kernels.shapes import Conv2dShape


@cuda.jit
def im2col(x: Scalars, columns: Scalars, shape: Conv2dShape) -> None:
    """One thread an element of columns."""
    i = grid_index()
    in_columns = i < int32(shape.c * shape.r * shape.s * shape.n * shape.p * shape.q)
    if in_columns:
        pass  # Yours: take i apart, find the element of x, or 0, and store it.
