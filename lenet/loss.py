"""Softmax cross-entropy: what the training makes small."""

from __future__ import annotations

from typing import Any

from kernels import place

Array = Any  # numpy.ndarray or cupy.ndarray


def softmax(logits: Array) -> Array:
    """Return the classes' probabilities, each row adding to 1.

    Parameters
    ----------
    logits
        (N, classes), any finite size: the row's maximum is taken off before ``exp``.
    """
    exponentials = place.array_module(logits).exp(logits - logits.max(axis=1, keepdims=True))
    exponentials /= exponentials.sum(axis=1, keepdims=True)
    return exponentials


def softmax_cross_entropy(logits: Array, labels: Array) -> tuple[Array, Array]:
    """Return the mean loss of a batch and its gradient.

    Parameters
    ----------
    logits
        (N, classes).
    labels
        int64, (N,), each below `classes`.

    Returns
    -------
    loss
        Mean over the batch of log(sum(exp(z))) - z[label], a 0-d array or scalar of the device.
    gradient
        (softmax(z) - onehot(label)) / N, (N, classes).
    """
    xp = place.array_module(logits)
    rows = xp.arange(len(labels))
    shifted = logits - logits.max(axis=1, keepdims=True)
    picked = shifted[rows, labels]
    gradient = xp.exp(shifted, out=shifted)
    total = gradient.sum(axis=1, keepdims=True)
    loss = (xp.log(total[:, 0]) - picked).mean()
    gradient /= total
    gradient[rows, labels] -= 1
    gradient *= 1 / len(labels)
    return loss, gradient
