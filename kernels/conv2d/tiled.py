"""Tiled convolution through shared memory (`tiled.cu`, filter gradient `tiled_filter.cu`)."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from kernels import tuned
from kernels.conv2d.bias import backward_bias
from kernels.shapes import Conv2dShape
from kernels.source import CudaSource, ceil_div

__all__ = [
    "backward_bias", "backward_data", "backward_filter", "forward", "tiles", "workspace_bytes",
]  # fmt: skip

# Tiles of outputs, tried in turn: a whole warp along q first; smaller ones where a large stride
# makes the halo outgrow shared memory. The last fits always.
TILES = ((8, 32), (16, 16), (4, 8), (1, 1))
# What `tiles` offers beside them: a warp at least, and two blocks on any multiprocessor.
LEAST_THREADS, MOST_THREADS = 32, 512
# Half of the 48 KiB that every GPU gives a block, so that two blocks fit a multiprocessor.
HALO_BYTES = 24 << 10
# Threads of the filter gradient, which splits them as taps x shares.
THREADS = 256
# Enough blocks for the largest GPU: where K*C gives fewer, the batch is cut into slices.
WANTED_BLOCKS = 1024

TILE_MACROS = [{"TILE_P": tile_p, "TILE_Q": tile_q} for tile_p, tile_q in TILES]
source = CudaSource("conv2d/tiled.cu", TILE_MACROS)
filter_source = CudaSource("conv2d/tiled_filter.cu", TILE_MACROS, THREADS=THREADS)


class Plan(NamedTuple):
    """How a pass is cut up: a block's tile, the taps at a time, the elements of its halo."""

    tile_p: int
    tile_q: int
    taps_r: int
    taps_s: int
    halo: int

    @property
    def defines(self) -> dict[str, int]:
        """The macros of the .cu files."""
        return {"TILE_P": self.tile_p, "TILE_Q": self.tile_q}

    @property
    def taps(self) -> tuple[np.int32, np.int32]:
        """Filter rows and columns at a time, as kernel arguments."""
        return np.int32(self.taps_r), np.int32(self.taps_s)


def forward(x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape) -> None:
    """Write y (N,K,P,Q) from x (N,C,H,W), w (K,C,R,S) and b (K,) or None."""
    launch(source, "forward", (x, w, b, y, shape), y.shape)


def backward_data(dy: Any, w: Any, dx: Any, shape: Conv2dShape) -> None:
    """Write dx (N,C,H,W) from dy (N,K,P,Q) and w (K,C,R,S)."""
    launch(source, "backward_data", (dy, w, dx, shape), dx.shape)


def backward_filter(x: Any, dy: Any, dw: Any, shape: Conv2dShape, workspace: Any = None) -> None:
    """Write dw (K,C,R,S) from x (N,C,H,W) and dy (N,K,P,Q); the workspace holds the slices."""
    launch_filter(filter_source, x, dy, dw, shape, workspace)


