"""Stochastic gradient descent with Nesterov momentum in one launch (`nesterov_sgd.cu`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.source import CudaSource, ceil_div

THREADS = 256
source = CudaSource("training/nesterov_sgd.cu", THREADS=THREADS)


def launch(
    weights: Any,
    gradient: Any,
    velocity: Any,
    rates: Any,
    momentum: float,
    weight_decay: float,
    step: Any = None,
    ticket: Any = None,
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
    """
    kernel = source.kernel("nesterov_sgd", like=weights)
    constants = (weights.dtype.type(momentum), weights.dtype.type(weight_decay))
    args = (weights, gradient, velocity, rates, step, ticket, *constants, np.int32(weights.size))
    kernel((ceil_div(weights.size, THREADS),), (THREADS,), args)
