"""The judge of average pooling: plain NumPy, one window at a time."""

from __future__ import annotations

import itertools

import numpy as np

from kernels.pool2d.max_reference import clipped_window
from kernels.shapes import PoolShape

Array = np.ndarray


def forward(x: Array, y: Array, shape: PoolShape) -> None:
    """Write each window's mean; padding counts in the divisor only with `include_pad`."""
    for p, q in itertools.product(range(shape.p), range(shape.q)):
        rows, cols = clipped_window(shape, p, q)
        window = x[:, :, rows, cols]
        y[:, :, p, q] = window.sum(axis=(2, 3)) / _divisor(shape, rows, cols)


def backward(dy: Array, dx: Array, shape: PoolShape) -> None:
    """Write dx: each window's gradient, divided, goes to all its elements, where it adds."""
    dx[...] = 0
    for p, q in itertools.product(range(shape.p), range(shape.q)):
        rows, cols = clipped_window(shape, p, q)
        dx[:, :, rows, cols] += dy[:, :, p, q, None, None] / _divisor(shape, rows, cols)


def _divisor(shape: PoolShape, rows: slice, cols: slice) -> int:
    if shape.include_pad:
        return shape.r * shape.s
    return (rows.stop - rows.start) * (cols.stop - cols.start)
