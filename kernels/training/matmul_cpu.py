"""Matrix products on CPU cores, in Numba, in the same threads as the convolutions.

out[m,n] = sum over k of a[m,k] b[k,n]
Shapes: a (M,K), b (K,N), out (M,N); float32 or float64.
Threads: a task is (panel of columns, block of rows); every task writes its own cells.
Idea: a few rows by four registers of columns stay in registers over the whole sum. LeNet's
products take a tenth of a millisecond: threads that BLAS keeps awake beside Numba's cost more than
they give, and BLAS in one thread leaves the other cores idle.
Sums run in one order, whatever the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from kernels.conv2d.cpu_lanes import (
    BLOCK_VECTORS,
    VECTOR_BYTES,
    add_outer,
    aligned_empty,
    filled,
    store_dense,
    transpose,
)
from kernels.cpu_threads import one_launch

# Block sizes, as tuples whose length is what counts.
PANEL = (0,) * 4
ROWS, ONE = (0,) * (BLOCK_VECTORS // len(PANEL)), (0,)
NARROW, MORE_ROWS = PANEL[:2], ROWS * 2  # where half of a panel's columns are none
LEAST_TASKS = 8  # fewer leave cores idle
LEAST_WORK = 1 << 20  # multiplications; for fewer, starting the threads takes longer than BLAS


@njit(cache=True, nogil=True)
def pack_panel(b, steps, depth, first, columns, panel):  # type: ignore[no-untyped-def]
    """Copy a panel of b, whose columns begin at `first`, row behind row, zeros behind the last."""
    width = len(PANEL) * VECTOR_BYTES // b.itemsize
    columns = min(columns - first, width)
    if columns < width:
        panel[: depth * width] = 0
    if steps[1] == 1:
        for k in range(depth):
            to, row = panel[k * width :], b[k * steps[0] + first :]
            for j in range(columns):
                to[j] = row[j]
        return
    lanes = VECTOR_BYTES // b.itemsize
    places, starts = np.empty(lanes, np.int64), np.empty(lanes, np.int64)
    for lane in range(lanes):
        places[lane], starts[lane] = lane * steps[1], lane * width
    whole = columns // lanes * lanes, depth // lanes * lanes
    for j in range(0, whole[0], lanes):
        for k in range(0, whole[1], lanes):
            transpose(b, places, (first + j) * steps[1] + k, panel, starts, k * width + j, b)
    for j in range(columns):
        for k in range(whole[1] if j < whole[0] else 0, depth):
            panel[k * width + j] = b[(first + j) * steps[1] + k]


@njit(cache=True, nogil=True)
def _tile(a, start, steps, depth, panel, rows, vectors, columns, out, place, pitch, tile):  # type: ignore[no-untyped-def]
    """Compute len(rows) rows of out, in one panel."""
    lanes = VECTOR_BYTES // a.itemsize
    tile[:] = 0
    block = filled(tile, 0, rows, vectors)
    for k in range(depth):
        block = add_outer(block, a, start + k * steps[1], steps[0], panel, k * len(PANEL) * lanes)
    store_dense(block, tile, 0)
    width = len(vectors) * lanes
    for i in range(len(rows)):
        to, here = out[place + i * pitch :], tile[i * width : (i + 1) * width]
        for j in range(columns):
            to[j] = here[j]


@njit(cache=True, nogil=True)
def multiply_panel(a, steps, rows, depth, panel, first, columns, out):  # type: ignore[no-untyped-def]
    """Compute the rows from rows[0] to rows[1] of out, in the columns that `panel` holds."""
    lanes = VECTOR_BYTES // a.itemsize
    tile = aligned_empty(len(PANEL) * len(ROWS) * lanes, a)
    low, high = rows
    here = min(columns - first, len(PANEL) * lanes)
    narrow = here <= len(NARROW) * lanes
    row = low
    while row < high:
        size = len(MORE_ROWS) if narrow else len(ROWS)
        if high - low >= size:
            row = min(row, high - size)  # the last overlaps what is written, with the same
        else:
            size = 1
        start, place = row * steps[0], row * columns + first
        if size == 1:
            _tile(a, start, steps, depth, panel, ONE, PANEL, here, out, place, columns, tile)
        elif narrow:
            _tile(a, start, steps, depth, panel, MORE_ROWS, NARROW, here, out, place, columns, tile)
        else:
            _tile(a, start, steps, depth, panel, ROWS, PANEL, here, out, place, columns, tile)
        row += size


@njit(cache=True, nogil=True)
def multiply(a, steps, rows, b, b_steps, depth, columns, out):  # type: ignore[no-untyped-def]
    """Compute a part of out = a b; the matrices are flat.

    Parameters
    ----------
    steps, b_steps
        How far apart a matrix's rows are, and its columns.
    rows
        The first one, and the one behind the last.
    depth
        Terms of a sum.
    columns
        Where the first panel begins, where the last one ends, and the width of out.
    """
    width = len(PANEL) * VECTOR_BYTES // a.itemsize
    panel = aligned_empty(depth * width, a)
    for first in range(columns[0], columns[1], width):
        pack_panel(b, b_steps, depth, first, columns[2], panel)
        multiply_panel(a, steps, rows, depth, panel, first, columns[2], out)


@njit(cache=True, nogil=True, parallel=True)
def _product(parts, panels, a, steps, b, b_steps, shape, out):  # type: ignore[no-untyped-def]
    width = len(PANEL) * VECTOR_BYTES // a.itemsize
    count, depth, columns = shape
    for task in prange(parts * panels):
        part, panel = task // panels, task % panels
        rows = part * count // parts, (part + 1) * count // parts
        here = panel * width, (panel + 1) * width, columns
        multiply(a, steps, rows, b, b_steps, depth, here, out)


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write out = a b, and return it.

    Parameters
    ----------
    a, b, out
        (M, K), (K, N) and (M, N), of one dtype, float32 or float64. a and b are C-contiguous or
        the transpose of what is, out is C-contiguous.
    """
    (count, depth), columns = a.shape, b.shape[1]
    if count * depth * columns < LEAST_WORK:
        return np.matmul(a, b, out=out)
    width = len(PANEL) * VECTOR_BYTES // a.itemsize
    panels = -(-columns // width)
    parts = max(1, min(-(-LEAST_TASKS // panels), count // len(ROWS)))
    with one_launch:
        _product(parts, panels, *_flat(a), *_flat(b), (count, depth, columns), out.reshape(-1))
    return out


def _flat(matrix: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Return a matrix's elements in memory's order, and how far apart its rows and columns are."""
    if matrix.flags.c_contiguous:
        return matrix.reshape(-1), (matrix.shape[1], 1)
    return matrix.T.reshape(-1), (1, matrix.shape[0])
