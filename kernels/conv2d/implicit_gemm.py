"""Convolution as a matrix product whose columns are never stored (`implicit_gemm.cu`).

Filter gradient: `implicit_gemm_filter.cu`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kernels import checks, workspace
from kernels.conv2d.bias import backward_bias
from kernels.conv2d.slices import slices_bytes, slices_source, sum_slices
from kernels.shapes import Conv2dShape
from kernels.source import CudaSource, ceil_div

__all__ = [
    "backward_bias", "backward_data", "backward_filter", "forward", "slices_source",
    "workspace_bytes",
]  # fmt: skip

TILE_K = 8
TAP_BYTES = 16
PACK_THREADS = 256
# Two for each multiprocessor of the largest GPU: where there are less than half as many, a smaller
# tile; the filter gradient makes slices of the batch.
WANTED_BLOCKS = 264


class Tile(NamedTuple):
    """A block's warps, side by side along gemm_n; a thread's runs of rows."""

    warps: int
    runs_m: int

    @property
    def defines(self) -> dict[str, int]:
        """The macros of the .cu files."""
        return {"WARPS": self.warps, "RUNS_M": self.runs_m}

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps

    def extent(self, itemsize: int) -> tuple[int, int]:
        """Return the rows and columns of a block's part of the product."""
        return 64 // itemsize * self.runs_m, 256 // itemsize * self.warps


# In float32 64x256 and, for small products, 32x64.
TILES = (Tile(4, 4), Tile(1, 2))
TILE_MACROS = [tile.defines for tile in TILES]
source = CudaSource("conv2d/implicit_gemm.cu", TILE_MACROS)
filter_source = CudaSource("conv2d/implicit_gemm_filter.cu", TILE_MACROS)


class Plan(NamedTuple):
    """A pass as a matrix product: its tile, and blocks down gemm_m and along gemm_n.

    `rows` of packed filters, each `pitch` long, are its left side (not in the filter gradient);
    `phases` such products are independent of each other.
    """

    tile: Any
    blocks_m: int
    blocks_n: int
    pitch: int
    rows: int
    phases: int

    @property
    def blocks(self) -> int:
        """Blocks of a phase."""
        return self.blocks_m * self.blocks_n


class Product(NamedTuple):
    """The matrix products that a pass is: `phases` of them, each gemm_m x gemm_n at most."""

    gemm_m: int
    gemm_n: int
    phases: int

    def plan(self, tile: Any, itemsize: int, rows: int) -> Plan:
        """Cut it up into tiles."""
        tile_m, tile_n = tile.extent(itemsize)
        blocks_m, blocks_n = ceil_div(self.gemm_m, tile_m), ceil_div(self.gemm_n, tile_n)
        return Plan(tile, blocks_m, blocks_n, blocks_m * tile_m, rows, self.phases)


def product_of(direction: str, shape: Conv2dShape) -> Product:
    """Return what ``"forward"``, ``"backward_data"`` or ``"backward_filter"`` multiplies."""
    if direction == "forward":
        return Product(shape.k, shape.n * shape.p * shape.q, 1)
    if direction == "backward_filter":
        return Product(shape.k, shape.c * shape.r * shape.s, 1)
    # Rows and columns of the input that leave the same remainder by the stride.
    steps = min(shape.stride_h, shape.h), min(shape.stride_w, shape.w)
    rows, cols = ceil_div(shape.h, steps[0]), ceil_div(shape.w, steps[1])
    return Product(shape.c, shape.n * rows * cols, math.prod(steps))


def make_plan(direction: str, shape: Conv2dShape, itemsize: int) -> Plan:
    """Return how a pass is cut up: the largest half-full tile that gives enough blocks."""
    rows = {
        "forward": _whole_tiles(shape.c * shape.r * shape.s),
        "backward_data": shape.r * shape.s * _whole_tiles(shape.k),
        "backward_filter": 0,
    }
    product = product_of(direction, shape)
    slices = shape.n if direction == "backward_filter" else 1
    for tile in TILES:
        plan = product.plan(tile, itemsize, rows[direction])
        sums = plan.blocks * math.prod(tile.extent(itemsize))
        is_full = 2 * product.gemm_m * product.gemm_n > sums
        if is_full and 2 * plan.blocks * plan.phases * slices >= WANTED_BLOCKS:
            break
    return plan


def _whole_tiles(depth: int) -> int:
    return ceil_div(depth, TILE_K) * TILE_K


