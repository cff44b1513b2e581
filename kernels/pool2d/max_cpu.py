"""Max-pooling on CPU cores, in Numba.

y[n,c,p,q] = max over r,s of x[n,c,h,w],  h = p*stride_h - pad_top + r; argmax = h*W + w there
Shapes: x (N,C,H,W), y and argmax (N,C,P,Q), window R x S; float32 or float64, argmax int32.
Threads: a task is one (n, c) plane, read and written by no other.
Idea: the loop over a row of outputs is innermost and has no branch, so LLVM vectorises it.
Limits: none; a window that is all padding is the caller's error.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from kernels.cpu_threads import one_launch
from kernels.shapes import PoolShape


@njit(cache=True, nogil=True, inline="always")
def _reached(tap, stride, pad, extent, count):  # type: ignore[no-untyped-def]
    """Return the first and one past the last output whose tap `tap` lies inside the input."""
    first = max(0, (pad - tap + stride - 1) // stride)
    last = min(count, (extent - 1 + pad - tap) // stride + 1)
    return first, max(first, last)


@njit(cache=True, nogil=True)
def _max_row(x, h, s, first, last, stride, pad, best, where):  # type: ignore[no-untyped-def]
    """Let cell (h, q*stride - pad + s) compete for output q; only a greater one wins."""
    width = x.shape[1]
    start = s - pad
    for q in range(first, last):
        w = q * stride + start
        value = x[h, w]
        # The first NaN wins and stays, as in np.argmax: nothing is greater than it.
        wins = (value > best[q]) | ((value != value) & (best[q] == best[q])) | (where[q] < 0)
        best[q] = value if wins else best[q]
        where[q] = np.int32(h * width + w) if wins else where[q]


@njit(cache=True, nogil=True)
def _pairs_row(x, h, y, where):  # type: ignore[no-untyped-def]
    """One row of 2x2 windows with stride 2 and no padding, by far the commonest."""
    width = x.shape[1]
    upper, lower = x[h], x[h + 1]
    for q in range(len(y)):
        w = 2 * q
        a, b, c, d = upper[w], upper[w + 1], lower[w], lower[w + 1]
        at = np.int32(h * width + w)
        wins = (b > a) | ((b != b) & (a == a))
        best = b if wins else a
        place = np.int32(at + 1) if wins else at
        wins = (c > best) | ((c != c) & (best == best))
        best = c if wins else best
        place = np.int32(at + width) if wins else place
        wins = (d > best) | ((d != d) & (best == best))
        y[q] = d if wins else best
        where[q] = np.int32(at + width + 1) if wins else place


@njit(cache=True, nogil=True, parallel=True)
def _forward(x, y, argmax, shape):  # type: ignore[no-untyped-def]
    pairs = (
        shape.r == 2
        and shape.s == 2
        and shape.stride_h == 2
        and shape.stride_w == 2
        and shape.pad_top == 0
        and shape.pad_left == 0
        and 2 * shape.p <= shape.h
        and 2 * shape.q <= shape.w
    )
    for plane in prange(shape.n * shape.c):
        for p in range(shape.p):
            best, where = y[plane, p], argmax[plane, p]
            if pairs:
                _pairs_row(x[plane], 2 * p, best, where)
                continue
            best[:] = -np.inf  # from nowhere: the first cell wins whatever it holds
            where[:] = -1
            for r in range(shape.r):
                h = p * shape.stride_h - shape.pad_top + r
                if h < 0 or h >= shape.h:
                    continue
                for s in range(shape.s):
                    first, last = _reached(s, shape.stride_w, shape.pad_left, shape.w, shape.q)
                    if shape.stride_w == 1:
                        _max_row(x[plane], h, s, first, last, 1, shape.pad_left, best, where)
                    elif shape.stride_w == 2:
                        _max_row(x[plane], h, s, first, last, 2, shape.pad_left, best, where)
                    else:
                        _max_row(
                            x[plane], h, s, first, last, shape.stride_w, shape.pad_left, best, where
                        )


@njit(cache=True, nogil=True, parallel=True)
def _backward(dy, argmax, dx):  # type: ignore[no-untyped-def]
    for plane in prange(dx.shape[0]):
        gradient = dx[plane]
        gradient[:] = 0
        for i in range(dy.shape[1]):
            gradient[argmax[plane, i]] += dy[plane, i]


def forward(x: np.ndarray, y: np.ndarray, argmax: np.ndarray, shape: PoolShape) -> None:
    """Write the maximum of every window, and where in its input plane it was found.

    The first of equal maxima wins, in row order; the first NaN beats every number.

    Parameters
    ----------
    x, y, argmax
        (N, C, H, W); (N, C, P, Q); (N, C, P, Q) int32, h * W + w. The last two are results.
    shape
        What they have in common.
    """
    planes = shape.n * shape.c
    with one_launch:
        _forward(
            x.reshape(planes, shape.h, shape.w),
            y.reshape(planes, shape.p, shape.q),
            argmax.reshape(planes, shape.p, shape.q),
            shape,
        )


def backward(dy: np.ndarray, argmax: np.ndarray, dx: np.ndarray, shape: PoolShape) -> None:
    """Write dx: every gradient of dy added to the cell its maximum came from.

    Parameters
    ----------
    dy, argmax, dx
        (N, C, P, Q); (N, C, P, Q) int32 of `forward`; (N, C, H, W), the result.
    shape
        That of the forward pass.
    """
    planes = shape.n * shape.c
    with one_launch:
        _backward(dy.reshape(planes, -1), argmax.reshape(planes, -1), dx.reshape(planes, -1))
