"""Nesterov's gradient descent on a CPU core, in Numba, all parameters in one pass.

g += decay w;  v = momentum v + g;  w -= rate (g + momentum v)
Shapes: weights w, gradient g, velocity v: flat, of one length; float32 or float64.
Idea: three arrays are read and two written, once; NumPy would make six passes.
"""

from __future__ import annotations

from numba import njit


@njit(cache=True, nogil=True)
def nesterov_sgd(weights, gradient, velocity, rate, momentum, decay):  # type: ignore[no-untyped-def]
    """Move the weights by one step; rate, momentum and decay are of the arrays' type."""
    for i in range(len(weights)):
        step = gradient[i] + decay * weights[i]
        speed = momentum * velocity[i] + step
        velocity[i] = speed
        weights[i] -= rate * (step + momentum * speed)
