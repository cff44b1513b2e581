"""How the `cpu` convolution deals images out to SIMD lanes, and the tables its loops walk.

The batch is the innermost dimension: vector element `lane` belongs to image `lane` of a chunk. A
batch too small for that is cut into bands of rows, and each (image, band) is a lane of its own; a
band carries the rows its filter overhangs. So one kernel serves N = 256 and N = 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kernels.conv2d.cpu_lanes import BLOCK_VECTORS
from kernels.shapes import Conv2dShape

CACHE_BYTES = 1 << 20  # what a chunk's packed planes may fill of a core's own cache
LEAST_TASKS = 16  # a plan with fewer pieces of work leaves cores idle
MOST_PARTIALS = 32  # partial sums of a filter gradient, over the groups of images
INDEX = np.int64


class Bands(NamedTuple):
    """How a tensor (images, planes, height, width) is dealt out to lanes; all in elements.

    Lane `l` of chunk `i` holds band (i * lanes + l) % bands of image (i * lanes + l) // bands:
    packed_rows x packed_cols cells, from row first_row + band * row_step and column first_col on,
    zero outside the tensor.
    """

    images: int
    planes: int
    height: int
    width: int
    bands: int
    chunks: int
    first_row: int
    row_step: int
    first_col: int
    packed_rows: int
    packed_cols: int


class Correlation(NamedTuple):
    """A sum over taps for every cell of the target: the forward pass or the data gradient.

    Cells that see the same taps form a phase: one in a forward pass, stride_h * stride_w in a data
    gradient, more where rows at the edge leave out the taps that fall on padding. The row of phase
    f in `phases` is its first and last tap, its first and last pixel, each last one exclusive.
    """

    source: Bands
    target: Bands
    filters: int  # target planes computed together, in one block of registers
    cells: int  # neighbouring cells computed together
    parts: int  # tasks that share a chunk, each with its own filters
    columns: np.ndarray  # where a tap's weights are in the (target plane, taps) matrix
    tap_offset: np.ndarray  # tap -> its place in the packed source, from the pixel's
    phases: np.ndarray
    pixel_source: np.ndarray
    pixel_target: np.ndarray


class FilterGradient(NamedTuple):
    """A sum over images and pixels for every tap of every filter."""

    source: Bands
    dy: Bands
    filters: int
    taps: int  # of the (c, r, s) taps, how many share a block of registers
    parts: int
    groups: int  # of chunks; each makes a partial sum
    tap_offset: np.ndarray
    pixel_source: np.ndarray


def block_cols(rows: int) -> int:
    """Return the columns of a register block of `rows` rows."""
    return min(BLOCK_VECTORS // rows, 8)


def block_size(filters: int) -> tuple[int, int]:
    """Return the rows and columns of the register block that wastes the fewest filters."""
    rows = min((6, 4, 1), key=lambda size: max(1, 4 / size) ** 0.5 * -(-filters // size) * size)
    return rows, block_cols(rows)


def band_count(
    images: int,
    rows: int,
    lanes: int,
    work: tuple[float, float, float],
    tasks: int,
    sizes: Iterable[int],
) -> int:
    """Return into how many bands to cut an image: least work for all chunks, enough tasks.

    `work` is that of one row of results in one chunk, that of packing the rows two bands share,
    and the bytes a packed row takes; `tasks` are those a chunk can make, `sizes` the rows a band
    may have.
    """
    row_work, halo_work, row_bytes = work

    def cost(size: int) -> tuple[float, int]:
        count = -(-rows // size)
        chunks = -(-images * count // lanes)
        idle = max(1.0, LEAST_TASKS / (chunks * tasks)) ** 0.5
        spill = 1.25 if size * row_bytes > CACHE_BYTES else 1.0
        return chunks * (size * row_work + halo_work) * idle * spill, count

    return min(cost(size) for size in sizes)[1]


def part_count(chunks: int, blocks: int) -> int:
    """Return into how many parts to cut each chunk's filters: packing is repeated for each."""
    return min(blocks, -(-LEAST_TASKS // max(chunks, 1)))


def _padded(values: list[int], multiple: int) -> list[int]:
    """Repeat the last value until the list fills whole blocks: work done twice, never half."""
    return values + values[-1:] * (-len(values) % multiple)


def _trimmed(
    rows: range, reads: list[int], axis: tuple[int, int, int], width: int
) -> list[tuple[range, int, int]]:
    """Split rows into (rows, first tap, last tap) so that edge rows skip taps on padding.

    Row i reads source row i // count * step + reads[tap]; `axis` is (count, step, source height)
    and `reads` is monotonic. Undivided if that saves little: blocks end at every split.
    """
    count, step, height = axis
    groups: list[tuple[range, int, int]] = []
    for i in rows:
        base = i // count * step
        valid = [tap for tap, read in enumerate(reads) if 0 <= base + read < height]
        least, most = (valid[0], valid[-1] + 1) if valid else (0, 0)
        if groups and groups[-1][1:] == (least, most):
            groups[-1] = range(groups[-1][0].start, i + 1, count), least, most
        else:
            groups.append((range(i, i + 1, count), least, most))
    block = 4  # roughly: cells that one block of registers holds
    split = sum(-(-len(group) * width // block) * (most - least) for group, least, most in groups)
    if split > 0.95 * -(-len(rows) * width // block) * len(reads):
        return [(rows, 0, len(reads))]
    return groups


def _correlation(
    shape: tuple[int, int, int, int],
    result: tuple[int, int, int],
    step: tuple[int, int],
    phases: tuple[list[list[tuple[int, int]]], list[list[tuple[int, int]]]],
    taps: tuple[int, int],
    trim: bool,
    lanes: int,
    itemsize: int,
) -> Correlation:
    """Build the plan of a correlation that is the same product along both axes.

    `trim` lets rows at the edge leave out taps on padding: half the work of a small image's data
    gradient. A forward pass keeps them, as 0 * NaN in a filter must be seen.

    Along an axis, target cell `fraction + phase_count * m` reads source cell
    `m * step + offset` for each (tap, offset) of `phases[axis][fraction]`.
    """
    images, planes, height, width = shape
    filters, rows, cols = result
    counts = len(phases[0]), len(phases[1])
    block = block_size(filters)
    offsets = [[o for phase in axis for _, o in phase] or [0] for axis in phases]
    lowest = [min(axis) for axis in offsets]
    reach = [max(axis) - min(axis) for axis in offsets]

    def packed(extent: int, axis: int) -> int:
        return ((extent - 1) // counts[axis]) * step[axis] + reach[axis] + 1

    packed_cols = packed(cols, 1)
    row_work = (
        cols
        * planes
        * taps[0]
        * taps[1]
        / (counts[0] * counts[1])
        * (-(-filters // block[0]) * block[0])
        / 2
        + 4 * cols * filters
        + 16 * planes * packed_cols * step[0] / counts[0]
    )
    halo_work = 16.0 * planes * packed_cols * (reach[0] + 1)
    # A band starts at a whole number of phases, so that all bands have the same tables.
    sizes = range(counts[0], rows + counts[0], counts[0])
    row_bytes = planes * packed_cols * lanes * itemsize * step[0] / counts[0]
    blocks = -(-filters // block[0])
    bands = band_count(images, rows, lanes, (row_work, halo_work, row_bytes), blocks, sizes)
    band_rows = -(-rows // (bands * counts[0])) * counts[0]
    bands = -(-rows // band_rows)
    chunks = -(-images * bands // lanes)
    row_step = band_rows // counts[0] * step[0]
    source = Bands(
        images, planes, height, width, bands, chunks,
        lowest[0], row_step, lowest[1], packed(band_rows, 0), packed_cols,
    )  # fmt: skip
    target = Bands(images, filters, rows, cols, bands, chunks, 0, band_rows, 0, band_rows, cols)
    columns: list[int] = []
    tap_offset: list[int] = []
    phase_table: list[tuple[int, int, int, int]] = []
    pixel_source: list[int] = []
    pixel_target: list[int] = []
    plane = source.packed_rows * packed_cols
    for top, row_taps in enumerate(phases[0]):
        rows_here = range(top, band_rows, counts[0])
        for left, col_taps in enumerate(phases[1]):
            cols_here = range(left, cols, counts[1])
            first_tap = len(columns)
            for r, row in row_taps:
                for c in range(planes):
                    for s, col in col_taps:
                        columns.append((c * taps[0] + r) * taps[1] + s)
                        tap_offset.append(
                            c * plane + (row - lowest[0]) * packed_cols + col - lowest[1]
                        )
            if not cols_here:
                continue
            groups = [(rows_here, 0, len(row_taps))]
            # In several bands a row of cells is another row of the image in each.
            if trim and bands == 1:
                reads = [row for _, row in row_taps]
                groups = _trimmed(rows_here, reads, (counts[0], step[0], height), len(cols_here))
            for group, least, most in groups:
                first_pixel = len(pixel_target)
                cells = [(i, j) for i in group for j in cols_here]
                starts = [
                    i // counts[0] * step[0] * packed_cols + j // counts[1] * step[1]
                    for i, j in cells
                ]
                pixel_target += _padded([i * cols + j for i, j in cells], block[1])
                pixel_source += _padded(starts, block[1])
                tap_row = planes * len(col_taps)
                phase_table.append(
                    (
                        first_tap + least * tap_row,
                        first_tap + most * tap_row,
                        first_pixel,
                        len(pixel_target),
                    )
                )

    return Correlation(
        source, target, *block, part_count(chunks, blocks),
        np.array(columns, INDEX), np.array(tap_offset, INDEX) * lanes,
        np.array(phase_table, INDEX).reshape(-1, 4),
        np.array(pixel_source, INDEX) * lanes, np.array(pixel_target, INDEX) * lanes,
    )  # fmt: skip


@lru_cache(maxsize=64)
def forward_plan(shape: Conv2dShape, lanes: int, itemsize: int) -> Correlation:
    """Return the plan of y = correlate(x, w)."""
    rows = [(r, r * shape.dilation_h - shape.pad_top) for r in range(shape.r)]
    cols = [(s, s * shape.dilation_w - shape.pad_left) for s in range(shape.s)]
    return _correlation(
        (shape.n, shape.c, shape.h, shape.w),
        (shape.k, shape.p, shape.q),
        (shape.stride_h, shape.stride_w),
        ([rows], [cols]),
        (shape.r, shape.s),
        False,
        lanes,
        itemsize,
    )


def _gathered(extent: int, stride: int, pad: int, dilation: int) -> list[list[tuple[int, int]]]:
    """Return, for each fraction of the stride, the taps that reach it and from which output.

    Row h of the input was read by output p through tap r where h = p * stride - pad + r * dilation.
    """
    return [
        [
            (r, (fraction + pad - r * dilation) // stride)
            for r in range(extent)
            if (fraction + pad - r * dilation) % stride == 0
        ]
        for fraction in range(stride)
    ]


@lru_cache(maxsize=64)
def backward_data_plan(shape: Conv2dShape, lanes: int, itemsize: int) -> Correlation:
    """Return the plan of dx as a gather from dy: no two cells of dx share a sum."""
    rows = _gathered(shape.r, shape.stride_h, shape.pad_top, shape.dilation_h)
    cols = _gathered(shape.s, shape.stride_w, shape.pad_left, shape.dilation_w)
    return _correlation(
        (shape.n, shape.k, shape.p, shape.q),
        (shape.c, shape.h, shape.w),
        (1, 1),
        (rows, cols),
        (shape.r, shape.s),
        True,
        lanes,
        itemsize,
    )


@lru_cache(maxsize=64)
def backward_filter_plan(shape: Conv2dShape, lanes: int, itemsize: int) -> FilterGradient:
    """Return the plan of dw: lanes add up their own images, and are added together at the end."""
    filters, taps = block_size(shape.k)
    reach = (shape.r - 1) * shape.dilation_h + 1
    packed_cols = (shape.q - 1) * shape.stride_w + (shape.s - 1) * shape.dilation_w + 1
    blocks = -(-shape.k // filters)
    window = shape.c * shape.r * shape.s
    row_work = shape.q * (window * shape.k / 2 + 2 * shape.k)
    halo_work = 16.0 * shape.c * packed_cols * reach
    # Bands of equal height only: a row of zeros in dy would still meet a NaN in x.
    sizes = [size for size in range(1, shape.p + 1) if shape.p % size == 0]
    row_bytes = shape.c * packed_cols * lanes * itemsize * shape.stride_h
    work = row_work, halo_work, row_bytes
    bands = band_count(shape.n, shape.p, lanes, work, blocks, sizes)
    chunks = -(-shape.n * bands // lanes)
    rows = shape.p // bands
    source = Bands(
        shape.n, shape.c, shape.h, shape.w, bands, chunks, -shape.pad_top,
        rows * shape.stride_h, -shape.pad_left, (rows - 1) * shape.stride_h + reach, packed_cols,
    )  # fmt: skip
    dy = Bands(shape.n, shape.k, shape.p, shape.q, bands, chunks, 0, rows, 0, rows, shape.q)
    plane = source.packed_rows * packed_cols
    tap_offset = [
        c * plane + r * shape.dilation_h * packed_cols + s * shape.dilation_w
        for c in range(shape.c)
        for r in range(shape.r)
        for s in range(shape.s)
    ]
    pixel_source = [
        i * shape.stride_h * packed_cols + j * shape.stride_w
        for i in range(rows)
        for j in range(shape.q)
    ]
    parts = part_count(chunks, blocks)
    return FilterGradient(
        source,
        dy,
        filters,
        taps,
        parts,
        min(chunks, MOST_PARTIALS),
        np.array(_padded(tap_offset, taps), INDEX) * lanes,
        np.array(pixel_source, INDEX) * lanes,
    )
