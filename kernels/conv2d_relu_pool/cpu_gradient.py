"""The fused block's gradients on CPU cores, in Numba: only what was a maximum has one.

dw[k,c,r,s] = sum over open windows (n,k,i,j) of dy x[n,c,h,w], of what its maximum read
dx[n,c,h,w] = sum over open windows whose maximum read it of dy w[k,c,r,s]
Threads: a task is a group of images; groups' parts of dw are added up in one order.
Idea: one cell in four of a convolution before 2x2 pooling has a gradient, another one in every
image and filter, so that images cannot be lanes. An image lies with its channels innermost: what
one cell read is then a few runs of neighbours, which are read and written as whole registers at
any place. For dw a filter's open windows are listed, and its gradient stays in registers; for dx a
window's filters are, by the cell that was their maximum, and what that cell read stays.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from kernels.conv2d.cpu_lanes import add_scaled, aligned_empty, store_at
from kernels.conv2d_relu_pool.cpu_lanes import loaded_at
from kernels.conv2d_relu_pool.cpu_plan import FEW_VECTORS
from kernels.shapes import CLOSED


@njit(cache=True, nogil=True)
def _channels_last(x, n, shape, width, image):  # type: ignore[no-untyped-def]
    """Copy image n into the middle of `image`, cell by cell."""
    for c in range(shape.c):
        for h in range(shape.h):
            row = x[((n * shape.c + c) * shape.h + h) * shape.w :]
            to = image[((h + shape.pad_top) * width + shape.pad_left) * shape.c + c :]
            for w in range(shape.w):
                to[np.uint64(w * shape.c)] = row[w]


@njit(cache=True, nogil=True)
def _channels_first(image, n, shape, width, dx):  # type: ignore[no-untyped-def]
    """Copy the middle of `image` to image n of dx."""
    for c in range(shape.c):
        for h in range(shape.h):
            row = image[((h + shape.pad_top) * width + shape.pad_left) * shape.c + c :]
            to = dx[((n * shape.c + c) * shape.h + h) * shape.w :]
            for w in range(shape.w):
                to[w] = row[np.uint64(w * shape.c)]


@njit(cache=True, nogil=True)
def _list_open(dy, argmax, windows, places, sources, values):  # type: ignore[no-untyped-def]
    """List the open windows of a plane: what their maximum read first, and their gradient."""
    count = 0
    for i in range(len(dy)):
        sources[count] = windows[i] + places[argmax[i]]
        values[count] = dy[i]
        count += argmax[i] != CLOSED
    return count


@njit(cache=True, nogil=True, inline="always")
def _add_reads(image, sources, values, count, starts, dense, vectors, lanes, sums):  # type: ignore[no-untyped-def]
    """Add value times what was read, for every one listed, to one filter's two sums."""
    half = len(sums) // 2
    for vector in range(0, len(starts), len(vectors)):
        even = loaded_at(sums, 0, dense, vector, vectors, lanes)
        done = 0
        if len(vectors) == FEW_VECTORS:  # each addition waits for the last: two take turns
            odd = loaded_at(sums, half, dense, vector, vectors, lanes)
            for i in range(0, count - 1, 2):
                even = add_scaled(even, values, i, image, starts, vector, sources[i])
                odd = add_scaled(odd, values, i + 1, image, starts, vector, sources[i + 1])
            store_at(odd, sums, half, 0, dense, vector)
            done = count // 2 * 2
        for i in range(done, count):
            even = add_scaled(even, values, i, image, starts, vector, sources[i])
        store_at(even, sums, 0, 0, dense, vector)


@njit(cache=True, nogil=True)
def _filter_task(images, x, dy, argmax, shape, size, vectors, lanes, tables, sums):  # type: ignore[no-untyped-def]
    """Add up the filters' gradients over some images."""
    starts, dense, windows, places = tables
    image = aligned_empty(2 * size[0] * size[1] * shape.c + len(lanes), x)
    image[:] = 0
    sources, values = np.empty(len(windows) + 1, np.int64), np.empty(len(windows) + 1, x.dtype)
    sums[:] = 0
    for n in range(images[0], images[1]):
        _channels_last(x, n, shape, size[1], image)
        for k in range(shape.k):
            plane = (n * shape.k + k) * len(windows)
            count = _list_open(
                dy[plane : plane + len(windows)], argmax[plane : plane + len(windows)],
                windows, places, sources, values,
            )  # fmt: skip
            _add_reads(image, sources, values, count, starts, dense, vectors, lanes, sums[k])


@njit(cache=True, nogil=True)
def _add_groups(sums, k, columns, dw):  # type: ignore[no-untyped-def]
    """Add up all groups' two sums of one filter."""
    total = sums[0, k]
    for group in range(1, len(sums)):
        for i in range(len(total)):
            total[i] += sums[group, k, i]
    for i in range(len(columns)):
        if columns[i] >= 0:
            dw[columns[i]] = total[i] + total[len(columns) + i]


@njit(cache=True, nogil=True, parallel=True)
def filter_gradient(groups, x, dy, argmax, shape, size, vectors, lanes, tables, columns, dw):  # type: ignore[no-untyped-def]
    """Write dw (K, C*R*S) from flat x, dy and argmax; the rest is `segments_plan`'s."""
    sums = np.empty((groups, shape.k, 2 * len(columns)), x.dtype)
    for group in prange(groups):
        images = group * shape.n // groups, (group + 1) * shape.n // groups
        _filter_task(images, x, dy, argmax, shape, size, vectors, lanes, tables, sums[group])
    for k in prange(shape.k):
        _add_groups(sums, k, columns, dw[k])