def forward(x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape, workspace: Any) -> None:
    """Write y (N,K,P,Q) from x (N,C,H,W), w (K,C,R,S) and b (K,) or None."""
    plan, packed, taps = _pack("forward", w, shape, workspace)
    kernel = source.kernel("conv2d_implicit_gemm_forward", like=x, **plan.tile.defines)
    kernel((plan.blocks,), (plan.tile.threads,), (packed, taps, x, b, y, shape))


def backward_data(dy: Any, w: Any, dx: Any, shape: Conv2dShape, workspace: Any) -> None:
    """Write dx (N,C,H,W) from dy (N,K,P,Q) and w (K,C,R,S)."""
    plan, packed, taps = _pack("backward_data", w, shape, workspace)
    kernel = source.kernel("conv2d_implicit_gemm_backward_data", like=dy, **plan.tile.defines)
    blocks = np.int32(plan.blocks)
    kernel(
        (plan.blocks * plan.phases,), (plan.tile.threads,), (packed, taps, dy, dx, shape, blocks)
    )


def backward_filter(x: Any, dy: Any, dw: Any, shape: Conv2dShape, workspace: Any = None) -> None:
    """Write dw (K,C,R,S) from x (N,C,H,W) and dy (N,K,P,Q); the workspace holds the slices."""
    plan = make_plan("backward_filter", shape, x.dtype.itemsize)
    partial = dw if workspace is None else workspace.view(dw.dtype)
    slices = partial.size // dw.size
    kernel = filter_source.kernel(
        "conv2d_implicit_gemm_backward_filter", like=x, **plan.tile.defines
    )
    count = np.int32(slices)
    pixels = pixel_steps(shape, TILE_K)
    kernel((plan.blocks * slices,), (plan.tile.threads,), (x, dy, partial, shape, count, *pixels))
    sum_slices(partial, dw, shape)


def pixel_steps(shape: Conv2dShape, pixels: int) -> tuple[np.int32, np.int32, np.int32]:
    """Return by how many images, rows and columns a number of pixels moves on."""
    rows, step_q = divmod(pixels, shape.q)
    step_n, step_p = divmod(rows, shape.p)
    return np.int32(step_n), np.int32(step_p), np.int32(step_q)


def workspace_bytes(direction: str, shape: Conv2dShape, itemsize: int, limit: int) -> int:
    """Return the bytes of workspace a pass wants: repacked filters, or a dw for each slice.

    Parameters
    ----------
    direction
        ``"forward"``, ``"backward_data"``, ``"backward_filter"`` or ``"backward_bias"``.
    shape
        The convolution's.
    itemsize
        Bytes an element.
    limit
        Bytes the caller allows. The filter gradient makes do with fewer slices.

    Raises
    ------
    ValueError
        When the repacked filters do not fit.
    """
    if direction == "backward_bias":
        return 0
    plan = make_plan(direction, shape, itemsize)
    if direction == "backward_filter":
        return filter_slices_bytes(plan, shape, itemsize, limit)
    return packed_bytes(plan, "implicit_gemm", itemsize, limit)


def filter_slices_bytes(plan: Plan, shape: Conv2dShape, itemsize: int, limit: int) -> int:
    """Return the bytes of a dw for each slice of the batch; one slice needs none."""
    return slices_bytes(min(ceil_div(WANTED_BLOCKS, plan.blocks), shape.n), shape, itemsize, limit)


def packed_bytes(plan: Plan, name: str, itemsize: int, limit: int) -> int:
    """Return the bytes of the packed filters and their taps, where they fit."""
    needed = plan.rows * (plan.pitch * itemsize + TAP_BYTES)
    if needed > limit or plan.rows * plan.pitch > checks.INDEX_LIMIT:
        raise workspace.refuse("conv2d", name, needed, "the repacked filters")
    return needed


def _pack(direction: str, w: Any, shape: Conv2dShape, workspace: Any) -> tuple[Plan, Any, Any]:
    """Repack the filters into the workspace, with where each row's factor lies."""
    plan = make_plan(direction, shape, w.dtype.itemsize)
    taps_bytes = plan.rows * TAP_BYTES
    taps, packed = workspace[:taps_bytes].view(np.int32), workspace[taps_bytes:].view(w.dtype)
    kernel = source.kernel(f"conv2d_implicit_gemm_pack_{direction}", like=w, **plan.tile.defines)
    blocks = ceil_div(packed.size, PACK_THREADS)
    sizes = np.int32(plan.rows), np.int32(plan.pitch)
    kernel((blocks,), (PACK_THREADS,), (w, packed, taps, shape, *sizes))
    return plan, packed, taps
