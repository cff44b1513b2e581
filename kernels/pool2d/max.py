"""Max-pooling: one thread a window, a gather backward (`max.cu`)."""

from __future__ import annotations

import math
from typing import Any

from kernels.shapes import PoolShape
from kernels.source import CudaSource, ceil_div

THREADS = 256
source = CudaSource("pool2d/max.cu")


def forward(x: Any, y: Any, argmax: Any, shape: PoolShape) -> None:
    """Write y and argmax (int32), (N,C,P,Q), from x (N,C,H,W)."""
    grid = (ceil_div(math.prod(shape.output_shape), THREADS),)
    source.kernel("max_pool2d_forward", like=x)(grid, (THREADS,), (x, y, argmax, shape))


def backward(dy: Any, argmax: Any, dx: Any, shape: PoolShape) -> None:
    """Write dx (N,C,H,W) from dy and argmax, (N,C,P,Q)."""
    grid = (ceil_div(math.prod(shape.input_shape), THREADS),)
    source.kernel("max_pool2d_backward", like=dy)(grid, (THREADS,), (dy, argmax, dx, shape))
