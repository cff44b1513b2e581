"""ReLU in Numba CUDA: one thread an element."""

# y[i] = max(x[i], 0)
# x (n), y (n)
# One thread an element; the launch has n / 256 blocks of 256 threads, and n is a multiple of 256.
# The first kernel of all: what a thread does follows from its index, and from nothing else.
# Limits: n a multiple of the block.

from __future__ import annotations

from numba import cuda, int32, uint32

from kernels.index_numba import Scalars, scalar


@cuda.jit
def relu(x: Scalars, y: Scalars, n: int32) -> None:
    """One thread an element of y."""
    i = int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)
    y[uint32(i)] = max(x[uint32(i)], scalar(0))
