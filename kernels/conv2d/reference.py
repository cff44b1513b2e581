"""The judge: cross-correlation and its gradients, plain NumPy, one filter tap at a time.

Meant for float64 arrays; it shares no code with any kernel and prefers clarity to speed. It is
itself checked by hand-worked cases and finite differences.
"""

from __future__ import annotations

import numpy as np

from kernels.shapes import Conv2dShape

Array = np.ndarray


def forward(x: Array, w: Array, b: Array | None, y: Array, shape: Conv2dShape) -> None:
    """Write y[n,k,p,q] = b[k] + sum over c,r,s of x[n,c,h,w] w[k,c,r,s]."""
    padded = np.pad(x, ((0, 0), (0, 0), *shape.padding))
    y[...] = 0 if b is None else b[:, None, None]
    for r in range(shape.r):
        for s in range(shape.s):
            y += np.einsum("ncpq,kc->nkpq", padded[_seen(shape, r, s)], w[:, :, r, s])


def backward_data(dy: Array, w: Array, dx: Array, shape: Conv2dShape) -> None:
    """Write the gradient to the input: every tap hands dy back to the element it read."""
    (top, bottom), (left, right) = shape.padding
    padded = np.zeros(
        (shape.n, shape.c, shape.h + top + bottom, shape.w + left + right), dtype=dx.dtype
    )
    for r in range(shape.r):
        for s in range(shape.s):
            padded[_seen(shape, r, s)] += np.einsum("nkpq,kc->ncpq", dy, w[:, :, r, s])
    dx[...] = padded[:, :, top : top + shape.h, left : left + shape.w]


def backward_filter(x: Array, dy: Array, dw: Array, shape: Conv2dShape) -> None:
    """Write the gradient to the filters: for each tap, x where it was read times dy."""
    padded = np.pad(x, ((0, 0), (0, 0), *shape.padding))
    for r in range(shape.r):
        for s in range(shape.s):
            dw[:, :, r, s] = np.einsum("nkpq,ncpq->kc", dy, padded[_seen(shape, r, s)])


def backward_bias(dy: Array, db: Array, shape: Conv2dShape) -> None:
    """Write the gradient to the bias: dy summed over n, p and q."""
    db[...] = dy.sum(axis=(0, 2, 3))


def _seen(shape: Conv2dShape, r: int, s: int) -> tuple[slice, ...]:
    """Select the elements of the padded input that tap (r, s) reads, one an output."""
    top, left = r * shape.dilation_h, s * shape.dilation_w
    rows = slice(top, top + (shape.p - 1) * shape.stride_h + 1, shape.stride_h)
    cols = slice(left, left + (shape.q - 1) * shape.stride_w + 1, shape.stride_w)
    return slice(None), slice(None), rows, cols
