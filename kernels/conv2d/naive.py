"""Naive direct convolution: one thread an output element (`naive.cu`)."""

from __future__ import annotations

import math
from typing import Any

from kernels.shapes import Conv2dShape
from kernels.source import CudaSource, ceil_div

THREADS = 256
source = CudaSource("conv2d/naive.cu")


def forward(x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape) -> None:
    """Write y (N,K,P,Q) from x (N,C,H,W), w (K,C,R,S) and b (K,) or None."""
    _launch("conv2d_naive_forward", shape.output_shape, (x, w, b, y, shape))


def backward_data(dy: Any, w: Any, dx: Any, shape: Conv2dShape) -> None:
    """Write dx (N,C,H,W) from dy (N,K,P,Q) and w (K,C,R,S)."""
    _launch("conv2d_naive_backward_data", shape.input_shape, (dy, w, dx, shape))


def backward_filter(x: Any, dy: Any, dw: Any, shape: Conv2dShape) -> None:
    """Write dw (K,C,R,S) from x (N,C,H,W) and dy (N,K,P,Q)."""
    _launch("conv2d_naive_backward_filter", shape.filter_shape, (x, dy, dw, shape))


def backward_bias(dy: Any, db: Any, shape: Conv2dShape) -> None:
    """Write db (K,) from dy (N,K,P,Q)."""
    _launch("conv2d_naive_backward_bias", (shape.k,), (dy, db, shape))


def _launch(name: str, dims: tuple[int, ...], args: tuple[Any, ...]) -> None:
    grid = (ceil_div(math.prod(dims), THREADS),)
    source.kernel(name, like=args[0])(grid, (THREADS,), args)
