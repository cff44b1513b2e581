"""The gradients of two fused blocks, one behind the other (`cpu_pair.py`), on CPU cores.

dw and db of both blocks, as in `cpu_gradient.py`; x needs no gradient
Threads: a task is a group of images; groups' parts are added up in one order.
Idea: what the second block hands to the first stays in cache. Its two gradients walk one list of
open windows, and what an output read is copied to where its slot of the input's gradient is, on
registers' boundaries. Lists are made by compressing vectors, which adds up the biases' gradients.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from kernels.conv2d.cpu_lanes import VECTOR_BYTES, aligned_empty, loaded, store_dense
from kernels.conv2d_relu_pool.cpu_gradient import (
    add_groups,
    add_reads,
    all_finite,
    by_lane,
    channels_last,
    merge,
    scatter,
    takes_turns,
)
from kernels.conv2d_relu_pool.cpu_lanes import add_and_hand_back, add_runs, list_open
from kernels.conv2d_relu_pool.cpu_pair import Kept
from kernels.conv2d_relu_pool.cpu_plan import MOST_GROUPS, segments_plan, slots_plan
from kernels.cpu_threads import one_launch
from kernels.shapes import BlockShape

ONE = (0,)  # of which the length is what counts


class Tables(NamedTuple):
    """Where the first block finds things, and the second: beside the latter's `Slots`."""

    width: int  # of the first block's image with its padding, as in `Segments`
    image: int  # elements of it
    starts: np.ndarray  # as in `Segments`
    dense: np.ndarray
    columns: np.ndarray
    windows: np.ndarray  # pooled cell -> what its first cell reads first, and room for a vector
    handed: np.ndarray  # pooled cell -> its place in what the second block hands back; room as well
    steps: np.ndarray  # what `list_open` finds a cell of a window by
    slot_windows: np.ndarray  # the second block's
    slot_steps: np.ndarray


