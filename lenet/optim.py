"""Stochastic gradient descent with Nesterov momentum, and the one-cycle learning rate."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import place
from kernels.training import nesterov_sgd
from kernels.training.gradient_pieces import GradientPieces

Array = Any  # numpy.ndarray or cupy.ndarray

RISE = 0.3  # share of the steps in which the learning rate rises


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of one step: a line up to `peak`, then a line down to almost 0.

    Parameters
    ----------
    step
        0 to ``steps - 1``.
    steps
        Steps of the whole training.
    peak
        The highest rate, reached after 30 % of the steps.

    Notes
    -----
    After Smith and Topin, *Super-Convergence: Very Fast Training of Neural Networks Using Large
    Learning Rates* (arXiv 1708.07120), with straight lines and a constant momentum. No step has a
    rate of 0, which would be a step for nothing.
    """
    top = max(round(RISE * steps), 1)
    if step < top:
        return peak * (step + 1) / top
    return peak * (steps - step) / (steps - top + 1)


class NesterovSGD:
    """v = momentum v + g;  weights -= rate (g + momentum v).

    Parameters
    ----------
    weights, gradient
        All parameters of a model and their gradients, each one flat vector: a step is a handful
        of operations whatever the number of layers.
    momentum
        0 is plain gradient descent.
    weight_decay
        Adds ``weight_decay * weights`` to the gradient, biases included.

    Attributes
    ----------
    velocity
        v, a flat vector like `weights`.
    """

    def __init__(
        self, weights: Array, gradient: Array, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        self.weights = weights
        self.gradient = gradient
        self.momentum = momentum
        self.weight_decay = weight_decay
        xp = place.array_module(weights)
        self.velocity = xp.zeros_like(weights)
        self._rate = xp.empty_like(weights[:1])  # where a GPU's kernel reads a rate given as number

    def step(
        self,
        rate: float | Array,
        pieces: GradientPieces | None = None,
        number: Array | None = None,
        ticket: Array | None = None,
    ) -> None:
        """Move the weights by one step; the gradient is used up.

        Parameters
        ----------
        rate
            Learning rate: a number, or an array beside the weights, which is read when the step
            runs, so that a CUDA graph of it can go on with another.
        pieces
            Parts of the gradient that lie there in slices; `gradient` has the others.
        number, ticket
            As step and ticket for `nesterov_sgd.launch`: which of the rates it is. By default the
            first.
        """
        if place.on_gpu(self.weights) or pieces is not None:
            if place.array_module(rate) is None:
                self._rate.fill(rate)
                rate = self._rate
            nesterov_sgd.launch(
                self.weights, self.gradient, self.velocity, rate, self.momentum, self.weight_decay,
                number, ticket, pieces,
            )  # fmt: skip
            return
        # Numba takes a while to import.
        from kernels.training.nesterov_sgd_cpu import nesterov_sgd as one_pass

        numbers = np.array((rate, self.momentum, self.weight_decay), self.weights.dtype)
        one_pass(self.weights, self.gradient, self.velocity, *numbers)
