"""Softmax cross-entropy: what the training makes small."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import place
from kernels.training import softmax_cross_entropy as one_launch

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
    if place.on_gpu(logits):
        loss, _, gradient = softmax_cross_entropy_and_hits(logits, labels)
        return loss, gradient
    # Numba takes a while to import.
    from kernels.training.softmax_cross_entropy_cpu import softmax_cross_entropy as one_pass

    gradient = np.empty_like(logits)
    return one_pass(logits, labels, gradient), gradient


def softmax_cross_entropy_and_hits(logits: Array, labels: Array) -> tuple[Array, Array, Array]:
    """Return the loss, the hits and the gradient of a batch by one CUDA kernel.

    Parameters
    ----------
    logits, labels
        As for `softmax_cross_entropy`. NumPy arrays run the kernel on the emulator.

    Returns
    -------
    loss, gradient
        As from `softmax_cross_entropy`.
    hits
        How many rows have their maximum at their label, a 0-d int32 array.
    """
    xp = place.array_module(logits)
    gradient = xp.empty_like(logits)
    losses, hits = xp.empty(1, logits.dtype), xp.empty(1, np.int32)
    one_launch.launch(logits, labels, gradient, losses, hits, one_launch.scratch(logits))
    return losses[0], hits[0], gradient
