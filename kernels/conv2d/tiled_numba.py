"""Tiled convolution through shared memory in Numba CUDA: `tiled.cu`, kernel by kernel.

How a pass is cut up (`make_plan`) and launched is `tiled.py`'s own.
"""

# y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s]; its gradient to x
# x (N,C,H,W), w (K,C,R,S), b (K) or empty, y (N,K,P,Q); gradients shaped like what they belong to
# A block owns a TILE_P x TILE_Q tile of one output plane; thread (x, y) owns one element of it.
# Against naive: what neighbouring outputs share is read from global memory once, into shared
# memory: the tile's input with its halo. Limits: any shape; `taps_r` x `taps_s` taps of the filter
# at a time, as many as the halo has room for (tiled.py decides; nearly always the whole filter).

from __future__ import annotations

from typing import Any

from numba import cuda, int32, uint32

from kernels.conv2d import tiled
from kernels.conv2d.bias_numba import backward_bias
from kernels.conv2d.tiled import workspace_bytes
from kernels.conv2d.tiled_filter_numba import source as filter_source
from kernels.index_numba import (
    Scalars,
    ceil_div,
    find_hits,
    input_col,
    input_row,
    inside,
    quotient,
    scalar,
    unflatten,
    w_offset,
    x_offset,
    y_offset,
)
from kernels.numba_cuda import NumbaSource
from kernels.shapes import Conv2dShape

__all__ = ["backward_bias", "backward_data", "backward_filter", "forward", "workspace_bytes"]

TILE_P, TILE_Q = tiled.TILES[0]  # `source` puts a plan's tile in their place
BOUNDS = (TILE_P * TILE_Q, 2)  # no other tile of `tiled.TILES` has more threads

source = NumbaSource(
    __name__,
    tiled.TILE_MACROS,
    launch_bounds={"conv2d_tiled_forward": BOUNDS, "conv2d_tiled_backward_data": BOUNDS},
)


@cuda.jit(device=True)
def tile_of(block: int32, planes: int32, rows: int32, cols: int32) -> tuple[int32, ...]:
    """Return (image, plane, first row, first column): a block's place."""
    image, plane, i, j = unflatten(
        block, planes, ceil_div(rows, int32(TILE_P)), ceil_div(cols, int32(TILE_Q))
    )
    return image, plane, int32(i * TILE_P), int32(j * TILE_Q)


# No pointers into an array: a plane is where it begins in `values`.
@cuda.jit(device=True)
def load_window(
    window: Scalars, values: Scalars, plane: uint32, top: int32, left: int32,
    height: int32, width: int32, rows: int32, cols: int32,
) -> None:  # fmt: skip
    """Copy a height x width window of a plane to shared memory; outside the plane it is zero."""
    for i in range(int32(cuda.threadIdx.y), height, int32(TILE_P)):
        for j in range(int32(cuda.threadIdx.x), width, int32(TILE_Q)):
            row, col = int32(top + i), int32(left + j)
            in_plane = inside(row, rows) and inside(col, cols)
            value = values[uint32(plane + row * cols + col)] if in_plane else scalar(0)
            window[uint32(i * width + j)] = value


@cuda.jit
def conv2d_tiled_forward(
    x: Scalars, w: Scalars, b: Scalars, y: Scalars, shape: Conv2dShape, taps_r: int32, taps_s: int32
) -> None:
    """One block a tile of y."""
    shared = cuda.shared.array(0, scalar)
    halo_h = int32((TILE_P - 1) * shape.stride_h + (taps_r - 1) * shape.dilation_h + 1)
    halo_w = int32((TILE_Q - 1) * shape.stride_w + (taps_s - 1) * shape.dilation_w + 1)
    image, k, first_row, first_col = tile_of(int32(cuda.blockIdx.x), shape.k, shape.p, shape.q)
    tile_row, tile_col = int32(cuda.threadIdx.y), int32(cuda.threadIdx.x)
    p, q = int32(first_row + tile_row), int32(first_col + tile_col)
    in_output = p < shape.p and q < shape.q

    sum = b[uint32(k)] if len(b) else scalar(0)  # no None for a kernel: an absent b is empty
    for c in range(shape.c):
        plane = x_offset(shape, image, c, 0, 0)
        for r0 in range(int32(0), shape.r, taps_r):
            for s0 in range(int32(0), shape.s, taps_s):
                top, left = input_row(shape, first_row, r0), input_col(shape, first_col, s0)
                load_window(shared, x, plane, top, left, halo_h, halo_w, shape.h, shape.w)
                cuda.syncthreads()  # a thread reads what its neighbours loaded

                # Beyond the plane's edge there is nothing to sum, but the next loads need all
                # threads.
                r_end = min(taps_r, int32(shape.r - r0)) if in_output else int32(0)
                s_end = min(taps_s, int32(shape.s - s0))
                for r in range(r_end):
                    i = int32(tile_row * shape.stride_h + r * shape.dilation_h)
                    taps = w_offset(shape, k, c, r0 + r, s0)
                    for s in range(s_end):
                        j = int32(tile_col * shape.stride_w + s * shape.dilation_w)
                        sum += shared[uint32(i * halo_w + j)] * w[uint32(taps + s)]
                cuda.syncthreads()  # the next window overwrites what neighbours still read
    if in_output:
        y[y_offset(shape, image, k, p, q)] = sum


