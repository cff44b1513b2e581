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
    transpose,
)
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
def _vector_starts(lanes):  # type: ignore[no-untyped-def]
    """Return where each of `lanes` vectors that lie one behind the other begins."""
    starts = np.empty(lanes, np.int64)
    for lane in range(lanes):
        starts[lane] = lane * lanes
    return starts


@njit(cache=True, nogil=True)
def _lane_starts(chunk, plane, bands, lanes):  # type: ignore[no-untyped-def]
    """Return where each lane's plane begins in the tensor (-1: no such lane), and its first row."""
    starts = np.empty(lanes, np.int64)
    tops = np.empty(lanes, np.int64)
    for lane in range(lanes):
        index = chunk * lanes + lane
        image, band = index // bands.bands, index % bands.bands
        starts[lane] = (image * bands.planes + plane) * bands.height * bands.width
        if image >= bands.images:
            starts[lane] = -1
        tops[lane] = bands.first_row + band * bands.row_step
    return starts, tops


@njit(cache=True, nogil=True)
def _pack_run(tensor, starts, shift, count, room, packed, first, places):  # type: ignore[no-untyped-def]
    """Copy `count` cells in a row, starts[lane] + shift on, of every lane.

    The `room` cells behind may be overwritten with anything: a short row is then one transpose too.
    """
    lanes = VECTOR_BYTES // tensor.itemsize
    inside = starts[lanes - 1] + shift + lanes <= len(tensor)
    if count >= lanes or (count + room >= lanes and inside):
        last = max(count - lanes, 0)  # overlaps what is packed already, with the same values
        for i in range(0, count, lanes):
            cell = min(i, last)
            transpose(tensor, starts, shift + cell, packed, places, first + cell * lanes)
    else:
        for lane in range(lanes):
            for i in range(count):
                packed[first + i * lanes + lane] = tensor[starts[lane] + shift + i]


@njit(cache=True, nogil=True)
def _pack_row(tensor, starts, tops, row, left, right, bands, packed, first):  # type: ignore[no-untyped-def]
    """Copy one row of every lane that has it inside its image; the others get zeros."""
    lanes = VECTOR_BYTES // tensor.itemsize
    for lane in range(lanes):
        h = tops[lane] + row
        if starts[lane] >= 0 and h >= 0 and h < bands.height:
            start = starts[lane] + h * bands.width + bands.first_col
            for i in range(left, right):
                packed[first + i * lanes + lane] = tensor[start + i]
        else:
            for i in range(left, right):
                packed[first + i * lanes + lane] = 0


@njit(cache=True, nogil=True)
def _pack(tensor, chunk, plane, bands, packed, first):  # type: ignore[no-untyped-def]
    """Pack one plane of a chunk to (packed_rows, packed_cols, lanes), zeros around the tensor."""
    lanes = VECTOR_BYTES // tensor.itemsize
    places = _vector_starts(lanes)
    starts, tops = _lane_starts(chunk, plane, bands, lanes)
    rows, cols = bands.packed_rows, bands.packed_cols
    # Where a row lies inside every lane's image, the lanes differ in nothing but their start.
    # (A chunk's last lane is the one that may not exist, and bands need not come in order.)
    every = starts[lanes - 1] >= 0
    common_low, common_high = -tops[0], bands.height - tops[0]
    from_top = np.empty(lanes, np.int64)
    for lane in range(lanes):
        common_low = max(common_low, -tops[lane])
        common_high = min(common_high, bands.height - tops[lane])
        from_top[lane] = starts[lane] + tops[lane] * bands.width + bands.first_col
    left = min(max(0, -bands.first_col), cols)
    right = max(left, min(cols, bands.width - bands.first_col))
    if every and common_low <= 0 and common_high >= rows and cols == bands.width == right - left:
        # Whole rows lie one behind the other: one run.
        _pack_run(tensor, from_top, 0, rows * cols, 0, packed, first, places)
        return
    # In this order: what a run spills over its end is written again before anyone reads it.
    for row in range(rows):
        here = first + row * cols * lanes
        packed[here : here + left * lanes] = 0
        if every and common_low <= row < common_high:
            room = (rows - row) * cols - right
            start = here + left * lanes
            shift = row * bands.width + left
            _pack_run(tensor, from_top, shift, right - left, room, packed, start, places)
        else:
            _pack_row(tensor, starts, tops, row, left, right, bands, packed, here)
        packed[here + right * lanes : here + cols * lanes] = 0


@njit(cache=True, nogil=True)
def _unpack(packed, first, tensor, chunk, plane, bands):  # type: ignore[no-untyped-def]
    """Write one packed plane of a chunk back to the tensor, leaving out what lies outside it."""
    lanes = VECTOR_BYTES // tensor.itemsize
    places = _vector_starts(lanes)
    starts, tops = _lane_starts(chunk, plane, bands, lanes)
    counts = np.zeros(lanes, np.int64)
    for lane in range(lanes):
        if starts[lane] >= 0:
            rows = min(bands.packed_rows, bands.height - tops[lane])
            counts[lane] = max(rows, 0) * bands.width
            starts[lane] += tops[lane] * bands.width
    whole = counts[0]
    for lane in range(1, lanes):
        whole = min(whole, counts[lane])
    done = whole if whole >= lanes else 0
    for i in range(0, done, lanes):
        cell = min(i, whole - lanes)  # the last overlaps what is written, with the same values
        transpose(packed, places, first + cell * lanes, tensor, starts, cell)
    for lane in range(lanes):
        for i in range(done, counts[lane]):
            tensor[starts[lane] + i] = packed[first + i * lanes + lane]


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
        _pack(tensor, chunk, c, source, packed, c * plane)
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
            _unpack(result, row * step, out, chunk, group * rows + row, target)


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
            _pack(x, chunk, c, source, packed, c * plane)
        for block in range(first_block, last_block):
            used = min(rows, planes - block * rows)
            for row in range(used):
                _pack(dy_tensor, chunk, block * rows + row, dy_bands, dy, row * step)
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
