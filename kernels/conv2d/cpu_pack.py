"""Packing for the `cpu` kernels: planes of many images to SIMD lanes and back.

Packed, a plane is (packed_rows, packed_cols, lanes): one vector holds the same cell of `lanes`
images or bands, as `Bands` (cpu_plan.py) deals them out, and what lies outside an image is zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from kernels.conv2d.cpu_lanes import VECTOR_BYTES, transpose


@njit(cache=True, nogil=True)
def vector_starts(lanes):  # type: ignore[no-untyped-def]
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
            transpose(tensor, starts, shift + cell, packed, places, first + cell * lanes, tensor)
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
def pack(tensor, chunk, plane, bands, packed, first):  # type: ignore[no-untyped-def]
    """Pack one plane of a chunk to (packed_rows, packed_cols, lanes), zeros around the tensor."""
    lanes = VECTOR_BYTES // tensor.itemsize
    places = vector_starts(lanes)
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
def unpack(packed, first, tensor, chunk, plane, bands, like):  # type: ignore[no-untyped-def]
    """Write one packed plane of a chunk back to the tensor, leaving out what lies outside it.

    There are as many lanes as an array like `like` has; the planes themselves may be of bytes.
    """
    lanes = VECTOR_BYTES // like.itemsize
    places = vector_starts(lanes)
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
        transpose(packed, places, first + cell * lanes, tensor, starts, cell, like)
    for lane in range(lanes):
        for i in range(done, counts[lane]):
            tensor[starts[lane] + i] = packed[first + i * lanes + lane]
