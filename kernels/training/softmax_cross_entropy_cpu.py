"""Softmax, cross-entropy and its gradient on a CPU core, in Numba, in one pass over the logits.

loss = mean over n of log(sum over j of exp(z[n,j])) - z[n,label]
gradient[n,j] = (exp(z[n,j]) / sum - (1 if j is the label else 0)) / N
Shapes: z and gradient (N, classes), labels (N,); float32 or float64.
Idea: a row is read once; NumPy would make eight passes, each for longer than its arithmetic takes.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def softmax_cross_entropy(logits, labels, gradient):  # type: ignore[no-untyped-def]
    """Write the gradient and return the mean loss, in double precision."""
    count, classes = logits.shape
    loss = 0.0
    for n in range(count):
        row, out = logits[n], gradient[n]
        highest = row[0]
        for j in range(1, classes):
            highest = max(highest, row[j])
        total = row.dtype.type(0)
        for j in range(classes):
            out[j] = np.exp(row[j] - highest)
            total += out[j]
        loss += np.log(total) - (row[labels[n]] - highest)
        scale = row.dtype.type(1) / (total * row.dtype.type(count))
        for j in range(classes):
            out[j] *= scale
        out[labels[n]] -= row.dtype.type(1) / row.dtype.type(count)
    return loss / count
