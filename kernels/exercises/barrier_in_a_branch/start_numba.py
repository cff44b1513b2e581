"""A sum of three neighbours through shared memory in Numba CUDA."""

# y[i] = x[i-1] + x[i] + x[i+1], where x is 0 outside
# x (n), y (n)
# One thread an output, in blocks of 256; a block's inputs are staged with one on either side.
# Against filter_1d: through shared memory, so there is a barrier.
# Limits: none on n.

from __future__ import annotations

from numba import cuda, float32, int32, uint32

from kernels.index_numba import Scalars, scalar

THREADS = 256  # the launch's block
STAGED = THREADS + 2


@cuda.jit
def smooth(x: Scalars, y: Scalars, n: int32) -> None:
    """One thread an element of y."""
    staged = cuda.shared.array(STAGED, float32)
    i = int32(cuda.blockIdx.x * THREADS + cuda.threadIdx.x)
    at = int32(cuda.threadIdx.x + 1)
    if i < n:
        staged[at] = x[uint32(i)]
        if cuda.threadIdx.x == 0:
            staged[0] = x[uint32(i - 1)] if i > 0 else scalar(0)
        is_last = cuda.threadIdx.x == THREADS - 1 or i == n - 1
        if is_last:
            staged[at + 1] = x[uint32(i + 1)] if i + 1 < n else scalar(0)
        cuda.syncthreads()  # a thread reads what its neighbours loaded
        y[uint32(i)] = staged[at - 1] + staged[at] + staged[at + 1]
