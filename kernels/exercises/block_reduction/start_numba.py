"""The gradient to a convolution's bias in Numba CUDA: a block a plane."""

# db[k] += sum_{n,i} dy[n,k,i]
# dy (images, filters, plane), db (filters), which holds 0 before
# A block of 256 threads a plane: block (k, n) has filter k of image n.
# The gradient to a convolution's bias; blocks of several images add to the same db[k].
# Limits: none on the extents.

from __future__ import annotations

from numba import cuda, int32, uint32

from kernels.index_numba import Scalars


@cuda.jit
def bias_gradient(dy: Scalars, db: Scalars, filters: int32, plane: int32) -> None:
    """One block a plane of dy."""
    k = int32(cuda.blockIdx.x)
    first = int32((cuda.blockIdx.y * filters + k) * plane)
    for i in range(int32(cuda.threadIdx.x), plane, int32(cuda.blockDim.x)):
        cuda.atomic.add(db, uint32(k), dy[uint32(first + i)])
