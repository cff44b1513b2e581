"""The tables that the fused block's `cpu` kernels walk, by shape.

Forward, images are SIMD lanes, dealt out as conv2d's are. Backward, an image is packed by itself
with its channels innermost: the part of it that one output reads is then R segments of S*C
neighbours (R*S of C, where the filter is dilated), and a lane is one of these.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels.conv2d.cpu_lanes import BLOCK_VECTORS
from kernels.conv2d.cpu_plan import INDEX, Bands, band_count, part_count
from kernels.shapes import BlockShape

CELLS = 4  # cells of a window that are computed together
# Filters that are computed together.
FILTERS = BLOCK_VECTORS // 4, BLOCK_VECTORS // 6, 1
# Vectors that stay in registers: of a filter's gradient, or of the input's.
MOST_VECTORS, FEW_VECTORS = 10, 5
BAND_BYTES = 1 << 16  # about what a band's slots fill
MOST_GROUPS = 32  # of images; each makes a partial sum of the filters' gradient


class Windows(NamedTuple):
    """A sum over taps for every cell of every pooling window."""

    source: Bands
    target: Bands
    filters: int
    parts: int  # tasks that share a chunk, each with its own filters
    tap_offset: np.ndarray  # tap -> its place in the packed source, from the cell's
    window_source: np.ndarray  # window -> its first cell's place
    cells: np.ndarray  # cell of a window -> its place, from the first's; the last one repeated


class Segments(NamedTuple):
    """Where an image's cells are when its channels are innermost, with its padding around it.

    Every offset counts elements of the packed image.
    """

    size: tuple[int, int]  # rows and columns of the image with its padding
    # Tuples whose length counts: vectors computed together; lanes, a register's or half of them.
    block: tuple[tuple[int, ...], tuple[int, ...]]
    starts: np.ndarray  # vector -> its place, from the first tap's
    dense: np.ndarray  # vector -> its place in a filter
    columns: np.ndarray  # lane of a vector -> (c, r, s) of a filter, -1 behind a segment's end
    windows: np.ndarray  # pooled cell -> what its first cell reads first
    places: np.ndarray  # cell of a window -> how much further on it reads


class Slots(NamedTuple):
    """Where one image's outputs add what they hand to the input, before it is added up.

    Every column of outputs has slots of its own, one for each of the input's rows: what an output
    writes begins on a vector's boundary, and meets only what lies exactly above it. Then a row of
    the input is the sum of its columns' slots, each as far along as its column. An image too large
    for that goes in bands of pooled rows.
    """

    rows: int  # pooled rows of a band
    reads: int  # rows of the input that they read
    pitch: int  # elements of a slot
    slots: int  # elements of all of them
    row: int  # elements of a row of the image with its padding
    image: int  # elements of all of them
    starts: np.ndarray  # vector -> its place, from the first tap's slot
    dense: np.ndarray  # vector -> its place in a filter
    columns: np.ndarray  # lane of a vector -> (c, r, s) of a filter, -1 behind a run's end
    windows: np.ndarray  # pooled cell of a band -> its first cell's slot
    places: np.ndarray  # cell of a window -> how much further on its slot is
    merged: np.ndarray  # places that add up to a row's vectors, from the row's first slot
    ends: np.ndarray  # vector of a row -> where its places end


@lru_cache(maxsize=64)
def forward_plan(shape: BlockShape, lanes: int, itemsize: int) -> Windows:
    """Return the plan of the pooled maxima."""
    reach_h = (shape.r - 1) * shape.dilation_h + 1
    reach_w = (shape.s - 1) * shape.dilation_w + 1
    step_h, step_w = shape.pool_r * shape.stride_h, shape.pool_s * shape.stride_w
    filters = _filters(shape.k)
    groups = -(-shape.k // filters)
    packed_cols = shape.pooled_q * step_w - shape.stride_w + reach_w
    window = shape.pool_r * shape.pool_s * shape.c * shape.r * shape.s
    row_work = shape.pooled_q * groups * filters * window / 2 + 16.0 * shape.c * packed_cols
    halo_work = 16.0 * shape.c * packed_cols * reach_h
    row_bytes = shape.c * packed_cols * lanes * itemsize * step_h
    bands = band_count(
        shape.n, shape.pooled_p, lanes, (row_work, halo_work, row_bytes), groups,
        range(1, shape.pooled_p + 1),
    )  # fmt: skip
    rows = -(-shape.pooled_p // bands)
    bands = -(-shape.pooled_p // rows)
    chunks = -(-shape.n * bands // lanes)
    packed_rows = rows * step_h - shape.stride_h + reach_h
    source = Bands(
        shape.n, shape.c, shape.h, shape.w, bands, chunks,
        -shape.pad_top, rows * step_h, -shape.pad_left, packed_rows, packed_cols,
    )  # fmt: skip
    target = Bands(
        shape.n, shape.k, shape.pooled_p, shape.pooled_q, bands, chunks,
        0, rows, 0, rows, shape.pooled_q,
    )  # fmt: skip
    tap_offset = [
        (c * packed_rows + r * shape.dilation_h) * packed_cols + s * shape.dilation_w
        for c in range(shape.c)
        for r in range(shape.r)
        for s in range(shape.s)
    ]
    window_source = [
        i * step_h * packed_cols + j * step_w for i in range(rows) for j in range(shape.pooled_q)
    ]
    cells = [
        i * shape.stride_h * packed_cols + j * shape.stride_w
        for i in range(shape.pool_r)
        for j in range(shape.pool_s)
    ]
    cells += cells[-1:] * (-len(cells) % CELLS)
    return Windows(
        source, target, filters, part_count(chunks, groups),
        np.array(tap_offset, INDEX) * lanes, np.array(window_source, INDEX) * lanes,
        np.array(cells, INDEX) * lanes,
    )  # fmt: skip


@lru_cache(maxsize=64)
def windows_of_lanes(
    shape: BlockShape, lanes: int
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Return filters computed together and `Windows`' tables for images that are lanes already.

    Their cells lie row by row with their channels innermost, and there is no padding.
    """
    row = shape.w * shape.c
    tap_offset = [
        r * shape.dilation_h * row + s * shape.dilation_w * shape.c + c
        for c in range(shape.c)
        for r in range(shape.r)
        for s in range(shape.s)
    ]
    step_h, step_w = shape.pool_r * shape.stride_h, shape.pool_s * shape.stride_w
    window_source = [
        i * step_h * row + j * step_w * shape.c
        for i in range(shape.pooled_p)
        for j in range(shape.pooled_q)
    ]
    cells = [
        i * shape.stride_h * row + j * shape.stride_w * shape.c
        for i in range(shape.pool_r)
        for j in range(shape.pool_s)
    ]
    cells += cells[-1:] * (-len(cells) % CELLS)
    filters = _filters(shape.k)
    return (
        filters, np.array(tap_offset, INDEX) * lanes, np.array(window_source, INDEX) * lanes,
        np.array(cells, INDEX) * lanes,
    )  # fmt: skip


