"""Convolution on CPU cores, in Numba: 16 images side by side in the lanes of a SIMD register.

y[n,k,p,q] = b[k] + sum over c,r,s of x[n,c,h,w] w[k,c,r,s], h = p*stride_h - pad_top + r*dilation_h
Shapes: x (N,C,H,W), w (K,C,R,S), y (N,K,P,Q); float32 or float64.
Threads: a task is (chunk of images, block of filters); every task writes its own cells.
Idea: x is packed to (chunk, C, H, W, lanes) with its padding, so the inner loop has no bounds test
and every load is a whole register; a block of filters x cells stays in registers meanwhile.
Sums run in an order that depends on the shape alone: the same bits on any number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from kernels.conv2d.cpu_lanes import (
    VECTOR_BYTES,
    add_lanewise,
    add_scaled,
    aligned_empty,
    filled,
    lane_sum,
    loaded,
    store_at,
    store_dense,
)
from kernels.conv2d.cpu_pack import pack, unpack
from kernels.conv2d.cpu_plan import (
    Correlation,
    backward_data_plan,
    backward_filter_plan,
    block_cols,
    forward_plan,
)
from kernels.cpu_threads import one_launch
from kernels.shapes import Conv2dShape

# Block sizes, as tuples whose length is what counts.
ROWS_6, ROWS_4, ROWS_1 = (0,) * 6, (0,) * 4, (0,)
COLS_6, COLS_4, COLS_1 = ((0,) * block_cols(rows) for rows in (6, 4, 1))
PIXEL_RUN = 64  # pixels of dy that stay in the first-level cache while all taps visit them


@njit(cache=True, nogil=True)
def _correlate_block(  # type: ignore[no-untyped-def]
    packed, weights, bias, filters, cells, tables, group, plane_step, result
):
    """Compute len(filters) planes of one chunk into `result`."""
    tap_offset, phases, pixel_source, pixel_target = tables
    rows = len(filters)
    for phase in range(len(phases)):
        for pixel in range(phases[phase, 2], phases[phase, 3], len(cells)):
            block = filled(bias, group * rows, filters, cells)
            for tap in range(phases[phase, 0], phases[phase, 1]):
                weight = (group * len(tap_offset) + tap) * rows
                block = add_scaled(
                    block, weights, weight, packed, pixel_source, pixel, tap_offset[tap]
                )
            store_at(block, result, 0, plane_step, pixel_target, pixel)


@njit(cache=True, nogil=True)
def _correlate_task(  # type: ignore[no-untyped-def]
    task, parts, tensor, weights, bias, rows, tables, source, target, out
):
    """Compute one part of the target planes of one chunk."""
    lanes = VECTOR_BYTES // tensor.itemsize
    chunk, part = task // parts, task % parts
    plane = source.packed_rows * source.packed_cols * lanes
    packed = aligned_empty(source.planes * plane, tensor)
    for c in range(source.planes):
        pack(tensor, chunk, c, source, packed, c * plane)
    groups = (target.planes + rows - 1) // rows
    step = target.packed_rows * target.packed_cols * lanes
    result = aligned_empty(rows * step, tensor)
    for group in range(part * groups // parts, (part + 1) * groups // parts):
        # Each block size is code of its own; as constants they cost less to compile than as types
        # of the parallel loop around them.
        if rows == 6:
            _correlate_block(packed, weights, bias, ROWS_6, COLS_6, tables, group, step, result)
        elif rows == 4:
            _correlate_block(packed, weights, bias, ROWS_4, COLS_4, tables, group, step, result)
        else:
            _correlate_block(packed, weights, bias, ROWS_1, COLS_1, tables, group, step, result)
        for row in range(min(rows, target.planes - group * rows)):
            unpack(result, row * step, out, chunk, group * rows + row, target, out)


@njit(cache=True, nogil=True, parallel=True)
def _correlate(  # type: ignore[no-untyped-def]
    parts, tensor, weights, bias, rows, tables, source, target, out
):
    for task in prange(source.chunks * parts):
        _correlate_task(
            np.int64(task), parts, tensor, weights, bias, rows, tables, source, target, out
        )


def _run(
    plan: Correlation, tensor: np.ndarray, matrix: np.ndarray, b: np.ndarray | None, out: np.ndarray
) -> None:
    """Correlate with the weights of `matrix` (target plane, taps)."""
    rows = plan.filters
    groups = -(-plan.target.planes // rows)
    padded = np.zeros((groups * rows, len(plan.columns)), out.dtype)
    padded[: len(matrix)] = matrix[:, plan.columns]
    weights = padded.reshape(groups, rows, -1).transpose(0, 2, 1).ravel()
    bias = np.zeros(groups * rows, out.dtype)
    if b is not None:
        bias[: len(b)] = b
    tables = plan.tap_offset, plan.phases, plan.pixel_source, plan.pixel_target
    with one_launch:
        _correlate(
            plan.parts, tensor.reshape(-1), weights, bias, rows, tables,
            plan.source, plan.target, out.reshape(-1),
        )  # fmt: skip


def _lanes(array: np.ndarray) -> int:
    return VECTOR_BYTES // array.itemsize


@njit(cache=True, nogil=True)
def _filter_block(  # type: ignore[no-untyped-def]
    packed, dy, filters, taps, tables, row_step, sums, first
):
    """Add one chunk's part of dw, lane by lane, to `sums` (blocks of filters x taps vectors)."""
    tap_offset, pixel_source = tables
    lanes = VECTOR_BYTES // dy.itemsize
    size = len(filters) * len(taps) * lanes
    for pixel in range(0, len(pixel_source), PIXEL_RUN):
        end = min(pixel + PIXEL_RUN, len(pixel_source))
        for tap in range(0, len(tap_offset), len(taps)):
            place = first + tap // len(taps) * size
            block = loaded(sums, place, filters, taps)
            for i in range(pixel, end):
                block = add_lanewise(
                    block, dy, i * lanes, row_step, packed, tap_offset, tap, pixel_source[i]
                )
            store_dense(block, sums, place)


