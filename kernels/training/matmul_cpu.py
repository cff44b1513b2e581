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
)
from kernels.cpu_threads import one_launch

# Block sizes, as tuples whose length is what counts.
PANEL = (0,) * 4
ROWS, ONE = (0,) * (BLOCK_VECTORS // len(PANEL)), (0,)
LEAST_TASKS = 8  # fewer leave cores idle
LEAST_WORK = 1 << 20  # multiplications; for fewer, starting the threads takes longer than BLAS


@njit(cache=True, nogil=True)
def _tile(a, start, steps, depth, panel, rows, out, row, first, columns, tile):  # type: ignore[no-untyped-def]
    """Compute len(rows) rows of out, from `row` on, in one panel."""
    width = len(PANEL) * VECTOR_BYTES // a.itemsize
    tile[:] = 0
    block = filled(tile, 0, rows, PANEL)
    for k in range(depth):
        block = add_outer(block, a, start + k * steps[1], steps[0], panel, k * width)
    store_dense(block, tile, 0)
    for i in range(len(rows)):
        to, here = out[row + i, first : first + columns], tile[i * width : (i + 1) * width]
        for j in range(columns):
            to[j] = here[j]


@njit(cache=True, nogil=True)
def _task(a, steps, rows, b, b_steps, shape, out):  # type: ignore[no-untyped-def]
    """Compute the rows from rows[0] to rows[1] of one panel, from column rows[2] on."""
    _, depth, columns = shape
    width = len(PANEL) * VECTOR_BYTES // a.itemsize
    low, high, first = rows
    columns = min(columns - first, width)
    panel = aligned_empty(depth * width, a)
    panel[:] = 0
    if b_steps[1] == 1:
        for k in range(depth):
            to, row = panel[k * width :], b[k * b_steps[0] + first :]
            for j in range(columns):
                to[j] = row[j]
    else:
        for j in range(columns):
            to, row = panel[j:], b[(first + j) * b_steps[1] :]
            for k in range(depth):
                to[np.uint64(k * width)] = row[np.uint64(k * b_steps[0])]
    tile = aligned_empty(len(ROWS) * width, a)
    row = low
    while row < high:
        if high - low >= len(ROWS):
            row = min(row, high - len(ROWS))  # the last overlaps what is written, with the same
            _tile(a, row * steps[0], steps, depth, panel, ROWS, out, row, first, columns, tile)
            row += len(ROWS)
        else:
            _tile(a, row * steps[0], steps, depth, panel, ONE, out, row, first, columns, tile)
            row += 1


@njit(cache=True, nogil=True, parallel=True)
def _product(parts, panels, a, steps, b, b_steps, shape, out):  # type: ignore[no-untyped-def]
    width = len(PANEL) * VECTOR_BYTES // a.itemsize
    for task in prange(parts * panels):
        part, panel = task // panels, task % panels
        rows = part * shape[0] // parts, (part + 1) * shape[0] // parts, panel * width
        _task(a, steps, rows, b, b_steps, shape, out)


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
        _product(parts, panels, *_flat(a), *_flat(b), (count, depth, columns), out)
    return out


def _flat(matrix: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Return a matrix's elements in memory's order, and how far apart its rows and columns are."""
    if matrix.flags.c_contiguous:
        return matrix.reshape(-1), (matrix.shape[1], 1)
    return matrix.T.reshape(-1), (1, matrix.shape[0])
