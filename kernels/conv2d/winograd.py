"""Winograd's F(2x2, 3x3) for 3x3 filters (`winograd.cu`, filter gradient `winograd_filter.cu`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import workspace as workspaces
from kernels.conv2d.bias import backward_bias
from kernels.conv2d.slices import slices_bytes, slices_source, sum_slices
from kernels.shapes import Conv2dShape
from kernels.source import CudaSource, ceil_div

__all__ = [
    "backward_bias",
    "backward_data",
    "backward_filter",
    "filter_source",
    "forward",
    "least_flops",
    "refuses",
    "slices_source",
    "source",
    "workspace_bytes",
]

# As in winograd.cuh.
POINTS = 16
SIDE = 32
THREADS = 256
STEP_BYTES = 8 * 4  # of a factor in shared memory at a time
EXCHANGED_BYTES = 16 * 4  # of a lane's filters that are exchanged at a time
# Enough blocks for the largest GPU: where K*C gives fewer, the batch is cut into slices.
WANTED_BLOCKS = 264

source = CudaSource("conv2d/winograd.cu")
filter_source = CudaSource("conv2d/winograd_filter.cu")


def forward(x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape, workspace: Any) -> None:
    """Write y (N,K,P,Q) from x (N,C,H,W), w (K,C,3,3) and b (K,) or None."""
    _correlate(x, w, b, y, shape, (shape.c * 9, 9, 0), workspace)


def backward_data(dy: Any, w: Any, dx: Any, shape: Conv2dShape, workspace: Any) -> None:
    """Write dx (N,C,H,W) from dy (N,K,P,Q) and w (K,C,3,3): dy with the filters turned round."""
    correlation = Conv2dShape(
        shape.n, shape.k, shape.p, shape.q, shape.c, 3, 3, shape.h, shape.w, 1, 1,
        2 - shape.pad_top, 2 - shape.pad_bottom, 2 - shape.pad_left, 2 - shape.pad_right, 1, 1,
    )  # fmt: skip
    _correlate(dy, w, None, dx, correlation, (9, shape.c * 9, 1), workspace)


def backward_filter(x: Any, dy: Any, dw: Any, shape: Conv2dShape, workspace: Any = None) -> None:
    """Write dw (K,C,3,3) from x (N,C,H,W) and dy (N,K,P,Q); the workspace holds the slices."""
    partial = dw if workspace is None else workspace.view(dw.dtype)
    slices = partial.size // dw.size
    blocks = ceil_div(shape.k, SIDE) * ceil_div(shape.c, SIDE) * slices
    filter_source.kernel("conv2d_winograd_backward_filter", like=x)(
        (blocks,),
        (THREADS,),
        (x, dy, partial, shape, np.int32(slices)),
        shared_mem=_shared_bytes(x.dtype.itemsize, pad=4),
    )
    sum_slices(partial, dw, shape)


def refuses(direction: str, shape: Conv2dShape, dtype: str) -> str:
    """Return why a pass does not take a shape, or nothing."""
    del dtype
    filters = shape.r, shape.s
    if direction == "backward_bias" or (filters, shape.stride, shape.dilation) == _TAKEN:
        return ""
    return (
        f"takes 3x3 filters with stride 1 and dilation 1 only, but this is {shape.r}x{shape.s} "
        f"with stride {shape.stride} and dilation {shape.dilation}"
    )


_TAKEN = (3, 3), (1, 1), (1, 1)


def workspace_bytes(direction: str, shape: Conv2dShape, itemsize: int, limit: int) -> int:
    """Return the bytes of workspace a pass wants: transformed filters, or the slices of dw.

    Raises
    ------
    ValueError
        When the filters do not fit `limit`.
    """
    if direction == "backward_bias":
        return 0
    if direction == "backward_filter":
        blocks = ceil_div(shape.k, SIDE) * ceil_div(shape.c, SIDE)
        steps = ceil_div(_tiles(shape), STEP_BYTES // itemsize)
        return slices_bytes(min(ceil_div(WANTED_BLOCKS, blocks), steps), shape, itemsize, limit)
    filters, channels = (shape.k, shape.c) if direction == "forward" else (shape.c, shape.k)
    needed = ceil_div(filters, SIDE) * SIDE * channels * POINTS * itemsize
    if needed > limit:
        raise workspaces.refuse("conv2d", "winograd", needed, "its transformed filters")
    return needed


def least_flops(direction: str, shape: Conv2dShape) -> int:
    """Return the operations of the 16 products of every tile, filter and channel alone."""
    outputs = shape.h * shape.w if direction == "backward_data" else shape.p * shape.q
    return 2 * POINTS * ceil_div(shape.n * outputs, 4) * shape.k * shape.c


def _correlate(
    x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape, where: tuple[int, int, int], workspace: Any
) -> None:
    points = workspace.view(x.dtype)
    filter_blocks = ceil_div(shape.k, SIDE)
    source.kernel("conv2d_winograd_filters", like=x)(
        (ceil_div(filter_blocks * SIDE * shape.c, THREADS),),
        (THREADS,),
        (w, points, shape, *map(np.int32, where)),
    )
    source.kernel("conv2d_winograd", like=x)(
        (ceil_div(_tiles(shape), SIDE) * filter_blocks,),
        (THREADS,),
        (x, points, b, y, shape),
        shared_mem=_shared_bytes(x.dtype.itemsize),
    )


def _tiles(shape: Conv2dShape) -> int:
    return shape.n * ceil_div(shape.p, 2) * ceil_div(shape.q, 2)


def _shared_bytes(itemsize: int, pad: int = 0) -> int:
    """Return the dynamic shared memory of a block: both factors, or the sums on their way out."""
    factors = 2 * STEP_BYTES * (POINTS * SIDE + pad)
    return max(factors, POINTS * EXCHANGED_BYTES // itemsize * (SIDE + 4) * itemsize)