# The tile is of dx; its halo is the part of dy whose filters reach into it. Output row p reads
# input row h through tap r where p * stride == h + pad - r * dilation.
@cuda.jit
def conv2d_tiled_backward_data(
    dy: Scalars, w: Scalars, dx: Scalars, shape: Conv2dShape, taps_r: int32, taps_s: int32
) -> None:
    """One block a tile of dx."""
    shared = cuda.shared.array(0, scalar)
    span_h, span_w = int32((taps_r - 1) * shape.dilation_h), int32((taps_s - 1) * shape.dilation_w)
    halo_h = int32(quotient(int32(TILE_P - 1 + span_h), shape.stride_h) + 1)
    halo_w = int32(quotient(int32(TILE_Q - 1 + span_w), shape.stride_w) + 1)
    image, c, first_row, first_col = tile_of(int32(cuda.blockIdx.x), shape.c, shape.h, shape.w)
    tile_row, tile_col = int32(cuda.threadIdx.y), int32(cuda.threadIdx.x)
    row, col = int32(first_row + tile_row), int32(first_col + tile_col)
    in_input = row < shape.h and col < shape.w

    sum = scalar(0)
    for r0 in range(int32(0), shape.r, taps_r):
        for s0 in range(int32(0), shape.s, taps_s):
            reach_h = int32(first_row + shape.pad_top - r0 * shape.dilation_h)
            reach_w = int32(first_col + shape.pad_left - s0 * shape.dilation_w)
            top = ceil_div(int32(reach_h - span_h), shape.stride_h)
            left = ceil_div(int32(reach_w - span_w), shape.stride_w)
            r_end = min(taps_r, int32(shape.r - r0)) if in_input else int32(0)
            s_end = min(taps_s, int32(shape.s - s0))
            first_r, step_r, at_r, move_r = find_hits(
                int32(reach_h + tile_row), shape.stride_h, shape.dilation_h, r_end, top
            )
            first_s, step_s, at_s, move_s = find_hits(
                int32(reach_w + tile_col), shape.stride_w, shape.dilation_w, s_end, left
            )

            for k in range(shape.k):
                plane = y_offset(shape, image, k, 0, 0)
                load_window(shared, dy, plane, top, left, halo_h, halo_w, shape.p, shape.q)
                cuda.syncthreads()  # a thread reads what its neighbours loaded

                taps = w_offset(shape, k, c, r0, s0)
                i = at_r
                for r in range(first_r, r_end, step_r):
                    j = at_s
                    for s in range(first_s, s_end, step_s):
                        sum += shared[uint32(i * halo_w + j)] * w[uint32(taps + r * shape.s + s)]
                        j = int32(j - move_s)
                    i = int32(i - move_r)
                cuda.syncthreads()  # the next window overwrites what neighbours still read
    if in_input:
        dx[x_offset(shape, image, c, row, col)] = sum


def forward(x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape) -> None:
    """Write y (N,K,P,Q) from x (N,C,H,W), w (K,C,R,S) and b (K,) or None."""
    tiled.launch(source, "forward", (x, w, b, y, shape), y.shape)


def backward_data(dy: Any, w: Any, dx: Any, shape: Conv2dShape) -> None:
    """Write dx (N,C,H,W) from dy (N,K,P,Q) and w (K,C,R,S)."""
    tiled.launch(source, "backward_data", (dy, w, dx, shape), dx.shape)


def backward_filter(x: Any, dy: Any, dw: Any, shape: Conv2dShape, workspace: Any = None) -> None:
    """Write dw (K,C,R,S) from x (N,C,H,W) and dy (N,K,P,Q); the workspace holds the slices."""
    tiled.launch_filter(filter_source, x, dy, dw, shape, workspace)
