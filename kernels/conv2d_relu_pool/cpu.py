"""Convolution, ReLU and max-pooling on CPU cores, in Numba, in one pass over the images.

y[n,k,i,j] = max(0, max over the window of b[k] + sum over c,r,s of x[n,c,h,w] w[k,c,r,s])
Shapes: x (N,C,H,W), w (K,C,R,S), y and argmax (N,K,pooled P,pooled Q); float32 or float64.
Threads: forward, a task is (chunk of images, block of filters); backward, a group of images.
Idea: forward, 16 images are the lanes of a SIMD register, and a window's four cells for six filters
stay in registers until their maximum is known. Backward, only the cell that was the maximum has a
gradient: an image lies with its channels innermost, so that what this cell read is a few runs of
neighbours, whole registers at any place.
Sums run in an order that depends on the shape alone: the same bits on any number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from kernels.conv2d.cpu_lanes import VECTOR_BYTES, add_scaled, aligned_empty, filled
from kernels.conv2d.cpu_pack import pack, unpack
from kernels.conv2d_relu_pool.cpu_gradient import data_gradient, filter_gradient, sum_open
from kernels.conv2d_relu_pool.cpu_lanes import keep_maxima
from kernels.conv2d_relu_pool.cpu_plan import (
    CELLS,
    FILTERS,
    MOST_GROUPS,
    forward_plan,
    segments_plan,
    slots_plan,
)
from kernels.cpu_threads import one_launch
from kernels.shapes import CLOSED, BlockShape

# Block sizes, as tuples whose length is what counts.
MANY, SOME, ONE = ((0,) * filters for filters in FILTERS)
WINDOW = (0,) * CELLS


@njit(cache=True, nogil=True)
def _pool_filters(packed, weights, bias, filters, tables, group, maxima, to, places, start, step):  # type: ignore[no-untyped-def]
    """Compute len(filters) planes of one chunk.

    A window's maxima are to[1] apart from the next window's, filter by filter to[2], from to[0] on;
    its places, which begin at `start`, one vector apart, and filter by filter `step`.
    """
    tap_offset, window_source, cells = tables
    rows = len(filters)
    lanes = VECTOR_BYTES // packed.itemsize
    for window in range(len(window_source)):
        source = window_source[window]
        for cell in range(0, len(cells), len(WINDOW)):
            block = filled(bias, group * rows, filters, WINDOW)
            for tap in range(len(tap_offset)):
                weight = (group * len(tap_offset) + tap) * rows
                shift = source + tap_offset[tap]
                block = add_scaled(block, weights, weight, packed, cells, cell, shift)
            keep_maxima(
                block, maxima, to[0] + window * to[1], to[2], places, start + window * lanes, step,
                cell,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def pool_group(packed, weights, bias, rows, tables, group, maxima, to, places, start, step):  # type: ignore[no-untyped-def]
    """Compute the planes of one group of filters, `rows` of them, for one chunk."""
    where = maxima, to, places, start, step
    if rows == len(MANY):
        _pool_filters(packed, weights, bias, MANY, tables, group, *where)
    elif rows == len(SOME):
        _pool_filters(packed, weights, bias, SOME, tables, group, *where)
    else:
        _pool_filters(packed, weights, bias, ONE, tables, group, *where)


@njit(cache=True, nogil=True)
def _pool_task(task, parts, x, weights, bias, rows, tables, source, target, y, argmax):  # type: ignore[no-untyped-def]
    """Compute one part of the filters for one chunk."""
    lanes = VECTOR_BYTES // x.itemsize
    chunk, part = task // parts, task % parts
    plane = source.packed_rows * source.packed_cols * lanes
    packed = aligned_empty(source.planes * plane, x)
    for c in range(source.planes):
        pack(x, chunk, c, source, packed, c * plane)
    groups = (target.planes + rows - 1) // rows
    step = target.packed_rows * target.packed_cols * lanes
    maxima = aligned_empty(rows * step, x)
    places = np.empty(rows * step, np.uint8)
    for group in range(part * groups // parts, (part + 1) * groups // parts):
        maxima[:] = 0
        places[:] = CLOSED
        pool_group(
            packed, weights, bias, rows, tables, group, maxima, (0, lanes, step), places, 0, step
        )
        for row in range(min(rows, target.planes - group * rows)):
            unpack(maxima, row * step, y, chunk, group * rows + row, target, y)
            unpack(places, row * step, argmax, chunk, group * rows + row, target, y)


@njit(cache=True, nogil=True)
def side_by_side(w, b, rows):  # type: ignore[no-untyped-def]
    """Return filters and bias with those computed together side by side; the last are filled up."""
    filters, taps = w.shape
    groups = (filters + rows - 1) // rows
    weights, bias = np.zeros(groups * taps * rows, w.dtype), np.zeros(groups * rows, w.dtype)
    bias[: len(b)] = b
    for k in range(filters):
        first = k // rows * taps * rows + k % rows
        for tap in range(taps):
            weights[first + tap * rows] = w[k, tap]
    return weights, bias


@njit(cache=True, nogil=True, parallel=True)
def _pool(parts, x, w, b, rows, tables, source, target, y, argmax):  # type: ignore[no-untyped-def]
    weights, bias = side_by_side(w, b, rows)
    for task in prange(source.chunks * parts):
        _pool_task(np.int64(task), parts, x, weights, bias, rows, tables, source, target, y, argmax)


def forward(
    x: np.ndarray,
    w: np.ndarray,
    b: np.ndarray | None,
    y: np.ndarray,
    argmax: np.ndarray,
    shape: BlockShape,
) -> None:
    """Write the maximum of every window of max(correlate(x, w) + b, 0), and which cell it is.

    Parameters
    ----------
    x, w, b, y, argmax
        (N, C, H, W), (K, C, R, S), (K,) or None, and the results (N, K, pooled P, pooled Q), the
        last one of bytes; C-contiguous.
    shape
        What they have in common.
    """
    plan = forward_plan(shape, VECTOR_BYTES // x.itemsize, x.itemsize)
    tables = plan.tap_offset, plan.window_source, plan.cells
    with one_launch:
        _pool(
            plan.parts, x.reshape(-1), w.reshape(shape.k, -1), w[:0, 0, 0, 0] if b is None else b,
            plan.filters, tables, plan.source, plan.target, y.reshape(-1), argmax.reshape(-1),
        )  # fmt: skip


def backward_filter(
    x: np.ndarray, dy: np.ndarray, argmax: np.ndarray, dw: np.ndarray, shape: BlockShape
) -> None:
    """Write dw, the gradient to the filters.

    Parameters
    ----------
    x, dy, argmax, dw
        (N, C, H, W); (N, K, pooled P, pooled Q), twice; and (K, C, R, S), the result.
    shape
        That of the forward pass.
    """
    plan = segments_plan(shape, VECTOR_BYTES // x.itemsize)
    with one_launch:
        filter_gradient(
            min(shape.n, MOST_GROUPS), x.reshape(-1), dy.reshape(-1), argmax.reshape(-1), shape,
            plan.size, *plan.block, (plan.starts, plan.dense, plan.windows, plan.places),
            plan.columns, dw.reshape(shape.k, -1),
        )  # fmt: skip


def backward_data(
    dy: np.ndarray, argmax: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: BlockShape
) -> None:
    """Write dx, the gradient to the input.

    Parameters
    ----------
    dy, argmax, w, dx
        (N, K, pooled P, pooled Q), twice; (K, C, R, S); and (N, C, H, W), the result.
    shape
        That of the forward pass.
    """
    plan = slots_plan(shape, VECTOR_BYTES // dx.itemsize, dx.itemsize)
    with one_launch:
        data_gradient(
            min(shape.n, MOST_GROUPS), dy.reshape(-1), argmax.reshape(-1), w.reshape(shape.k, -1),
            dx.reshape(-1), shape, *plan,
        )  # fmt: skip


def backward_bias(dy: np.ndarray, argmax: np.ndarray, db: np.ndarray, shape: BlockShape) -> None:
    """Write db (K,), the sum of dy over the open windows.

    Parameters
    ----------
    dy, argmax, db
        (N, K, pooled P, pooled Q), twice; and (K,), the result.
    shape
        That of the forward pass.
    """
    sums = np.empty((shape.n, shape.k), dy.dtype)
    planes = shape.n * shape.k
    with one_launch:
        sum_open(dy.reshape(planes, -1), argmax.reshape(planes, -1), sums.reshape(-1))
    sums.sum(axis=0, out=db)
