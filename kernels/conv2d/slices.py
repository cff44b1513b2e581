"""A filter gradient in slices of the batch, summed without atomics (`slices.cu`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels.shapes import Conv2dShape
from kernels.source import CudaSource, ceil_div

THREADS_Y = 8
slices_source = CudaSource("conv2d/slices.cu", THREADS_Y=THREADS_Y)


def slices_bytes(wanted: int, shape: Conv2dShape, itemsize: int, limit: int) -> int:
    """Return the workspace for `wanted` partial dw, or as many as `limit` holds; one needs none."""
    filter_bytes = math.prod(shape.filter_shape) * itemsize
    slices = min(wanted, limit // filter_bytes)
    return slices * filter_bytes if slices > 1 else 0


def sum_slices(partial: Any, dw: Any, shape: Conv2dShape) -> None:
    """Write dw (K,C,R,S), the sum of the slices in `partial`, unless `partial` is dw itself."""
    slices = partial.size // dw.size
    if slices > 1:
        slices_source.kernel("conv2d_sum_slices", like=dw)(
            (ceil_div(dw.size, 32),), (32, THREADS_Y), (partial, dw, shape, np.int32(slices))
        )
