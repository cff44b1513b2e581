"""Hand-written convolution and pooling kernels, run where their arrays live.

>>> import numpy as np, kernels
>>> x, w = np.ones((1, 1, 4, 4), np.float32), np.ones((1, 1, 3, 3), np.float32)
>>> kernels.conv2d(x, w, kernel="reference")[0, 0]
array([[9., 9.],
       [9., 9.]], dtype=float32)
"""

# The folder conv2d/ has the function's name. It is imported first: its import, which puts the
# package at `kernels.conv2d`, must not come after the function has taken that place.
import kernels.conv2d  # noqa: F401
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
from kernels.shapes import Conv2dShape, PoolShape, receptive_field
from kernels.workspace import workspace_limit

__all__ = [
    "Conv2dShape",
    "PoolShape",
    "avg_pool2d",
    "avg_pool2d_backward",
    "conv2d",
    "conv2d_backward_bias",
    "conv2d_backward_data",
    "conv2d_backward_filter",
    "max_pool2d",
    "max_pool2d_backward",
    "receptive_field",
    "workspace_limit",
]