@lru_cache(maxsize=64)
def _tables(
    first: BlockShape, second: BlockShape, lanes: int, itemsize: int
) -> tuple[Any, Tables, tuple[tuple[int, ...], ...]]:
    """Return the second block's `Slots`, the tables, and tuples whose length counts.

    These are the second block's vectors and runs, the lanes of a vector, and the first block's
    vectors and lanes.
    """
    slots, _, _ = slots_plan(second, lanes, itemsize)
    vectors = second.r * (slots.pitch // lanes - 1)
    slots = slots._replace(columns=slots.columns[: vectors * lanes])  # no idle ones
    segments = segments_plan(first, lanes)
    height, width = segments.size
    row, col = width * first.c, first.stride_w * first.c

    def table(places: np.ndarray) -> np.ndarray:
        return np.pad(places.ravel(), (0, lanes)).astype(np.int32)

    def steps(shape: BlockShape, row: int, col: int) -> np.ndarray:
        return np.array((65536 // shape.pool_s + 1, row - shape.pool_s * col, col), np.int32)

    handed = np.arange(second.h)[:, None] * slots.row + np.arange(second.w) * second.c
    slot = second.stride_h * slots.pitch, slots.reads * slots.pitch
    tables = Tables(
        width, height * width * first.c, segments.starts, segments.dense, segments.columns,
        table(segments.windows), table(handed), steps(first, row * first.stride_h, col),
        table(slots.windows + lanes), steps(second, *slot),
    )  # fmt: skip
    return slots, tables, ((0,) * vectors, (0,) * second.r, (0,) * lanes, *segments.block)


@njit(cache=True, nogil=True)
def _list_plane(argmax, first, values, start, handed, windows, steps, lists, sums, at):  # type: ignore[no-untyped-def]
    """List the open windows of a plane: what their maximum read, and their gradient."""
    lanes = VECTOR_BYTES // values.itemsize
    count, end = len(windows) - lanes, np.int64(0)
    for i in range(0, count, lanes):
        end = list_open(
            argmax, first + i, values, start, handed, i, windows, count - i, steps,
            lists[0], lists[1], end, sums, at,
        )  # fmt: skip
    return end


@njit(cache=True, nogil=True)
def _copy_columns(between, n, shape, plan, image):  # type: ignore[no-untyped-def]
    """Copy what each column of outputs reads of image n to where its slots are."""
    lanes = VECTOR_BYTES // image.itemsize
    row = shape.w * shape.c
    for q in range(shape.pooled_q * shape.pool_s):
        for h in range(plan.reads):
            source = (n * shape.h + h) * row + q * shape.stride_w * shape.c
            to = (q * plan.reads + h) * plan.pitch + lanes
            for place in range(0, plan.pitch - lanes, lanes):
                store_dense(loaded(between, source + place, ONE, ONE), image, to + place)


@njit(cache=True, nogil=True)
def _add_second(n, dy, argmax, weights, shape, plan, tables, lengths, finite, arrays, sums, biases):  # type: ignore[no-untyped-def]
    """Add image n to the second block's gradients, and to the slots what it hands back."""
    image, slots, lists, _ = arrays
    vectors, runs, lanes = lengths
    places, values = lists
    step, size = shape.dilation_h * plan.pitch, len(vectors) * len(lanes)
    for k in range(shape.k):
        plane = (n * shape.k + k) * shape.pooled_p * shape.pooled_q
        count = _list_plane(
            argmax, plane, dy, plane, None, tables.slot_windows, tables.slot_steps, lists,
            biases, k * len(lanes),
        )  # fmt: skip
        total = loaded(sums, k * size, ONE, vectors)
        if finite:
            taps = loaded(weights, k * size, ONE, vectors)
            for i in range(count):
                place = np.int64(places[i])
                total = add_and_hand_back(total, values, i, image, place, step, runs, taps, slots)
        else:
            for i in range(count):
                total = add_runs(total, values, i, image, np.int64(places[i]), step, runs)
        store_dense(total, sums, k * size)


@njit(cache=True, nogil=True)
def _hand_back(n, dy, kept, w, weights, shape, plan, tables, lengths, arrays, sums, biases):  # type: ignore[no-untyped-def]
    """Add image n to the second block's gradients, and return what it hands to the first."""
    image, slots, _, dx = arrays
    _copy_columns(kept.between, n, shape, plan, image)
    planes = shape.k * shape.pooled_p * shape.pooled_q
    # Around a run are zeros, which only what is finite can be multiplied by.
    finite = all_finite(dy[n * planes : (n + 1) * planes])
    slots[:] = 0
    _add_second(
        n, dy, kept.second, weights, shape, plan, tables, lengths, finite, arrays, sums, biases
    )
    dx[:] = 0
    if finite:
        merge(slots, plan, lengths[2], np.ones(1, dx.dtype), dx, 0)
    else:
        scatter(n, dy, kept.second, w, shape, plan.row, dx)
    return dx


@njit(cache=True, nogil=True)
def _task(images, x, dy, kept, w, weights, shapes, plan, tables, lengths, lengths1, sums):  # type: ignore[no-untyped-def]
    """Add up all gradients over some images."""
    first, second = shapes
    sums1, biases1, sums2, biases2 = sums
    spare = VECTOR_BYTES // x.itemsize
    count = len(tables.slot_windows)
    lists = np.empty(count, np.int32), np.empty(count, x.dtype)
    arrays = (
        aligned_empty(plan.slots, x), aligned_empty(plan.slots, x), lists,
        aligned_empty(plan.image, x),
    )  # fmt: skip
    count = len(tables.windows)
    places, values = np.empty(count, np.int32), np.empty(count, x.dtype)
    image = aligned_empty(2 * tables.image + spare, x)  # an idle vector reads behind the image
    image[:] = 0
    sums1[:] = 0
    biases1[:] = 0
    sums2[:] = 0
    biases2[:] = 0
    vectors1, lanes1 = lengths1
    for n in range(images[0], images[1]):
        dx = _hand_back(
            n, dy, kept, w, weights, second, plan, tables, lengths, arrays, sums2, biases2
        )
        channels_last(x, n, first, tables.width, image)
        for k in range(first.k):
            plane = (n * first.k + k) * first.pooled_p * first.pooled_q
            count = _list_plane(
                kept.first, plane, dx, k, tables.handed, tables.windows, tables.steps,
                (places, values), biases1, k * spare,
            )  # fmt: skip
            add_reads(
                image, places, values, count, tables.starts, tables.dense, vectors1, lanes1,
                sums1[k],
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _add_biases(sums, k, db):  # type: ignore[no-untyped-def]
    """Add up all groups' and lanes' sums of one filter."""
    lanes = sums.shape[1] // len(db)
    db[k] = 0
    for group in range(len(sums)):
        for lane in range(lanes):
            db[k] += sums[group, k * lanes + lane]


@njit(cache=True, nogil=True, parallel=True)
def _gradients(  # type: ignore[no-untyped-def]
    groups, x, dy, kept, w, first, second, plan, tables, vectors, runs, lanes, vectors1, lanes1, out
):  # fmt: skip
    weights = by_lane(w, plan.columns)
    taps1 = (1 + takes_turns(vectors1)) * len(tables.columns)
    sums1, sums2 = (
        np.empty((groups, first.k, taps1), x.dtype),
        np.empty((groups, second.k, len(plan.columns)), x.dtype),
    )
    biases1 = np.empty((groups, first.k * len(lanes)), x.dtype)
    biases2 = np.empty((groups, second.k * len(lanes)), x.dtype)
    for group in prange(groups):
        images = group * first.n // groups, (group + 1) * first.n // groups
        sums = sums1[group], biases1[group], sums2[group].reshape(-1), biases2[group]
        _task(
            images, x, dy, kept, w, weights, (first, second), plan, tables,
            (vectors, runs, lanes), (vectors1, lanes1), sums,
        )  # fmt: skip
    dw1, db1, dw2, db2 = out
    for k in prange(first.k + second.k):
        if k < first.k:
            add_groups(sums1, k, tables.columns, dw1[k])
            _add_biases(biases1, k, db1)
        else:
            add_groups(sums2, k - first.k, plan.columns, dw2[k - first.k])
            _add_biases(biases2, k - first.k, db2)


def backward(
    x: np.ndarray,
    kept: Kept,
    dy: np.ndarray,
    w: np.ndarray,
    gradients: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    first: BlockShape,
    second: BlockShape,
) -> None:
    """Write dw and db of the first block, and of the second.

    Parameters
    ----------
    x, kept
        Of the forward pass.
    dy
        Gradient with respect to its output.
    w
        The second block's filters.
    gradients
        The results, of the shapes of `forward`'s parameters.
    first, second
        As for `forward`.
    """
    slots, tables, lengths = _tables(first, second, VECTOR_BYTES // x.itemsize, x.itemsize)
    dw1, db1, dw2, db2 = gradients
    with one_launch:
        _gradients(
            min(first.n, MOST_GROUPS), x.reshape(-1), dy.reshape(-1), kept,
            w.reshape(second.k, -1), first, second, slots, tables, *lengths,
            (dw1.reshape(first.k, -1), db1, dw2.reshape(second.k, -1), db2),
        )  # fmt: skip
