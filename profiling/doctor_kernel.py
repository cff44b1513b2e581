"""The kernel that shows that CUDA C runs: it turns every block of 64 floats round."""

from __future__ import annotations

from typing import Any

import numpy as np

NAME = "reverse_blocks"
BLOCKS, THREADS = 4, 64
SOURCE = f"""
extern "C" __global__ void {NAME}(const float* x, float* y) {{
    __shared__ float tile[{THREADS}];
    int at = blockIdx.x * {THREADS} + threadIdx.x;
    tile[threadIdx.x] = x[at];
    __syncthreads();  // the element read below is another thread's
    y[at] = tile[{THREADS - 1} - threadIdx.x];
}}
"""


def launch(function: Any, xp: Any) -> bool:
    """Launch the kernel on arrays of `xp`, numpy or cupy; tell whether the answer is right."""
    host = np.arange(BLOCKS * THREADS, dtype=np.float32)
    x, y = xp.asarray(host), xp.zeros(host.shape, np.float32)
    function((BLOCKS,), (THREADS,), (x, y))
    got = y if xp is np else y.get()
    return np.array_equal(got, host.reshape(BLOCKS, THREADS)[:, ::-1].ravel())
