"""A bias added to every row, in Numba CUDA: one thread an element."""

# y[row,col] = x[row,col] + b[row]
# x (rows, cols), b (rows), y (rows, cols)
# One thread an element, in blocks of 256.
# Against the exercises before: a flat index that is taken apart into row and column.
# Limits: none on the extents.

from __future__ import annotations

from numba import cuda, int32, uint32

from kernels.index_numba import Scalars, grid_index, quotient, remainder


@cuda.jit
def add_bias(x: Scalars, b: Scalars, y: Scalars, rows: int32, cols: int32) -> None:
    """One thread an element of y."""
    i = grid_index()
    in_output = i < int32(rows * cols)
    if in_output:
        row = quotient(i, cols)
        col = remainder(i, cols)
        at = uint32(row * cols + col)
        y[at] = x[at] + b[uint32(row)]