def workspace_bytes(direction: str, shape: Conv2dShape, itemsize: int, limit: int) -> int:
    """Return the bytes of workspace a pass wants: a partial dw for each slice of the batch.

    One slice needs none; a tight `limit` makes fewer slices, never an error.
    """
    if direction != "backward_filter":
        return 0
    blocks = _filter_blocks(shape, make_plan(direction, shape, itemsize))
    filter_bytes = math.prod(shape.filter_shape) * itemsize
    slices = min(ceil_div(WANTED_BLOCKS, blocks), shape.n, limit // filter_bytes)
    return slices * filter_bytes if slices > 1 else 0


def tiles(direction: str, shape: Conv2dShape, itemsize: int) -> list[dict[str, int]]:
    """Return the tiles that a pass may have, the usual one first."""
    if direction == "backward_bias":
        return []
    usual = make_plan(direction, shape, itemsize)
    sizes = itertools.product((1, 2, 4, 8, 16, 32), (4, 8, 16, 32, 64))
    some = [size for size in sizes if LEAST_THREADS <= math.prod(size) <= MOST_THREADS]
    plans = [make_plan(direction, shape, itemsize, size) for size in some]
    fit = [plan for plan, size in zip(plans, some, strict=True) if plan[:2] == size]
    return [usual.defines, *(plan.defines for plan in fit if plan != usual)]


@functools.lru_cache(maxsize=1024)
def make_plan(
    direction: str, shape: Conv2dShape, itemsize: int, size: tuple[int, int] | None = None
) -> Plan:
    """Choose the first tile whose halo for at least one row of the filter fits shared memory.

    Parameters
    ----------
    direction
        ``"forward"``, ``"backward_data"`` or ``"backward_filter"``.
    shape
        The convolution's.
    itemsize
        Bytes an element.
    size
        A tile to take instead, where it fits.
    """
    room = HALO_BYTES // itemsize
    most_taps = THREADS if direction == "backward_filter" else shape.r * shape.s

    def halo(tile: tuple[int, int], taps: tuple[int, int]) -> int:
        elements = 1
        for axis in (0, 1):
            reach, stride = (taps[axis] - 1) * shape.dilation[axis], shape.stride[axis]
            if direction == "backward_data":
                elements *= (tile[axis] - 1 + reach) // stride + 1
            else:
                elements *= (tile[axis] - 1) * stride + reach + 1
        return elements

    def fits(tile: tuple[int, int], taps: tuple[int, int]) -> bool:
        return math.prod(taps) <= most_taps and halo(tile, taps) <= room

    # A narrow plane would leave half of a 32-wide tile idle.
    width = shape.w if direction == "backward_data" else shape.q
    usual = TILES if width > 16 else TILES[1:]
    for tile in usual if size is None else (size,):
        for taps_r in range(shape.r, 0, -1):
            taps = taps_r, shape.s
            if fits(tile, taps):
                return Plan(*tile, *taps, halo(tile, taps))
    # Not even one row of the filter: cut the row as well.
    tile = TILES[-1]
    taps = next((1, s) for s in range(shape.s, 0, -1) if fits(tile, (1, s)))
    return Plan(*tile, *taps, halo(tile, taps))


def _tuned_plan(kernels: Any, direction: str, shape: Conv2dShape, like: Any) -> Plan:
    """Return the plan of the searched tile, where there is one and the kernels are `source`'s."""
    size = None
    if kernels in (source, filter_source) and (
        tile := tuned.tile("conv2d", "tiled", direction, shape, like)
    ):
        size = tile["TILE_P"], tile["TILE_Q"]
    return make_plan(direction, shape, like.dtype.itemsize, size)


def _filter_blocks(shape: Conv2dShape, plan: Plan) -> int:
    chunks = ceil_div(shape.r, plan.taps_r) * ceil_div(shape.s, plan.taps_s)
    return shape.k * shape.c * chunks


def launch(
    kernels: Any, direction: str, args: tuple[Any, ...], output_dims: tuple[int, ...]
) -> None:
    """Run one pass by the kernels of `kernels`: `source`, or the same in another language."""
    like, shape = args[0], args[-1]
    plan = _tuned_plan(kernels, direction, shape, like)
    images, planes, rows, cols = output_dims
    in_a_plane = ceil_div(rows, plan.tile_p) * ceil_div(cols, plan.tile_q)
    kernel = kernels.kernel(f"conv2d_tiled_{direction}", like=like, **plan.defines)
    kernel(
        (images * planes * in_a_plane,),
        (plan.tile_q, plan.tile_p),
        (*args, *plan.taps),
        shared_mem=plan.halo * like.dtype.itemsize,
    )


def launch_filter(
    kernels: Any, x: Any, dy: Any, dw: Any, shape: Conv2dShape, workspace: Any
) -> None:
    """Run the filter gradient by the kernels of `kernels`, as `launch`."""
    plan = _tuned_plan(kernels, "backward_filter", shape, x)
    partial = dw if workspace is None else workspace.view(dw.dtype)
    slices = partial.size // dw.size
    launcher = kernels.kernel("conv2d_tiled_backward_filter", like=x, **plan.defines)
    launcher(
        (_filter_blocks(shape, plan) * slices,),
        (THREADS,),
        (x, dy, partial, shape, *plan.taps, np.int32(slices)),
        shared_mem=plan.halo * x.dtype.itemsize,
    )
    if slices > 1:
        add_up = kernels.kernel("conv2d_tiled_sum_slices", like=x, **plan.defines)
        add_up((ceil_div(dw.size, THREADS),), (THREADS,), (partial, dw, shape, np.int32(slices)))
