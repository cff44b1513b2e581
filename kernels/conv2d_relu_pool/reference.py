"""The judge of the fused block: the judge's convolution, then ReLU and pooling in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.conv2d import reference
from kernels.shapes import CLOSED, BlockShape

Array = np.ndarray


def forward(
    x: Array, w: Array, b: Array | None, y: Array, argmax: Array, shape: BlockShape
) -> None:
    """Write the maximum of every window of max(conv2d(x, w, b), 0), and where in it it is.

    Ties go to the first in row order, a NaN is its window's maximum, and where no element is
    greater than 0 the argmax is `CLOSED`.
    """
    windows = _windows(preactivation(x, w, b, shape), shape)
    first = windows.argmax(axis=-1)
    best = np.take_along_axis(windows, first[..., None], axis=-1)[..., 0]
    y[...] = np.maximum(best, 0)
    argmax[...] = np.where(best <= 0, CLOSED, first)


def backward_data(dy: Array, argmax: Array, w: Array, dx: Array, shape: BlockShape) -> None:
    """Write the gradient to the input."""
    reference.backward_data(_spread(dy, argmax, shape), w, dx, shape.conv)


def backward_filter(x: Array, dy: Array, argmax: Array, dw: Array, shape: BlockShape) -> None:
    """Write the gradient to the filters."""
    reference.backward_filter(x, _spread(dy, argmax, shape), dw, shape.conv)


def backward_bias(dy: Array, argmax: Array, db: Array, shape: BlockShape) -> None:
    """Write the gradient to the bias: dy, where the ReLU is open, summed over n, p and q."""
    del shape
    db[...] = np.where(argmax == CLOSED, 0, dy).sum(axis=(0, 2, 3))


def preactivation(x: Any, w: Any, b: Any, shape: BlockShape) -> Array:
    """Return the convolution's output with its bias, (N, K, P, Q)."""
    z = np.empty(shape.conv.output_shape, x.dtype)
    reference.forward(x, w, b, z, shape.conv)
    return z


def at(z: Array, argmax: Array, shape: BlockShape) -> Array:
    """Return what an argmax points to in z, (N, K, P, Q): 0 where closed, NaN where it is none."""
    windows = _windows(z, shape)
    place = np.minimum(argmax, windows.shape[-1] - 1).astype(np.intp)
    value = np.take_along_axis(windows, place[..., None], axis=-1)[..., 0]
    there = np.where(argmax < windows.shape[-1], value, np.nan)
    return np.where(argmax == CLOSED, 0.0, there)


def _windows(z: Array, shape: BlockShape) -> Array:
    """Return the elements of each window in row order, (N, K, pooled P, pooled Q, window)."""
    n, k, rows, cols = shape.output_shape
    z = z[:, :, : rows * shape.pool_r, : cols * shape.pool_s]
    z = z.reshape(n, k, rows, shape.pool_r, cols, shape.pool_s)
    return z.transpose(0, 1, 2, 4, 3, 5).reshape(n, k, rows, cols, -1)


def _spread(dy: Array, argmax: Array, shape: BlockShape) -> Array:
    """Return the gradient to the convolution's output, (N, K, P, Q)."""
    dz = np.zeros(shape.conv.output_shape, dy.dtype)
    n, k, p, q = np.nonzero(argmax != CLOSED)
    place = argmax[n, k, p, q]
    row, col = p * shape.pool_r + place // shape.pool_s, q * shape.pool_s + place % shape.pool_s
    dz[n, k, row, col] = dy[n, k, p, q]
    return dz
