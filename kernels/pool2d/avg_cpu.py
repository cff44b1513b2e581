"""Average pooling on CPU cores, in Numba.

y[n,c,p,q] = (sum over r,s of x[n,c,h,w]) / cells,  h = p*stride_h - pad_top + r
Shapes: x (N,C,H,W), y (N,C,P,Q), window R x S; float32 or float64.
Threads: a task is one (n, c) plane, read and written by no other.
Idea: the loop over a row of outputs is innermost and has no branch, so LLVM vectorises it.
Limits: none; `cells` counts those inside the input, or all R*S where padding is included.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from kernels.cpu_threads import one_launch
from kernels.pool2d.max_cpu import _reached
from kernels.shapes import PoolShape


@njit(cache=True, nogil=True)
def _window_cells(shape, like):  # type: ignore[no-untyped-def]
    """Return the rows (P,) and columns (Q,) of each window that count, in `like`'s dtype."""
    rows = np.zeros(shape.p, like.dtype)
    cols = np.zeros(shape.q, like.dtype)
    if shape.include_pad:
        rows[:] = shape.r
        cols[:] = shape.s
        return rows, cols
    for r in range(shape.r):
        first, last = _reached(r, shape.stride_h, shape.pad_top, shape.h, shape.p)
        rows[first:last] += 1
    for s in range(shape.s):
        first, last = _reached(s, shape.stride_w, shape.pad_left, shape.w, shape.q)
        cols[first:last] += 1
    return rows, cols


@njit(cache=True, nogil=True)
def _add_strided(row, start, stride, first, last, total):  # type: ignore[no-untyped-def]
    """Add row[q * stride + start] to total[q]."""
    for q in range(first, last):
        total[q] += row[q * stride + start]


@njit(cache=True, nogil=True)
def _spread_strided(share, start, stride, first, last, row):  # type: ignore[no-untyped-def]
    """Add share[q] to row[q * stride + start]."""
    for q in range(first, last):
        row[q * stride + start] += share[q]


@njit(cache=True, nogil=True, parallel=True)
def _forward(x, y, shape):  # type: ignore[no-untyped-def]
    rows, cols = _window_cells(shape, x)
    for plane in prange(shape.n * shape.c):
        for p in range(shape.p):
            total = y[plane, p]
            total[:] = 0
            for r in range(shape.r):
                h = p * shape.stride_h - shape.pad_top + r
                if h < 0 or h >= shape.h:
                    continue
                for s in range(shape.s):
                    first, last = _reached(s, shape.stride_w, shape.pad_left, shape.w, shape.q)
                    start = s - shape.pad_left
                    if shape.stride_w == 1:
                        _add_strided(x[plane, h], start, 1, first, last, total)
                    elif shape.stride_w == 2:
                        _add_strided(x[plane, h], start, 2, first, last, total)
                    else:
                        _add_strided(x[plane, h], start, shape.stride_w, first, last, total)
            for q in range(shape.q):
                total[q] /= rows[p] * cols[q]


@njit(cache=True, nogil=True, parallel=True)
def _backward(dy, dx, shape):  # type: ignore[no-untyped-def]
    rows, cols = _window_cells(shape, dy)
    for plane in prange(shape.n * shape.c):
        dx[plane] = 0
        share = np.empty(shape.q, dy.dtype)
        for p in range(shape.p):
            for q in range(shape.q):
                share[q] = dy[plane, p, q] / (rows[p] * cols[q])
            for r in range(shape.r):
                h = p * shape.stride_h - shape.pad_top + r
                if h < 0 or h >= shape.h:
                    continue
                for s in range(shape.s):
                    first, last = _reached(s, shape.stride_w, shape.pad_left, shape.w, shape.q)
                    start = s - shape.pad_left
                    if shape.stride_w == 1:
                        _spread_strided(share, start, 1, first, last, dx[plane, h])
                    elif shape.stride_w == 2:
                        _spread_strided(share, start, 2, first, last, dx[plane, h])
                    else:
                        _spread_strided(share, start, shape.stride_w, first, last, dx[plane, h])


def forward(x: np.ndarray, y: np.ndarray, shape: PoolShape) -> None:
    """Write the mean of every window.

    Parameters
    ----------
    x, y
        (N, C, H, W), and (N, C, P, Q), the result; C-contiguous, both float32 or both float64.
    shape
        What they have in common; `include_pad` says whether padding counts in the divisor.
    """
    planes = shape.n * shape.c
    with one_launch:
        _forward(x.reshape(planes, shape.h, shape.w), y.reshape(planes, shape.p, shape.q), shape)


def backward(dy: np.ndarray, dx: np.ndarray, shape: PoolShape) -> None:
    """Write dx: every gradient of dy shared out among its window's cells.

    Parameters
    ----------
    dy, dx
        (N, C, P, Q), and (N, C, H, W), the result; types as for `forward`.
    shape
        That of the forward pass.
    """
    planes = shape.n * shape.c
    with one_launch:
        _backward(dy.reshape(planes, shape.p, shape.q), dx.reshape(planes, shape.h, shape.w), shape)
