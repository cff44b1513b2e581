"""A one-dimensional filter in Numba CUDA: one thread an output."""

# y[i] = sum_s x[i+s] w[s]
# x (n + taps - 1), w (taps), y (n)
# One thread an output, in blocks of 256: the last block may have more threads than outputs.
# Against relu: a sum over neighbours, and n is whatever it is.
# Limits: none on n and taps.

from __future__ import annotations

from numba import cuda, int32, uint32

from kernels.index_numba import Scalars, grid_index, scalar


@cuda.jit
def filter_1d(x: Scalars, w: Scalars, y: Scalars, n: int32, taps: int32) -> None:
    """One thread an element of y."""
    i = grid_index()
    sum = scalar(0)
    for s in range(taps):
        sum += x[uint32(i + s)] * w[uint32(s)]
    y[uint32(i)] = sum
