"""Hold a pass against the judge on the very shape that is to be timed, before it is timed.

The launch is the benchmark's own, at full size. All of its output must have been written; a part
of it, chosen so that the float64 judge takes about a second, is compared within the bound of
`kernels.compare`: some images and output channels, every element of them.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from kernels import compare
from kernels.shapes import Shape
from profiling.result_file import Check

# Multiply-adds that the judge may spend, twice over: the value, and its bound.
BUDGET = 100_000_000


class Sample(NamedTuple):
    """The part of a pass that the judge computes again.

    Attributes
    ----------
    inputs
        What it needs of the inputs.
    shape
        The smaller pass.
    outputs
        For each output, the index that selects the same part of the full one.
    """

    inputs: tuple[np.ndarray, ...]
    shape: Shape
    outputs: tuple[Any, ...]


def judge(
    operation: str,
    direction: str,
    shape: Shape,
    inputs: tuple[np.ndarray, ...],
    got: list[np.ndarray],
    rng: np.random.Generator,
    factor_roundoff: float = 0.0,
    growth: float = 0.0,
) -> tuple[Check, str]:
    """Compare the outputs of one launch with the judge.

    Parameters
    ----------
    operation, direction, shape
        The pass.
    inputs, got
        Its inputs and outputs, host memory, float32; outputs were filled with NaN before.
    rng
        Chooses what is compared.
    factor_roundoff, growth
        The kernel's `Row.roundoff` and `Row.growth`.

    Returns
    -------
    check
        How much was compared, and the worst error as a share of its bound.
    message
        What was wrong, for a person; empty where nothing was.
    """
    sample = choose(operation, direction, shape, inputs, rng)
    verdicts = compare.judge_pass(
        operation, direction, sample.inputs, sample.shape,
        [one[at] for one, at in zip(got, sample.outputs, strict=True)],
        compare.UNIT_ROUNDOFF["float32"], factor_roundoff, growth,
    )  # fmt: skip
    worst = max(verdict.worst for verdict in verdicts)
    check = Check(
        sum(verdict.total for verdict in verdicts),
        sum(one.size for one in got),
        worst if math.isfinite(worst) else None,
    )
    wrong = [] if all(map(_written, got)) else ["some of the output was not written"]
    wrong += [str(verdict) for verdict in verdicts if not verdict.ok]
    return check, "\n".join(wrong)


def choose(
    operation: str,
    direction: str,
    shape: Any,
    inputs: tuple[np.ndarray, ...],
    rng: np.random.Generator,
) -> Sample:
    """Return a part of a pass: the first and last images and channels, and others at random."""
    if not operation.startswith("conv2d"):
        images = _some(shape.n, BUDGET // max(shape.flops // shape.n, 1), rng)
        parts = tuple(array[images] for array in inputs)
        count = 2 if (operation, direction) == ("max_pool2d", "forward") else 1
        return Sample(parts, shape._replace(n=len(images)), (images,) * count)
    taps = shape.r * shape.s * shape.p * shape.q
    has_argmax = operation == "conv2d_relu_pool"
    if direction in ("backward_filter", "backward_bias"):
        affordable = BUDGET // max(shape.n * taps, 1)
        filters = _some(shape.k, affordable, rng)
        if direction == "backward_bias":
            parts = tuple(array[:, filters] for array in inputs)
            return Sample(parts, shape._replace(k=len(filters)), (filters,))
        channels = _some(shape.c, affordable // len(filters), rng)
        x, *gradient = inputs
        return Sample(
            (x[:, channels], *(array[:, filters] for array in gradient)),
            shape._replace(c=len(channels), k=len(filters)),
            (np.ix_(filters, channels),),
        )
    if direction == "forward":
        filters = _some(shape.k, BUDGET // max(shape.c * taps, 1), rng)
        images = _some(shape.n, BUDGET // max(shape.c * taps * len(filters), 1), rng)
        x, w, b = inputs
        smaller = shape._replace(n=len(images), k=len(filters))
        parts = x[images], w[filters], b[filters]
        return Sample(parts, smaller, (np.ix_(images, filters),) * (1 + has_argmax))
    channels = _some(shape.c, BUDGET // max(shape.k * taps, 1), rng)
    images = _some(shape.n, BUDGET // max(shape.k * taps * len(channels), 1), rng)
    *gradient, w = inputs
    smaller = shape._replace(n=len(images), c=len(channels))
    parts = (*(array[images] for array in gradient), w[:, channels])
    return Sample(parts, smaller, (np.ix_(images, channels),))


def _some(count: int, affordable: int, rng: np.random.Generator) -> np.ndarray:
    """Return some of ``range(count)``: the ends, where tiles are cut, and what is affordable."""
    wanted = max(affordable, 2)
    if wanted >= count:
        return np.arange(count)
    between = rng.choice(np.arange(1, count - 1), wanted - 2, replace=False)
    return np.sort(np.concatenate([[0], between, [count - 1]]).astype(np.int64))


def _written(array: np.ndarray) -> bool:
    """Tell whether nothing of what the output was filled with is left; inputs are finite."""
    if array.dtype in compare.UNWRITTEN:
        return bool((array != compare.UNWRITTEN[array.dtype]).all())
    return not np.isnan(array).any()
