"""The judge of max-pooling: plain NumPy, one window at a time."""

from __future__ import annotations

import itertools

import numpy as np

from kernels.shapes import PoolShape

Array = np.ndarray


def forward(x: Array, y: Array, argmax: Array, shape: PoolShape) -> None:
    """Write each window's maximum and where it is: h*W + w, the first in row order.

    A NaN is the maximum of its window, as for ``numpy.argmax``.
    """
    for p, q in itertools.product(range(shape.p), range(shape.q)):
        rows, cols = clipped_window(shape, p, q)
        window = x[:, :, rows, cols]
        width = cols.stop - cols.start
        flat = window.reshape(shape.n, shape.c, -1)
        first = flat.argmax(axis=2)
        y[:, :, p, q] = np.take_along_axis(flat, first[..., None], axis=2)[..., 0]
        argmax[:, :, p, q] = (rows.start + first // width) * shape.w + cols.start + first % width


def backward(dy: Array, argmax: Array, dx: Array, shape: PoolShape) -> None:
    """Write dx: each window's gradient goes to its maximum, where it adds."""
    dx[...] = 0
    planes = dx.reshape(shape.n * shape.c, shape.h * shape.w)
    plane = np.arange(shape.n * shape.c)
    for p, q in itertools.product(range(shape.p), range(shape.q)):
        planes[plane, argmax[:, :, p, q].ravel()] += dy[:, :, p, q].ravel()


def clipped_window(shape: PoolShape, p: int, q: int) -> tuple[slice, slice]:
    """Select the input rows and columns under window (p, q), padding left out."""
    top, left = p * shape.stride_h - shape.pad_top, q * shape.stride_w - shape.pad_left
    return (
        slice(max(top, 0), min(top + shape.r, shape.h)),
        slice(max(left, 0), min(left + shape.s, shape.w)),
    )
