"""Linear layers with ReLU between them on CPU cores, all of them in one go each way, in Numba.

h[0] = x;  h[l+1] = relu(h[l] w[l] + b[l]), the last without ReLU
dh[l] = (dh[l+1] w[l]') where h[l] > 0;  dw[l] = h[l]' dh[l+1];  db[l] = the sum of dh[l+1]'s rows
Shapes: x (N, inputs), w (inputs, outputs), b (outputs,); float32 or float64.
Threads: each takes a part of the images through all layers, and back; then some rows of every dw.
Idea: LeNet's layers are so small that what lies around their products takes as long: one core's
passes over a whole output for bias and ReLU, and cores that read what another wrote just before.
Sums run in one order, whatever the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import njit, prange

from kernels.cpu_threads import one_launch
from kernels.training.matmul_cpu import LEAST_WORK, ROWS, multiply

Arrays = tuple[np.ndarray, ...]


def takes(count: int, w: Arrays) -> bool:
    """Tell whether the layers are work enough, for some images, to start the threads."""
    return count * sum(matrix.size for matrix in w) >= LEAST_WORK


@njit(cache=True, nogil=True)
def _forward_rows(rows, h, w, b, sizes):  # type: ignore[no-untyped-def]
    """Take some images through all layers."""
    for layer in range(len(b)):
        depth, columns, bias, out = sizes[layer], sizes[layer + 1], b[layer], h[layer + 1]
        whole = 0, columns, columns
        multiply(h[layer], (depth, 1), rows, w[layer], (columns, 1), depth, whole, out)
        for n in range(rows[0], rows[1]):
            row = out[n * columns : (n + 1) * columns]
            for j in range(columns):
                row[j] += bias[j]
            if layer < len(b) - 1:
                for j in range(columns):
                    row[j] = 0 if row[j] < 0 else row[j]  # a NaN stays


@njit(cache=True, nogil=True, parallel=True)
def _forward(parts, count, h, w, b, sizes):  # type: ignore[no-untyped-def]
    for part in prange(parts):
        rows = part * count // parts, (part + 1) * count // parts
        _forward_rows(rows, h, w, b, sizes)


@njit(cache=True, nogil=True)
def _backward_rows(rows, h, dh, w, sizes):  # type: ignore[no-untyped-def]
    """Take the gradients of some images from the last layer to x."""
    for layer in range(len(w) - 1, -1, -1):
        columns, depth, out, y = sizes[layer], sizes[layer + 1], dh[layer], h[layer]
        whole = 0, columns, columns
        multiply(dh[layer + 1], (depth, 1), rows, w[layer], (1, depth), depth, whole, out)
        if layer > 0:
            for n in range(rows[0], rows[1]):
                row, kept = out[n * columns :], y[n * columns :]
                for j in range(columns):
                    row[j] *= kept.dtype.type(kept[j] > 0)


@njit(cache=True, nogil=True)
def _gradient_rows(part, parts, count, h, dh, dw, db, sizes):  # type: ignore[no-untyped-def]
    """Compute a part of every layer's dw; the first one computes db."""
    for layer in range(len(dw)):
        inputs, outputs, dy = sizes[layer], sizes[layer + 1], dh[layer + 1]
        rows = part * inputs // parts, (part + 1) * inputs // parts
        whole = 0, outputs, outputs
        multiply(h[layer], (1, inputs), rows, dy, (outputs, 1), count, whole, dw[layer])
        if part == 0:
            bias = db[layer]
            bias[:] = 0
            for n in range(count):
                row = dy[n * outputs :]
                for j in range(outputs):
                    bias[j] += row[j]


@njit(cache=True, nogil=True, parallel=True)
def _gradients(parts, count, h, dh, dw, db, sizes):  # type: ignore[no-untyped-def]
    for part in prange(parts):
        _gradient_rows(part, parts, count, h, dh, dw, db, sizes)


@njit(cache=True, nogil=True, parallel=True)
def _backward(parts, count, h, dh, w, sizes):  # type: ignore[no-untyped-def]
    for part in prange(parts):
        rows = part * count // parts, (part + 1) * count // parts
        _backward_rows(rows, h, dh, w, sizes)


def _parts(count: int) -> int:
    return max(1, min(count // len(ROWS), numba.get_num_threads()))


def forward(x: np.ndarray, w: Arrays, b: Arrays) -> Arrays:
    """Return the layers' outputs, after their ReLU.

    Parameters
    ----------
    x
        (N, inputs), C-contiguous.
    w, b
        Of every layer, (inputs, outputs) and (outputs,), C-contiguous.
    """
    sizes = (x.shape[1], *map(len, b))
    h = (x, *(np.empty((len(x), size), x.dtype) for size in sizes[1:]))
    with one_launch:
        _forward(_parts(len(x)), len(x), _flat(h), _flat(w), b, sizes)
    return h[1:]


def backward(
    x: np.ndarray, outputs: Arrays, dy: np.ndarray, w: Arrays, dw: Arrays, db: Arrays
) -> np.ndarray:
    """Write dw and db of every layer, and return dx.

    Parameters
    ----------
    x, w
        As for `forward`.
    outputs
        What it returned.
    dy
        Gradient with respect to the last of them.
    dw, db
        Written: of the shapes of w and b.
    """
    h = (x, *outputs[:-1])
    dh = (*map(np.empty_like, h), dy)
    sizes, parts = tuple(array.shape[1] for array in dh), _parts(len(x))
    dx, h, dh = dh[0], _flat(h), _flat(dh)
    with one_launch:
        # Two launches: in one function Numba would make one loop of both, without the wait between.
        _backward(parts, len(x), h, dh, _flat(w), sizes)
        _gradients(parts, len(x), h, dh, _flat(dw), db, sizes)
    return dx


def _flat(arrays: Arrays) -> Arrays:
    return tuple(array.reshape(-1) for array in arrays)