def _filters(count: int) -> int:
    """Return how many filters are computed together."""
    return min(FILTERS, key=lambda size: max(1, 3 / size) * -(-count // size) * size)


def _block(runs: int, length: int, lanes: int) -> tuple[int, int]:
    """Return the lanes of a vector, and how many vectors stay in registers, for runs of a length.

    Whole registers cost more: where they begin at any place, most of them cross a cache line.
    """

    def cost(layout: tuple[int, int]) -> int:
        wide, vectors = layout
        count = runs * -(-length // wide)
        return -(-count // vectors) * vectors * (3 if wide == lanes else 2)

    return min([(lanes, MOST_VECTORS), (lanes, FEW_VECTORS), (lanes // 2, FEW_VECTORS)], key=cost)


def _runs(shape: BlockShape) -> tuple[int, int]:
    """Return how many columns of taps are neighbours in an image, and how many runs they make."""
    # The channels of all columns are, unless the filter is dilated.
    joined = shape.s if shape.dilation_w == 1 else 1
    return joined, shape.r * shape.s // joined


def _columns(shape: BlockShape, r: int, s: int, first: int, lanes: int) -> list[int]:
    """Return which (c, r, s) of a filter the lanes from `first` on are in the run from (r, s)."""
    joined, _ = _runs(shape)
    here = [divmod(i, shape.c) for i in range(first, first + lanes)]
    return [(c * shape.r + r) * shape.s + s + i if i < joined else -1 for i, c in here]


@lru_cache(maxsize=64)
def segments_plan(shape: BlockShape, lanes: int) -> Segments:
    """Return where the filters' gradient finds what an output read; `lanes` fill a register."""
    height = shape.h + shape.pad_top + shape.pad_bottom
    width = shape.w + shape.pad_left + shape.pad_right
    cells = np.arange(height * width).reshape(height, width) * shape.c
    joined, runs = _runs(shape)
    lanes, vectors = _block(runs, joined * shape.c, lanes)
    starts: list[int] = []
    columns: list[list[int]] = []
    for r in range(shape.r):
        for s in range(0, shape.s, joined):
            start = int(cells[r * shape.dilation_h, s * shape.dilation_w])
            for first in range(0, joined * shape.c, lanes):
                starts.append(start + first)
                columns.append(_columns(shape, r, s, first, lanes))
    idle = -len(starts) % vectors
    starts += [cells.size * shape.c] * idle  # behind the image
    columns += [[-1] * lanes] * idle
    step_h, step_w = shape.pool_r * shape.stride_h, shape.pool_s * shape.stride_w
    windows = cells[: shape.pooled_p * step_h : step_h, : shape.pooled_q * step_w : step_w]
    places = cells[: step_h : shape.stride_h, : step_w : shape.stride_w]
    return Segments(
        (height, width), ((0,) * vectors, (0,) * lanes), np.array(starts, INDEX),
        np.arange(len(starts)) * lanes, np.array(columns, INDEX).ravel(),
        windows.ravel().astype(INDEX), _by_argmax(places),
    )  # fmt: skip


def _by_argmax(places: np.ndarray) -> np.ndarray:
    """Return a window's places for every value of argmax: what is closed is looked up as well."""
    by_argmax = np.zeros(256, INDEX)
    by_argmax[: places.size] = places.ravel()
    return by_argmax


@lru_cache(maxsize=64)
def slots_plan(
    shape: BlockShape, lanes: int, itemsize: int
) -> tuple[Slots, tuple[int, ...], tuple[int, ...]]:
    """Return where the input's gradient gathers what each output hands on.

    Beside it, as in `Segments`, tuples whose length counts: vectors computed together; lanes.
    """
    joined, runs = _runs(shape)
    length = joined * shape.c
    lanes, vectors = _block(runs, length, lanes)
    # A run begins on a vector's boundary; before and behind it is a vector of zeros.
    run = (-(-length // lanes) + 1) * lanes
    pitch = run * (shape.s // joined)
    step_h, columns_q = shape.pool_r * shape.stride_h, shape.pooled_q * shape.pool_s
    reach = (shape.r - 1) * shape.dilation_h + 1

    def height(rows: int) -> int:
        return rows * step_h - shape.stride_h + reach

    row_bytes = columns_q * pitch * itemsize
    rows = max(1, min(shape.pooled_p, ((BAND_BYTES // row_bytes) - reach) // step_h))
    reads = height(rows)
    width = (shape.w + shape.pad_left + shape.pad_right) * shape.c
    row = -(-width // lanes) * lanes
    bands = -(-shape.pooled_p // rows)
    image = max(shape.h + shape.pad_top + shape.pad_bottom, height(bands * rows)) * row
    starts: list[int] = []
    columns: list[list[int]] = []
    for r in range(shape.r):
        for s in range(0, shape.s, joined):
            for first in range(0, length, lanes):
                starts.append(r * shape.dilation_h * pitch + lanes + s // joined * run + first)
                columns.append(_columns(shape, r, s, first, lanes))
    slots = np.arange(columns_q * reads).reshape(columns_q, reads).T * pitch
    idle = -len(starts) % vectors
    starts += [0] * idle  # zeros are added to those before the run
    columns += [[-1] * lanes] * idle
    windows = slots[: rows * step_h : step_h, :: shape.pool_s]
    places = slots[: step_h : shape.stride_h, : shape.pool_s]
    merged: list[int] = []
    ends: list[int] = []
    for first in range(0, width, lanes):
        for q in range(columns_q):
            for s in range(0, shape.s, joined):
                ahead = first - (q * shape.stride_w + s * shape.dilation_w) * shape.c
                if -lanes < ahead < length:
                    merged.append(q * reads * pitch + lanes + s // joined * run + ahead)
        ends.append(len(merged))
    slots_and_tables = Slots(
        rows, reads, pitch, slots.size * pitch + lanes, row, image,
        np.array(starts, INDEX), np.arange(len(starts)) * lanes, np.array(columns, INDEX).ravel(),
        windows.ravel().astype(INDEX), _by_argmax(places),
        np.array(merged, INDEX), np.array(ends, INDEX),
    )  # fmt: skip
    return slots_and_tables, (0,) * vectors, (0,) * lanes
