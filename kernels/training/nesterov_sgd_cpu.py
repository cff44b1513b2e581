"""Nesterov's gradient descent on CPU cores, in Numba, all parameters in one pass.

g += decay w;  v = momentum v + g;  w -= rate (g + momentum v)
Shapes: weights w, gradient g, velocity v: flat, of one length; float32 or float64.
Idea: three arrays are read and two written, once; NumPy would make six passes.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from kernels.cpu_threads import one_launch


@njit(cache=True, nogil=True, parallel=True)
def _move(weights, gradient, velocity, rate, momentum, decay):  # type: ignore[no-untyped-def]
    for i in prange(len(weights)):
        step = gradient[i] + decay * weights[i]
        speed = momentum * velocity[i] + step
        velocity[i] = speed
        weights[i] -= rate * (step + momentum * speed)


def nesterov_sgd(
    weights: np.ndarray,
    gradient: np.ndarray,
    velocity: np.ndarray,
    rate: np.floating,
    momentum: np.floating,
    decay: np.floating,
) -> None:
    """Move the weights by one step; rate, momentum and decay are of the arrays' type."""
    with one_launch:
        _move(weights, gradient, velocity, rate, momentum, decay)
