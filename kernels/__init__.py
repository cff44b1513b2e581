"""Hand-written convolution and pooling kernels, run where their arrays live.

>>> import numpy as np, kernels
>>> x, w = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
>>> kernels.conv2d(x, w, kernel="reference")[0, 0]
array([[9., 9.],
       [9., 9.]], dtype=float32)
"""

import os
import sys

# The folders conv2d/ and conv2d_relu_pool/ have the functions' names. They are imported first: an
# import, which puts the package at `kernels.conv2d`, must not come after the function has taken
# that place.
import kernels.conv2d
import kernels.conv2d_relu_pool  # noqa: F401
from kernels.block_operations import (
    conv2d_relu_pool,
    conv2d_relu_pool_backward_bias,
    conv2d_relu_pool_backward_data,
    conv2d_relu_pool_backward_filter,
)
from kernels.operations import (
    avg_pool2d,
    avg_pool2d_backward,
    conv2d,
    conv2d_backward_bias,
    conv2d_backward_data,
    conv2d_backward_filter,
    max_pool2d,
    max_pool2d_backward,
)
from kernels.precision import reduced_precision
from kernels.shapes import BlockShape, Conv2dShape, PoolShape, receptive_field
from kernels.workspace import workspace_limit

__all__ = [
    "BlockShape",
    "Conv2dShape",
    "PoolShape",
    "avg_pool2d",
    "avg_pool2d_backward",
    "conv2d",
    "conv2d_backward_bias",
    "conv2d_backward_data",
    "conv2d_backward_filter",
    "conv2d_relu_pool",
    "conv2d_relu_pool_backward_bias",
    "conv2d_relu_pool_backward_data",
    "conv2d_relu_pool_backward_filter",
    "max_pool2d",
    "max_pool2d_backward",
    "receptive_field",
    "reduced_precision",
    "workspace_limit",
]


def _heed_omp_num_threads() -> None:
    """Give Numba, which only asks for its own variable, as many threads as OpenMP programs get."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if "numba" in sys.modules or not given.isdecimal() or not int(given):
        return  # it has been asked for already
    threads = min(int(given), len(os.sched_getaffinity(0)))
    os.environ.setdefault("NUMBA_NUM_THREADS", str(threads))


_heed_omp_num_threads()
