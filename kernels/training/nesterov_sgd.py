"""Stochastic gradient descent with Nesterov momentum in one launch (`nesterov_sgd.cu`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.source import CudaSource, ceil_div
from kernels.training import gradient_pieces
from kernels.training.gradient_pieces import GradientPieces

THREADS = 256
source = CudaSource(
    "training/nesterov_sgd.cu", THREADS=THREADS, MOST_PIECES=gradient_pieces.MOST_PIECES
)


def launch(
    weights: Any,
    gradient: Any,
    velocity: Any,
    rates: Any,
    momentum: float,
    weight_decay: float,
    step: Any = None,
    ticket: Any = None,
    pieces: GradientPieces | None = None,
) -> None:
    """Move all parameters by one step; a CUDA graph can capture it.

    Parameters
    ----------
    weights, velocity
        Flat vectors of one length and dtype, changed in place.
    gradient
        A vector like them.
    rates
        Learning rates, of their dtype: the one at ``step[0]`` is read when the kernel runs.
    momentum, weight_decay
        As for `lenet.optim.NesterovSGD`; they are the same in every replay of a graph.
    step
        int32, (1,), where the vectors live: 1 is added to it. None means the first rate, always.
    ticket
        uint32, (1,), 0 before a launch and after it again; wanted with a step.
    pieces
        Parts of the gradient that are taken from there, summed; `gradient` has the others.
    """
    partial, struct, blocks = _parts(pieces)
    constants = (weights.dtype.type(momentum), weights.dtype.type(weight_decay))
    args = (weights, gradient, partial, velocity, rates, step, ticket, *constants)
    kernel = source.kernel("nesterov_sgd", like=weights)
    blocks += ceil_div(weights.size, THREADS)
    kernel((blocks,), (THREADS,), (*args, np.int32(weights.size), struct))


def sum_pieces(gradient: Any, pieces: GradientPieces) -> None:
    """Write to a gradient, a flat vector, the sums of its pieces; the rest of it stays."""
    partial, struct, blocks = _parts(pieces)
    blocks += ceil_div(gradient.size, THREADS)
    kernel = source.kernel("sum_pieces", like=gradient)
    kernel((blocks,), (THREADS,), (gradient, partial, np.int32(gradient.size), struct))


def _parts(pieces: GradientPieces | None) -> tuple[Any, np.void, int]:
    if pieces is None:
        return None, gradient_pieces.NONE, 0
    return pieces.partial, pieces.struct, pieces.blocks
