"""The bias gradient by a block-wide reduction (`bias.cu`), for techniques without their own."""

from __future__ import annotations

from typing import Any

from kernels.shapes import Conv2dShape
from kernels.source import CudaSource

THREADS = 256
source = CudaSource("conv2d/bias.cu", THREADS=THREADS)


def backward_bias(dy: Any, db: Any, shape: Conv2dShape) -> None:
    """Write db (K,) from dy (N,K,P,Q)."""
    source.kernel("conv2d_bias_backward", like=dy)((shape.k,), (THREADS,), (dy, db, shape))