@njit(cache=True, nogil=True, inline="always")
def _add_writes(  # type: ignore[no-untyped-def]
    image, source, weights, listed, values, first, count, starts, dense, vectors, lanes
):
    """Add value times filter, for every one listed, to what was read from `source` on."""
    for vector in range(0, len(starts), len(vectors)):
        block = loaded_at(image, source, starts, vector, vectors, lanes)
        for i in range(first, first + count):
            block = add_scaled(block, values, i, weights, dense, vector, listed[i])
        store_at(block, image, source, 0, starts, vector)


@njit(cache=True, nogil=True, inline="always")
def _list_by_cell(n, window, dy, argmax, shape, step, counts, listed, values):  # type: ignore[no-untyped-def]
    """List a window's filters by which cell was their maximum; those that are closed come last."""
    cells = len(counts) - 1
    windows = shape.pooled_p * shape.pooled_q
    counts[:] = 0
    for k in range(shape.k):
        at = np.uint64((n * shape.k + k) * windows + window)
        cell = min(np.int64(argmax[at]), cells)
        i = np.uint64(cell * shape.k + counts[cell])
        listed[i] = k * step
        values[i] = dy[at]
        counts[cell] += 1


@njit(cache=True, nogil=True)
def _all_finite(values):  # type: ignore[no-untyped-def]
    wrong = 0
    for i in range(len(values)):
        wrong += not np.abs(values[i]) < np.inf
    return wrong == 0


@njit(cache=True, nogil=True)
def _scatter(n, dy, argmax, w, shape, width, image):  # type: ignore[no-untyped-def]
    """Add up one product at a time, without the zeros behind a segment's end."""
    for k in range(shape.k):
        for window in range(shape.pooled_p * shape.pooled_q):
            at = (n * shape.k + k) * shape.pooled_p * shape.pooled_q + window
            if argmax[at] != CLOSED:
                p, q = window // shape.pooled_q, window % shape.pooled_q
                p = p * shape.pool_r + argmax[at] // shape.pool_s
                q = q * shape.pool_s + argmax[at] % shape.pool_s
                for tap in range(w.shape[1]):
                    c, r, s = tap // shape.s // shape.r, tap // shape.s % shape.r, tap % shape.s
                    row = p * shape.stride_h + r * shape.dilation_h
                    col = q * shape.stride_w + s * shape.dilation_w
                    image[(row * width + col) * shape.c + c] += dy[at] * w[k, tap]


@njit(cache=True, nogil=True)
def _data_task(images, dy, argmax, w, weights, dx, shape, size, vectors, lanes, tables):  # type: ignore[no-untyped-def]
    """Compute dx of some images."""
    starts, dense, windows, places = tables
    image = aligned_empty(2 * size[0] * size[1] * shape.c + len(lanes), dx)
    cells = shape.pool_r * shape.pool_s
    counts = np.empty(cells + 1, np.int64)
    listed = np.empty((cells + 1) * shape.k, np.int64)
    values = np.empty((cells + 1) * shape.k, dx.dtype)
    step, planes = len(starts) * len(lanes), shape.k * len(windows)
    for n in range(images[0], images[1]):
        image[:] = 0
        if _all_finite(dy[n * planes : (n + 1) * planes]):
            for window in range(len(windows)):
                _list_by_cell(n, window, dy, argmax, shape, step, counts, listed, values)
                for cell in range(cells):
                    if counts[cell]:
                        _add_writes(
                            image, windows[window] + places[cell], weights, listed, values,
                            cell * shape.k, counts[cell], starts, dense, vectors, lanes,
                        )  # fmt: skip
        else:
            _scatter(n, dy, argmax, w, shape, size[1], image)
        _channels_first(image, n, shape, size[1], dx)


@njit(cache=True, nogil=True)
def _by_lane(w, columns):  # type: ignore[no-untyped-def]
    """Return the filters in the order of an image's segments, zeros behind their ends."""
    weights = np.zeros(len(w) * len(columns), w.dtype)
    for k in range(len(w)):
        for i in range(len(columns)):
            if columns[i] >= 0:
                weights[k * len(columns) + i] = w[k, columns[i]]
    return weights


@njit(cache=True, nogil=True, parallel=True)
def data_gradient(groups, dy, argmax, w, dx, shape, size, vectors, lanes, tables, columns):  # type: ignore[no-untyped-def]
    """Write flat dx from flat dy and argmax, and w (K, C*R*S); the rest is `segments_plan`'s."""
    weights = _by_lane(w, columns)
    for group in prange(groups):
        images = group * shape.n // groups, (group + 1) * shape.n // groups
        _data_task(images, dy, argmax, w, weights, dx, shape, size, vectors, lanes, tables)


@njit(cache=True, nogil=True, parallel=True, fastmath={"reassoc", "contract", "nsz"})
def sum_open(dy, argmax, sums):  # type: ignore[no-untyped-def]
    """Add up every plane's dy where its ReLU is open."""
    for plane in prange(len(sums)):
        total = dy.dtype.type(0)
        for i in range(dy.shape[1]):
            total += dy[plane, i] if argmax[plane, i] != CLOSED else dy.dtype.type(0)
        sums[plane] = total
