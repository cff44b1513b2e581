"""Two fused blocks, one behind the other, on CPU cores: an image passes both while it is in cache.

y = block(block(x, w1, b1), w2, b2)
Shapes: as of the single blocks (`cpu.py`); their gradients are in `cpu_pair_gradient.py`.
Threads: a task is a chunk of images, one a SIMD lane.
Idea: the first block's maxima stay lanes, with the filters of a cell side by side: the second block
reads them as they are, and its gradient the same turned once, images with channels innermost.
Limits: see `takes`. The bits are those of the blocks one by one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from kernels.conv2d.cpu_lanes import VECTOR_BYTES, aligned_empty, transpose
from kernels.conv2d.cpu_pack import pack, vector_starts
from kernels.conv2d_relu_pool.cpu import pool_group, side_by_side
from kernels.conv2d_relu_pool.cpu_plan import (
    MOST_VECTORS,
    forward_plan,
    slots_plan,
    windows_of_lanes,
)
from kernels.cpu_threads import one_launch
from kernels.shapes import CLOSED, BlockShape


class Kept(NamedTuple):
    """What the backward pass needs of the forward pass.

    Attributes
    ----------
    between
        The first block's output, channels innermost, with room for a vector behind it; flat.
    first, second
        Where the blocks' maxima are: (images, K, pooled P, pooled Q), flat.
    """

    between: np.ndarray
    first: np.ndarray
    second: np.ndarray


def takes(first: BlockShape, second: BlockShape, itemsize: int) -> bool:
    """Tell whether a pair of blocks can run here, and should.

    That is with enough images to be the lanes of several tasks, no padding between the blocks, and
    filters of the second whose gradient fits into registers.
    """
    lanes = VECTOR_BYTES // itemsize
    plan = forward_plan(first, lanes, itemsize)
    slots, _, width = slots_plan(second, lanes, itemsize)
    return (
        first.n > 0
        and plan.source.bands == 1
        and first.k % plan.filters == 0
        and not any(map(any, second.padding))
        and second.dilation_w == 1
        and slots.rows == second.pooled_p
        and len(width) == lanes
        and second.r * (slots.pitch // lanes - 1) <= MOST_VECTORS
    )


@njit(cache=True, nogil=True)
def _turn(packed, chunk, count, out, like):  # type: ignore[no-untyped-def]
    """Write `count` vectors of a chunk as the rows of its images."""
    lanes = VECTOR_BYTES // like.itemsize
    places, starts = vector_starts(lanes), np.empty(lanes, np.int64)
    for lane in range(lanes):
        starts[lane] = (chunk * lanes + lane) * count
    whole = count // lanes * lanes
    for cell in range(0, whole, lanes):
        transpose(packed, places, cell * lanes, out, starts, cell, like)
    for lane in range(lanes):
        for cell in range(whole, count):
            out[starts[lane] + cell] = packed[cell * lanes + lane]


@njit(cache=True, nogil=True)
def _pool_handed(handed, weights, bias, rows, tables, shape, maxima, cells):  # type: ignore[no-untyped-def]
    """Compute the second block's maxima from lanes, plane by plane."""
    step = shape.pooled_p * shape.pooled_q * VECTOR_BYTES // handed.itemsize
    to = VECTOR_BYTES // handed.itemsize, step
    for group in range((shape.k + rows - 1) // rows):
        start = group * rows * step
        pool_group(
            handed, weights, bias, rows, tables, group, maxima, (start, *to), cells, start, step
        )


@njit(cache=True, nogil=True)
def _pool_chunk(chunk, x, source, weights, rows, tables, later, shapes, kept, y):  # type: ignore[no-untyped-def]
    """Compute both blocks' maxima for one chunk."""
    first, second = shapes
    lanes = VECTOR_BYTES // x.itemsize
    plane = source.packed_rows * source.packed_cols * lanes
    packed = aligned_empty(source.planes * plane, x)
    for c in range(source.planes):
        pack(x, chunk, c, source, packed, c * plane)
    step = first.pooled_p * first.pooled_q * lanes
    handed, cells = aligned_empty(first.k * step, x), np.empty(first.k * step, np.uint8)
    handed[:] = 0
    cells[:] = CLOSED
    for group in range(first.k // rows[0]):
        k = group * rows[0]
        # The filters of a cell lie side by side: they are the channels that the next block reads.
        to = k * lanes, first.k * lanes, lanes
        pool_group(
            packed, weights[0], weights[1], rows[0], tables, group, handed, to, cells, k * step,
            step,
        )  # fmt: skip
    _turn(handed, chunk, first.k * step // lanes, kept.between, x)
    _turn(cells, chunk, first.k * step // lanes, kept.first, x)
    step = second.pooled_p * second.pooled_q * lanes
    planes = (second.k + rows[1] - 1) // rows[1] * rows[1]  # the last filters may be none
    maxima, cells = aligned_empty(planes * step, x), np.empty(planes * step, np.uint8)
    maxima[:] = 0
    cells[:] = CLOSED
    _pool_handed(handed, weights[2], weights[3], rows[1], later, second, maxima, cells)
    _turn(maxima, chunk, second.k * step // lanes, y, x)
    _turn(cells, chunk, second.k * step // lanes, kept.second, x)


@njit(cache=True, nogil=True, parallel=True)
def _pool(x, source, w1, b1, w2, b2, rows, tables, later, first, second, kept, y):  # type: ignore[no-untyped-def]
    weights1, bias1 = side_by_side(w1, b1, rows[0])
    weights2, bias2 = side_by_side(w2, b2, rows[1])
    for chunk in prange(source.chunks):
        weights, shapes = (weights1, bias1, weights2, bias2), (first, second)
        _pool_chunk(np.int64(chunk), x, source, weights, rows, tables, later, shapes, kept, y)


def forward(
    x: np.ndarray,
    parameters: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    first: BlockShape,
    second: BlockShape,
) -> tuple[np.ndarray, Kept]:
    """Return the second block's output (N, K, pooled P, pooled Q), and what `backward` wants.

    Parameters
    ----------
    x
        (N, C, H, W), C-contiguous.
    parameters
        w and b of the first block, and of the second: (K, C, R, S) and (K,).
    first, second
        What the blocks compute; `takes` them.
    """
    lanes = VECTOR_BYTES // x.itemsize
    plan, (rows, *later) = forward_plan(first, lanes, x.itemsize), windows_of_lanes(second, lanes)
    w1, b1, w2, b2 = parameters
    images = plan.source.chunks * lanes  # the last ones may not be there
    sizes = [shape.k * shape.pooled_p * shape.pooled_q for shape in (first, second)]
    places = (np.empty(images * size, np.uint8) for size in sizes)
    kept = Kept(np.empty(images * sizes[0] + lanes, x.dtype), *places)
    y = np.empty(images * sizes[1], x.dtype)
    with one_launch:
        _pool(
            x.reshape(-1), plan.source, w1.reshape(first.k, -1), b1, w2.reshape(second.k, -1), b2,
            (plan.filters, rows), (plan.tap_offset, plan.window_source, plan.cells), tuple(later),
            first, second, kept, y,
        )  # fmt: skip
    return y[: first.n * sizes[1]].reshape(second.output_shape), kept
