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


@lru_cache(maxsize=64)
def forward_plan(shape: BlockShape, lanes: int, itemsize: int) -> Windows:
    """Return the plan of the pooled maxima."""
    reach_h = (shape.r - 1) * shape.dilation_h + 1
    reach_w = (shape.s - 1) * shape.dilation_w + 1
    step_h, step_w = shape.pool_r * shape.stride_h, shape.pool_s * shape.stride_w
    filters = min(FILTERS, key=lambda size: max(1, 3 / size) * -(-shape.k // size) * size)
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
def segments_plan(shape: BlockShape, lanes: int) -> Segments:
    """Return where the backward passes find what an output read; `lanes` fill a register."""
    height = shape.h + shape.pad_top + shape.pad_bottom
    width = shape.w + shape.pad_left + shape.pad_right
    cells = np.arange(height * width).reshape(height, width) * shape.c
    # Along a row of taps the channels of all columns are neighbours, unless the filter is dilated.
    joined = shape.s if shape.dilation_w == 1 else 1
    length = joined * shape.c
    runs = shape.r * shape.s // joined

    def cost(layout: tuple[int, int]) -> int:
        # Most vectors cross a cache line if they are whole registers, half of them if not.
        wide, vectors = layout
        count = runs * -(-length // wide)
        return -(-count // vectors) * vectors * (3 if wide == lanes else 2)

    lanes, vectors = min(
        [(lanes, MOST_VECTORS), (lanes, FEW_VECTORS), (lanes // 2, FEW_VECTORS)], key=cost
    )
    starts: list[int] = []
    columns: list[list[int]] = []
    for r in range(shape.r):
        for s in range(0, shape.s, joined):
            start = int(cells[r * shape.dilation_h, s * shape.dilation_w])
            for first in range(0, length, lanes):
                starts.append(start + first)
                here = [divmod(i, shape.c) for i in range(first, first + lanes)]
                columns.append(
                    [(c * shape.r + r) * shape.s + s + i if i < joined else -1 for i, c in here]
                )
    idle = -len(starts) % vectors
    starts += [cells.size * shape.c] * idle  # behind the image
    columns += [[-1] * lanes] * idle
    step_h, step_w = shape.pool_r * shape.stride_h, shape.pool_s * shape.stride_w
    windows = cells[: shape.pooled_p * step_h : step_h, : shape.pooled_q * step_w : step_w]
    places = cells[: step_h : shape.stride_h, : step_w : shape.stride_w]
    by_argmax = np.zeros(256, INDEX)  # also of what is closed, which is looked up and left out
    by_argmax[: places.size] = places.ravel()
    return Segments(
        (height, width), ((0,) * vectors, (0,) * lanes), np.array(starts, INDEX),
        np.arange(len(starts)) * lanes, np.array(columns, INDEX).ravel(),
        windows.ravel().astype(INDEX), by_argmax,
    )  # fmt: skip
