"""The fused block's gradients on CPU cores, in Numba: only what was a maximum has one.

dw[k,c,r,s] = sum over open windows (n,k,i,j) of dy x[n,c,h,w], of what its maximum read
dx[n,c,h,w] = sum over open windows whose maximum read it of dy w[k,c,r,s]
Threads: a task is a group of images; groups' parts of dw are added up in one order.
Idea: one cell in four of a convolution before 2x2 pooling has a gradient, another one in every
image and filter, so that images cannot be lanes. An image lies with its channels innermost: what
one cell read is then a few runs of neighbours, which are handled as whole registers. A filter's
open windows are listed. For dw its gradient stays in registers and the image is read at any place;
for dx the filter stays, and every column of outputs adds to slots of its own, which lie on
registers' boundaries: sums that meet in memory meet exactly, and a load need not wait for two
stores that it overlaps. Then a row's slots are added up.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from kernels.conv2d.cpu_lanes import add_scaled, aligned_empty, store_at
from kernels.conv2d_relu_pool.cpu_lanes import add_multiple, loaded_at
from kernels.conv2d_relu_pool.cpu_plan import FEW_VECTORS
from kernels.shapes import CLOSED

ONE = (0,)  # of which the length is what counts


@njit(cache=True, nogil=True)
def channels_last(x, n, shape, width, image):  # type: ignore[no-untyped-def]
    """Copy image n into the middle of `image`, cell by cell."""
    for c in range(shape.c):
        for h in range(shape.h):
            row = x[((n * shape.c + c) * shape.h + h) * shape.w :]
            to = image[((h + shape.pad_top) * width + shape.pad_left) * shape.c + c :]
            for w in range(shape.w):
                to[np.uint64(w * shape.c)] = row[w]


@njit(cache=True, nogil=True)
def _channels_first(image, n, shape, step, dx):  # type: ignore[no-untyped-def]
    """Copy the middle of `image`, whose rows are `step` apart, to image n of dx."""
    for c in range(shape.c):
        for h in range(shape.h):
            row = image[(h + shape.pad_top) * step + shape.pad_left * shape.c + c :]
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
def takes_turns(vectors):  # type: ignore[no-untyped-def]
    """Tell whether two sums take turns, as each addition to so few vectors waits for the last."""
    return len(vectors) == FEW_VECTORS


@njit(cache=True, nogil=True, inline="always")
def add_reads(image, sources, values, count, starts, dense, vectors, lanes, sums):  # type: ignore[no-untyped-def]
    """Add value times what was read, for every one listed, to one filter's sum, or two."""
    half = len(sums) // 2
    for vector in range(0, len(starts), len(vectors)):
        even = loaded_at(sums, 0, dense, vector, vectors, lanes)
        done = 0
        if takes_turns(vectors):
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
        channels_last(x, n, shape, size[1], image)
        for k in range(shape.k):
            plane = (n * shape.k + k) * len(windows)
            count = _list_open(
                dy[plane : plane + len(windows)], argmax[plane : plane + len(windows)],
                windows, places, sources, values,
            )  # fmt: skip
            add_reads(image, sources, values, count, starts, dense, vectors, lanes, sums[k])


@njit(cache=True, nogil=True)
def add_groups(sums, k, columns, dw):  # type: ignore[no-untyped-def]
    """Add up all groups' sums of one filter."""
    total = sums[0, k]
    for group in range(1, len(sums)):
        for i in range(len(total)):
            total[i] += sums[group, k, i]
    for i in range(len(columns)):
        if columns[i] >= 0:
            dw[columns[i]] = total[i]
            if len(total) > len(columns):
                dw[columns[i]] += total[len(columns) + i]


@njit(cache=True, nogil=True, parallel=True)
def filter_gradient(groups, x, dy, argmax, shape, size, vectors, lanes, tables, columns, dw):  # type: ignore[no-untyped-def]
    """Write dw (K, C*R*S) from flat x, dy and argmax; the rest is `segments_plan`'s."""
    sums = np.empty((groups, shape.k, (1 + takes_turns(vectors)) * len(columns)), x.dtype)
    for group in prange(groups):
        images = group * shape.n // groups, (group + 1) * shape.n // groups
        _filter_task(images, x, dy, argmax, shape, size, vectors, lanes, tables, sums[group])
    for k in prange(shape.k):
        add_groups(sums, k, columns, dw[k])


@njit(cache=True, nogil=True, inline="always")
def _add_writes(slots, sources, values, count, weights, k, plan, vectors, lanes):  # type: ignore[no-untyped-def]
    """Add value times filter k, for every one listed, to the slots from its own on."""
    filter_k = k * len(plan.starts) * len(lanes)
    for vector in range(0, len(plan.starts), len(vectors)):
        taps = loaded_at(weights, filter_k, plan.dense, vector, vectors, lanes)
        for i in range(count):
            add_multiple(taps, values, i, slots, plan.starts, vector, sources[i])


