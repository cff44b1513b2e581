"""The gradient to a convolution's bias in Numba CUDA: a block a plane."""

# db[k] += sum_{n,i} dy[n,k,i]
# dy (images, filters, plane), db (filters), which holds 0 before
# A block of 256 threads a plane: block (k, n) has filter k of image n.
# The block adds up in shared memory, by halves; its first thread alone adds to global memory.
# Limits: none on the extents.

from __future__ import annotations

from numba import cuda, float32, int32, uint32

from kernels.index_numba import Scalars, scalar

THREADS = 256  # the launch's block, a power of 2: it is halved


@cuda.jit
def bias_gradient(dy: Scalars, db: Scalars, filters: int32, plane: int32) -> None:
    """One block a plane of dy."""
    shares = cuda.shared.array(THREADS, float32)
    thread = int32(cuda.threadIdx.x)
    k = int32(cuda.blockIdx.x)
    first = int32((cuda.blockIdx.y * filters + k) * plane)
    sum = scalar(0)
    for i in range(thread, plane, THREADS):
        sum += dy[uint32(first + i)]
    shares[thread] = sum
    half = int32(THREADS >> 1)
    while half > 0:
        cuda.syncthreads()  # the shares of the round before are there
        if thread < half:
            shares[thread] += shares[thread + half]
        half = int32(half >> 1)
    if thread == 0:
        cuda.atomic.add(db, uint32(k), shares[0])
