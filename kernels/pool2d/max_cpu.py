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


@njit(cache=True, nogil=True, forceinline=True)
def _pairs(x, upper, first, count, width, y, where):  # type: ignore[no-untyped-def]
    """2x2 windows side by side: results `first` on, the upper left cell of the first at `upper`."""
    # Slices, so that LLVM sees indices that cannot be negative (a negative one counts from behind).
    top, bottom, out, at = x[upper:], x[upper + width :], y[first:], where[first:]
    start, below, one = np.int32(upper), np.int32(width), np.int32(1)
    for q in range(count):
        a, b, c, d = top[2 * q], top[2 * q + 1], bottom[2 * q], bottom[2 * q + 1]
        right = (not b <= a) & (a == a)  # greater, or a NaN that is the first
        high = b if right else a
        place = one if right else np.int32(0)
        right = (not d <= c) & (c == c)
        low = d if right else c
        place_low = below + one if right else below
        down = (not low <= high) & (high == high)
        out[q] = low if down else high
        at[q] = start + np.int32(2 * q) + (place_low if down else place)


@njit(cache=True, nogil=True)
def _pairs_plane(x, y, where, width, rows, cols):  # type: ignore[no-untyped-def]
    """2x2 windows with stride 2 and no padding, by far the commonest; x, y, where are flat.

    Work goes by runs of a constant length, which need no loop for the rest: a run that spills over
    its row writes cells of the next one, and that row writes them again.
    """
    for p in range(rows):
        q = 0
        while q < cols:
            first = p * cols + q
            upper = 2 * p * width + 2 * q
            room = min(rows * cols - first, (len(x) - upper - width) // 2)
            if cols - q > 8 and room >= 16:
                _pairs(x, upper, first, 16, width, y, where)
                q += 16
            elif room >= 8:
                _pairs(x, upper, first, 8, width, y, where)
                q += 8
            else:
                _pairs(x, upper, first, 1, width, y, where)
                q += 1


@njit(cache=True, nogil=True)
def _windows_plane(x, y, argmax, shape):  # type: ignore[no-untyped-def]
    """Any windows: each cell of a window in turn, for a row of outputs at once."""
    for p in range(shape.p):
        best, where = y[p], argmax[p]
        for q in range(shape.q):
            best[q] = -np.inf
            where[q] = -1  # from nowhere: the first cell wins whatever it holds
        for r in range(shape.r):
            h = p * shape.stride_h - shape.pad_top + r
            if h < 0 or h >= shape.h:
                continue
            for s in range(shape.s):
                first, last = _reached(s, shape.stride_w, shape.pad_left, shape.w, shape.q)
                if shape.stride_w == 1:
                    _max_row(x, h, s, first, last, 1, shape.pad_left, best, where)
                elif shape.stride_w == 2:
                    _max_row(x, h, s, first, last, 2, shape.pad_left, best, where)
                else:
                    _max_row(x, h, s, first, last, shape.stride_w, shape.pad_left, best, where)


@njit(cache=True, nogil=True)
def _forward_plane(plane, x, y, argmax, shape):  # type: ignore[no-untyped-def]
    padded = shape.pad_top + shape.pad_left > 0
    inside = 2 * shape.p <= shape.h and 2 * shape.q <= shape.w
    window = shape.r == 2 and shape.s == 2 and shape.stride_h == 2 and shape.stride_w == 2
    if window and inside and not padded:
        _pairs_plane(
            x[plane].reshape(-1), y[plane].reshape(-1), argmax[plane].reshape(-1),
            shape.w, shape.p, shape.q,
        )  # fmt: skip
    else:
        _windows_plane(x[plane], y[plane], argmax[plane], shape)


@njit(cache=True, nogil=True, parallel=True)
def _forward(x, y, argmax, shape):  # type: ignore[no-untyped-def]
    for plane in prange(shape.n * shape.c):
        _forward_plane(np.int64(plane), x, y, argmax, shape)


@njit(cache=True, nogil=True)
def _backward_plane(dy, argmax, dx):  # type: ignore[no-untyped-def]
    dx[:] = 0
    for i in range(len(dy)):
        dx[np.uint64(argmax[i])] += dy[i]


@njit(cache=True, nogil=True, parallel=True)
def _backward(dy, argmax, dx):  # type: ignore[no-untyped-def]
    for plane in prange(dx.shape[0]):
        _backward_plane(dy[plane], argmax[plane], dx[plane])


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
