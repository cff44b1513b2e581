"""Softmax cross-entropy, its gradient and the hits in one launch (`softmax_cross_entropy.cu`)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kernels import place
from kernels.source import CudaSource, ceil_div

THREADS = 256
LANES = (4, 16, 32)  # threads of a row: the first that leave a thread no more than one class

source = CudaSource(
    "training/softmax_cross_entropy.cu", [{"LANES": lanes} for lanes in LANES], THREADS=THREADS
)


class Scratch(NamedTuple):
    """What the blocks leave for the last one.

    Attributes
    ----------
    losses, hits
        Of each block.
    ticket
        How many blocks have ended: 0 before a launch, and after it again.
    """

    losses: Any
    hits: Any
    ticket: Any


def scratch(logits: Any) -> Scratch:
    """Allocate a launch's scratch memory, beside `logits`; further launches may use it again."""
    xp, blocks = place.array_module(logits), _blocks(*logits.shape)
    return Scratch(
        xp.empty(blocks, logits.dtype), xp.empty(blocks, np.int32), xp.zeros(1, np.uint32)
    )


def launch(
    logits: Any,
    labels: Any,
    gradient: Any,
    losses: Any,
    hits: Any,
    scratch: Scratch,
    step: Any = None,
) -> None:
    """Write a batch's mean loss, its hits and its gradient; a CUDA graph can capture it.

    Parameters
    ----------
    logits
        (N, classes), float32 or float64, C-contiguous; N at least 1.
    labels
        int64, (N,), each from 0 to classes - 1.
    gradient
        (N, classes), written: (softmax(logits) - onehot(labels)) / N.
    losses, hits
        Written at ``step[0]``: of logits' dtype, and int32.
    scratch
        From `scratch`, for a batch at least as large.
    step
        int32, (1,), where the arrays live: read when the kernel runs, not when it is launched.
        None means 0.
    """
    rows, classes = logits.shape
    lanes = _lanes(classes)
    kernel = source.kernel("softmax_cross_entropy", like=logits, LANES=lanes)
    args = (logits, labels, gradient, losses, hits, *scratch, step)
    kernel((_blocks(rows, classes),), (THREADS,), (*args, np.int32(rows), np.int32(classes)))


def _lanes(classes: int) -> int:
    return next((lanes for lanes in LANES if lanes >= classes), LANES[-1])


def _blocks(rows: int, classes: int) -> int:
    return ceil_div(rows * _lanes(classes), THREADS)