@njit(cache=True, nogil=True)
def merge(slots, plan, lanes, one, image, first):  # type: ignore[no-untyped-def]
    """Add up the slots of every row, to what is in the image from `first` on."""
    for h in range(plan.reads):
        begin = 0
        for vector in range(len(plan.ends)):
            place = first + vector * len(lanes)
            total = loaded_at(image, place, plan.dense, 0, ONE, lanes)
            for i in range(begin, plan.ends[vector]):
                total = add_scaled(total, one, 0, slots, plan.merged, i, h * plan.pitch)
            store_at(total, image, place, 0, plan.dense, 0)
            begin = plan.ends[vector]
        first += plan.row


@njit(cache=True, nogil=True)
def all_finite(values):  # type: ignore[no-untyped-def]
    """Tell whether no value is an infinity or a NaN."""
    wrong = 0
    for i in range(len(values)):
        wrong += not np.abs(values[i]) < np.inf
    return wrong == 0


@njit(cache=True, nogil=True)
def scatter(n, dy, argmax, w, shape, row, image):  # type: ignore[no-untyped-def]
    """Add up one product at a time, without the zeros around a run."""
    for k in range(shape.k):
        for window in range(shape.pooled_p * shape.pooled_q):
            at = (n * shape.k + k) * shape.pooled_p * shape.pooled_q + window
            if argmax[at] != CLOSED:
                p, q = window // shape.pooled_q, window % shape.pooled_q
                p = p * shape.pool_r + argmax[at] // shape.pool_s
                q = q * shape.pool_s + argmax[at] % shape.pool_s
                for tap in range(w.shape[1]):
                    c, r, s = tap // shape.s // shape.r, tap // shape.s % shape.r, tap % shape.s
                    h = p * shape.stride_h + r * shape.dilation_h
                    col = q * shape.stride_w + s * shape.dilation_w
                    image[h * row + col * shape.c + c] += dy[at] * w[k, tap]


@njit(cache=True, nogil=True)
def _gather(n, dy, argmax, weights, shape, plan, vectors, lanes, one, lists, slots, image):  # type: ignore[no-untyped-def]
    """Add up what the open windows of an image hand to its input, band by band."""
    sources, values = lists
    for band in range(0, shape.pooled_p, plan.rows):
        windows = min(plan.rows, shape.pooled_p - band) * shape.pooled_q
        slots[:] = 0
        for k in range(shape.k):
            plane = ((n * shape.k + k) * shape.pooled_p + band) * shape.pooled_q
            count = _list_open(
                dy[plane : plane + windows], argmax[plane : plane + windows],
                plan.windows, plan.places, sources, values,
            )  # fmt: skip
            _add_writes(slots, sources, values, count, weights, k, plan, vectors, lanes)
        merge(slots, plan, lanes, one, image, band * shape.pool_r * shape.stride_h * plan.row)


@njit(cache=True, nogil=True)
def _data_task(images, dy, argmax, w, weights, dx, shape, plan, vectors, lanes):  # type: ignore[no-untyped-def]
    """Compute dx of some images."""
    image = aligned_empty(plan.image, dx)
    slots = aligned_empty(plan.slots, dx)
    lists = (
        np.empty(len(plan.windows) + 1, np.int64), np.empty(len(plan.windows) + 1, dx.dtype)
    )  # fmt: skip
    one = np.ones(1, dx.dtype)
    planes = shape.k * shape.pooled_p * shape.pooled_q
    for n in range(images[0], images[1]):
        image[:] = 0
        if all_finite(dy[n * planes : (n + 1) * planes]):
            _gather(n, dy, argmax, weights, shape, plan, vectors, lanes, one, lists, slots, image)
        else:
            scatter(n, dy, argmax, w, shape, plan.row, image)
        _channels_first(image, n, shape, plan.row, dx)


@njit(cache=True, nogil=True)
def by_lane(w, columns):  # type: ignore[no-untyped-def]
    """Return the filters in the order of an image's segments, zeros behind their ends."""
    weights = np.zeros(len(w) * len(columns), w.dtype)
    for k in range(len(w)):
        for i in range(len(columns)):
            if columns[i] >= 0:
                weights[k * len(columns) + i] = w[k, columns[i]]
    return weights


@njit(cache=True, nogil=True, parallel=True)
def data_gradient(groups, dy, argmax, w, dx, shape, plan, vectors, lanes):  # type: ignore[no-untyped-def]
    """Write flat dx from flat dy and argmax, and w (K, C*R*S), as `slots_plan` lays it out."""
    weights = by_lane(w, plan.columns)
    for group in prange(groups):
        images = group * shape.n // groups, (group + 1) * shape.n // groups
        _data_task(images, dy, argmax, w, weights, dx, shape, plan, vectors, lanes)


@njit(cache=True, nogil=True, parallel=True, fastmath={"reassoc", "contract", "nsz"})
def sum_open(dy, argmax, sums):  # type: ignore[no-untyped-def]
    """Add up every plane's dy where its ReLU is open."""
    for plane in prange(len(sums)):
        total = dy.dtype.type(0)
        for i in range(dy.shape[1]):
            total += dy[plane, i] if argmax[plane, i] != CLOSED else dy.dtype.type(0)
        sums[plane] = total