@njit(cache=True, nogil=True)
def _filter_task(  # type: ignore[no-untyped-def]
    task, parts, x, dy_tensor, rows, cols, tables, source, dy_bands, partials
):
    """Add up one part of the filters over one group of chunks."""
    lanes = VECTOR_BYTES // x.itemsize
    planes, blocks = dy_bands.planes, (dy_bands.planes + rows - 1) // rows
    plane, step = source.packed_rows * source.packed_cols * lanes, len(tables[1]) * lanes
    group, part = task // parts, task % parts
    first_block, last_block = part * blocks // parts, (part + 1) * blocks // parts
    block_size = rows * len(tables[0]) * lanes
    packed = aligned_empty(source.planes * plane, x)
    dy = aligned_empty(rows * step, x)
    sums = aligned_empty((last_block - first_block) * block_size, x)
    sums[:] = 0
    groups = len(partials)
    for chunk in range(group * source.chunks // groups, (group + 1) * source.chunks // groups):
        for c in range(source.planes):
            pack(x, chunk, c, source, packed, c * plane)
        for block in range(first_block, last_block):
            used = min(rows, planes - block * rows)
            for row in range(used):
                pack(dy_tensor, chunk, block * rows + row, dy_bands, dy, row * step)
            dy[used * step :] = 0
            at = (block - first_block) * block_size
            if rows == 6:
                _filter_block(packed, dy, ROWS_6, COLS_6, tables, step, sums, at)
            elif rows == 4:
                _filter_block(packed, dy, ROWS_4, COLS_4, tables, step, sums, at)
            else:
                _filter_block(packed, dy, ROWS_1, COLS_1, tables, step, sums, at)
    for k in range(first_block * rows, min(last_block * rows, planes)):
        at = (k // rows - first_block) * block_size
        for tap in range(partials.shape[2]):
            vector = tap // cols * rows * cols + k % rows * cols + tap % cols
            partials[group, k, tap] = lane_sum(sums, at + vector * lanes)


@njit(cache=True, nogil=True, parallel=True)
def _filter_partials(  # type: ignore[no-untyped-def]
    parts, x, dy, rows, cols, tables, source, dy_bands, partials
):
    """Compute partials (groups of chunks, K, C*R*S), each over the chunks of its group."""
    for task in prange(len(partials) * parts):
        _filter_task(np.int64(task), parts, x, dy, rows, cols, tables, source, dy_bands, partials)


@njit(cache=True, nogil=True)
def _scatter(dy, w, dx, shape):  # type: ignore[no-untyped-def]
    """Compute dx one product at a time, without the zeros around dy that `_correlate` relies on."""
    dx[:] = 0
    for n, k, p, q in np.ndindex(dy.shape):
        for c, r, s in np.ndindex(w.shape[1:]):
            h = p * shape.stride_h - shape.pad_top + r * shape.dilation_h
            col = q * shape.stride_w - shape.pad_left + s * shape.dilation_w
            if 0 <= h < shape.h and 0 <= col < shape.w:
                dx[n, c, h, col] += dy[n, k, p, q] * w[k, c, r, s]


@njit(cache=True, nogil=True, parallel=True, fastmath={"reassoc", "contract", "nsz"})
def _sum_per_plane(dy, sums):  # type: ignore[no-untyped-def]
    """Add up dy (N, K, P*Q) over its cells: sums (N, K)."""
    images, planes, cells = dy.shape
    for task in prange(images * planes):
        n, k = task // planes, task % planes
        total = dy[n, k, 0]
        for i in range(1, cells):
            total += dy[n, k, i]
        sums[n, k] = total


def forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, shape: Conv2dShape
) -> None:
    """Write y = correlate(x, w) + b.

    Parameters
    ----------
    x, w, b, y
        (N, C, H, W), (K, C, R, S), (K,) or None, and (N, K, P, Q), the result; C-contiguous, all
        float32 or all float64.
    shape
        What they have in common.
    """
    plan = forward_plan(shape, _lanes(x), x.itemsize)
    _run(plan, x, w.reshape(shape.k, -1), b, y)


def backward_data(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, shape: Conv2dShape) -> None:
    """Write dx, the gradient to the input, from dy (N, K, P, Q) and w (K, C, R, S).

    Parameters
    ----------
    dy, w, dx
        (N, K, P, Q), (K, C, R, S), and (N, C, H, W), the result; types as for `forward`.
    shape
        That of the forward pass.
    """
    if not np.isfinite(w).all():
        # Zero times such a weight is NaN; it must not reach cells that no output read through it.
        _scatter(dy, w, dx, shape)
        return
    plan = backward_data_plan(shape, _lanes(dy), dy.itemsize)
    _run(plan, dy, w.transpose(1, 0, 2, 3).reshape(shape.c, -1), None, dx)


def backward_filter(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, shape: Conv2dShape) -> None:
    """Write dw, the gradient to the filters.

    Parameters
    ----------
    x, dy, dw
        (N, C, H, W), (N, K, P, Q), and (K, C, R, S), the result; types as for `forward`.
    shape
        That of the forward pass.
    """
    plan = backward_filter_plan(shape, _lanes(x), x.itemsize)
    partials = np.empty((plan.groups, shape.k, shape.c * shape.r * shape.s), dw.dtype)
    tables = plan.tap_offset, plan.pixel_source
    with one_launch:
        _filter_partials(
            plan.parts, x.reshape(-1), dy.reshape(-1), plan.filters, plan.taps, tables,
            plan.source, plan.dy, partials,
        )  # fmt: skip
    partials.sum(axis=0, out=dw.reshape(shape.k, -1))


def backward_bias(dy: np.ndarray, db: np.ndarray, shape: Conv2dShape) -> None:
    """Write db (K,), the sum of dy (N, K, P, Q) over images and cells.

    Parameters
    ----------
    dy, db
        (N, K, P, Q) and (K,), the result; types as for `forward`.
    shape
        That of the forward pass.
    """
    sums = np.empty((shape.n, shape.k), dy.dtype)
    with one_launch:
        _sum_per_plane(dy.reshape(shape.n, shape.k, -1), sums)
    sums.sum(axis=0, out=db)
