"""The bias gradient by a block-wide reduction in Numba CUDA, as `bias.cu`."""

# db[k] = sum_{n,p,q} dy[n,k,p,q]
# dy (N,K,P,Q), db (K)
# One block a filter; thread t takes every THREADS-th element of the filter's N*P*Q.
# Two-level reduction: 32 lanes of a warp, then the warps' sums, both through shared memory: Numba's
# simulator has none of bias.cu's shuffles. One order of sums, no atomics: the same bits every time.

from __future__ import annotations

from typing import Any

from numba import cuda, int32, uint32

from kernels.index_numba import Scalars, quotient, remainder, scalar, y_offset
from kernels.numba_cuda import NumbaSource
from kernels.shapes import Conv2dShape

THREADS = 256
source = NumbaSource(__name__, launch_bounds={"conv2d_bias_backward": THREADS})


@cuda.jit
def conv2d_bias_backward(dy: Scalars, db: Scalars, shape: Conv2dShape) -> None:
    """One block a filter."""
    sums = cuda.shared.array(THREADS, scalar)
    k = int32(cuda.blockIdx.x)
    thread = int32(cuda.threadIdx.x)
    plane = int32(shape.p * shape.q)

    sum = scalar(0)
    for n in range(shape.n):
        values = y_offset(shape, n, k, 0, 0)
        for i in range(thread, plane, int32(THREADS)):
            sum += dy[uint32(values + i)]

    sums[uint32(thread)] = sum
    cuda.syncthreads()  # a warp's first lane reads the other lanes' sums
    warp, lane = quotient(thread, 32), remainder(thread, 32)
    if lane == 0:
        for other in range(int32(1), int32(32)):
            sum += sums[uint32(warp * 32 + other)]
        sums[uint32(thread)] = sum
    cuda.syncthreads()  # thread 0 reads every warp's sum
    if thread == 0:
        for warp in range(int32(1), int32(THREADS // 32)):
            sum += sums[uint32(warp * 32)]
        db[uint32(k)] = sum


def backward_bias(dy: Any, db: Any, shape: Conv2dShape) -> None:
    """Write db (K,) from dy (N,K,P,Q)."""
    source.kernel("conv2d_bias_backward", like=dy)((shape.k,), (THREADS,), (dy, db, shape))
