"""Convolution, bias, ReLU and max-pooling in one launch, compiled for the layer (`fused.cu`).

The gradients go through the argmax alone (`fused_backward_data.cu`; for the filter's
`fused_backward_registers.cu`, or `fused_backward.cu` where channels are few). A layer with little
work for an image, or one that fits no tile (`fused_plan.py`), takes `fused_general.cu`, which is
compiled once for all of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kernels import cases
from kernels.conv2d_relu_pool import fused_plan
from kernels.shapes import BlockShape
from kernels.source import CudaSource, ceil_div

__all__ = [
    "backward_bias", "backward_data", "backward_filter", "forward", "workspace_bytes",
]  # fmt: skip

THREADS = 256


def _tiles(direction: str) -> list[dict[str, int | str]]:
    """Return the macros of LeNet's layers for small and large batches, and of doubles."""
    first, second = (BlockShape(*cases.LENET[name]) for name in ("block1", "block2"))
    asked = [(first, 2, 4), (first, 8192, 4), (second, 2, 4), (second, 8192, 4), (second, 8192, 8)]
    plans = [fused_plan.make(direction, shape._replace(n=n), size) for shape, n, size in asked]
    found = [plan.defines for plan in plans if plan]
    return [defines for i, defines in enumerate(found) if defines not in found[:i]]


source = CudaSource("conv2d_relu_pool/fused.cu", _tiles("forward"))
filter_source = CudaSource(
    "conv2d_relu_pool/fused_backward.cu",
    [tile for tile in _tiles("backward_filter") if "OWN" not in tile],
)
registers_source = CudaSource(
    "conv2d_relu_pool/fused_backward_registers.cu",
    [tile for tile in _tiles("backward_filter") if "OWN" in tile],
)
data_source = CudaSource("conv2d_relu_pool/fused_backward_data.cu", _tiles("backward_data"))
general_source = CudaSource("conv2d_relu_pool/fused_general.cu", THREADS=THREADS)


def forward(x: Any, w: Any, b: Any, y: Any, argmax: Any, shape: BlockShape) -> None:
    """Write y and argmax (uint8), (N,K,pooled P,pooled Q), from x (N,C,H,W), w (K,C,R,S) and b."""
    _launch(source, "forward", (x, w, b, y, argmax, shape), y.size)


def backward_data(dy: Any, argmax: Any, w: Any, dx: Any, shape: BlockShape) -> None:
    """Write dx (N,C,H,W) from dy and argmax, (N,K,pooled P,pooled Q), and w (K,C,R,S)."""
    _launch(data_source, "backward_data", (dy, argmax, w, dx, shape), dx.size)


def backward_filter(
    x: Any, dy: Any, argmax: Any, dw: Any, shape: BlockShape, workspace: Any = None
) -> None:
    """Write dw (K,C,R,S) from x (N,C,H,W), dy and argmax; the workspace holds the slices."""
    partial = dw if workspace is None else workspace.view(dw.dtype)
    slices = partial.size // dw.size
    _launch_filter(x, dy, argmax, partial.reshape(slices, dw.size), -1, shape)
    _sum_slices(partial, dw, slices)


def backward_parameters(
    x: Any, dy: Any, argmax: Any, partial: Any, bias_at: int, shape: BlockShape
) -> None:
    """Write dw and db in slices of the batch, for whoever adds them up, by one launch.

    Parameters
    ----------
    x, dy, argmax, shape
        As for `backward_filter`.
    partial
        (slices, length), with as many slices as `parameter_slices` says: of each, dw (K,C,R,S) from
        the first element on and db (K,) from `bias_at` on; the others stay as they are.
    """
    _launch_filter(x, dy, argmax, partial, bias_at, shape)


def parameter_slices(shape: BlockShape, itemsize: int) -> int:
    """Return how many slices `backward_parameters` writes; 0 where the layer is not compiled in."""
    plan = fused_plan.make("backward_filter", shape, itemsize)
    return min(ceil_div(fused_plan.WANTED_BLOCKS, plan.tiles), shape.n) if plan else 0


def backward_bias(dy: Any, argmax: Any, db: Any, shape: BlockShape, workspace: Any = None) -> None:
    """Write db (K,) from dy and argmax, (N,K,pooled P,pooled Q); the workspace holds the slices."""
    partial = db if workspace is None else workspace.view(db.dtype)
    slices = partial.size // db.size
    kernel = general_source.kernel("conv2d_relu_pool_general_backward_bias", like=dy)
    kernel((partial.size,), (THREADS,), (dy, argmax, partial, shape, np.int32(slices)))
    _sum_slices(partial, db, slices)


def workspace_bytes(direction: str, shape: BlockShape, itemsize: int, limit: int) -> int:
    """Return the bytes of workspace a pass wants: a partial sum for each slice of the batch.

    One slice needs none; a tight `limit` makes fewer slices, never an error.
    """
    if direction not in ("backward_filter", "backward_bias"):
        return 0
    size, blocks = shape.k, shape.k
    if direction == "backward_filter":
        size = math.prod(shape.filter_shape)
        plan = fused_plan.make(direction, shape, itemsize)
        blocks = plan.tiles if plan else ceil_div(size, THREADS)
    slices = min(ceil_div(fused_plan.WANTED_BLOCKS, blocks), shape.n, limit // (size * itemsize))
    return slices * size * itemsize if slices > 1 else 0


def _launch_filter(
    x: Any, dy: Any, argmax: Any, partial: Any, bias_at: int, shape: BlockShape
) -> None:  # fmt: skip
    plan = fused_plan.make("backward_filter", shape, x.dtype.itemsize)
    slices, pitch = map(np.int32, partial.shape)
    args: tuple[Any, ...] = (x, dy, argmax, partial, shape, slices)
    if plan is None:
        _launch_general("backward_filter", args, partial.size)
        return
    name = "conv2d_relu_pool_fused_backward_filter"
    compiled = registers_source if "OWN" in plan.defines else filter_source
    kernel = compiled.kernel(name, like=x, **plan.defines)
    args = (*args, pitch, np.int32(bias_at))
    kernel((plan.tiles * int(slices),), (plan.threads,), args, shared_mem=plan.shared_bytes)


def _launch_general(direction: str, args: tuple[Any, ...], elements: int) -> None:
    """Launch a thread an element of the output."""
    kernel = general_source.kernel(f"conv2d_relu_pool_general_{direction}", like=args[0])
    kernel((ceil_div(elements, THREADS),), (THREADS,), args)


def _launch(
    compiled: CudaSource, direction: str, args: tuple[Any, ...], elements: int
) -> None:  # fmt: skip
    """Launch a pass as its plan says; without one a thread an element of the output."""
    like = args[0]
    shape = next(arg for arg in args if isinstance(arg, BlockShape))
    plan = fused_plan.make(direction, shape, like.dtype.itemsize)
    if plan is None:
        _launch_general(direction, args, elements)
        return
    kernel = compiled.kernel(f"conv2d_relu_pool_fused_{direction}", like=like, **plan.defines)
    blocks = plan.tiles * ceil_div(shape.n, plan.images)
    kernel((blocks,), (plan.threads,), args, shared_mem=plan.shared_bytes)


def _sum_slices(partial: Any, total: Any, slices: int) -> None:
    if slices > 1:
        kernel = general_source.kernel("conv2d_relu_pool_sum_slices", like=total)
        size = (np.int32(total.size), np.int32(slices))
        kernel((ceil_div(total.size, 32),), (THREADS,), (partial, total, *size))
