"""Average pooling: one thread a window, a gather backward (`avg.cu`)."""

from __future__ import annotations

import math
from typing import Any

from kernels.shapes import PoolShape
from kernels.source import CudaSource, ceil_div

THREADS = 256
source = CudaSource("pool2d/avg.cu")


def forward(x: Any, y: Any, shape: PoolShape) -> None:
    """Write y (N,C,P,Q) from x (N,C,H,W)."""
    grid = (ceil_div(math.prod(shape.output_shape), THREADS),)
    source.kernel("avg_pool2d_forward", like=x)(grid, (THREADS,), (x, y, shape))


def backward(dy: Any, dx: Any, shape: PoolShape) -> None:
    """Write dx (N,C,H,W) from dy (N,C,P,Q)."""
    grid = (ceil_div(math.prod(shape.input_shape), THREADS),)
    source.kernel("avg_pool2d_backward", like=dy)(grid, (THREADS,), (dy, dx, shape))
