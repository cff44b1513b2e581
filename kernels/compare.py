"""How close a kernel must come to the judge, and the report when it does not.

The bound is derived, not picked. A sum of n products in precision u, in any order, fused or not,
differs from the true sum by at most about n*u times the sum of the products' magnitudes (Higham,
*Accuracy and Stability of Numerical Algorithms*, 2nd ed., section 3.1), so elementwise

    |got - want| <= (n + 1) * u * op(|a|, |b|)

with op the operation itself on absolute values, in float64. Max-pooling only selects: exact.

A kernel that first rounds each factor to a unit round-off f adds at most 2f + f*f to the relative
error of a product, and so (2f + f*f) op(|a|, |b|) to the bound.

An algorithm that mixes the taps of a filter before it multiplies (Winograd) rounds terms that the
definition does not have. They are bounded by the products' mean over the taps, times the row's
`growth`; they are summed over channels alone, and its transforms round MIXING_ROUNDINGS times more:
`conv2d/winograd.cu` derives it.

The fused block's maximum is off by no more than the worst element of its window. Where two
elements are closer than that, either may be its argmax: what an argmax points to may lie two such
errors below the maximum. On inputs of small whole numbers every sum is exact, and the argmax must
be the judge's own.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from kernels import place
from kernels.conv2d import reference as conv2d_reference
from kernels.conv2d_relu_pool import reference as block_reference
from kernels.pool2d import avg_reference, max_reference
from kernels.shapes import BlockShape, PoolShape, Shape

# Unit round-off: half the distance from 1 to the next number.
UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}

# Of the transforms of Winograd's algorithms, the bias's among them (winograd.cu counts them).
MIXING_ROUNDINGS = 12

# What an output of whole numbers is filled with before a launch: no kernel writes it.
UNWRITTEN = {np.dtype(np.int32): -1, np.dtype(np.uint8): 254}

_REFERENCES: dict[str, Any] = {
    "conv2d": conv2d_reference,
    "conv2d_relu_pool": block_reference,
    "max_pool2d": max_reference,
    "avg_pool2d": avg_reference,
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the judge says of one array.

    Attributes
    ----------
    wrong, total
        Elements outside the bound, and all.
    worst
        Largest error as a share of its bound (1 is the limit); inf for NaN or any error where the
        bound is 0.
    first
        Up to five mismatches: (index, got, want, allowed error).
    """

    wrong: int
    total: int
    worst: float
    first: tuple[tuple[tuple[int, ...], float, float, float], ...]

    @property
    def ok(self) -> bool:
        """Whether every element is inside its bound."""
        return self.wrong == 0

    def __str__(self) -> str:
        if self.ok:
            return f"ok, at {self.worst:.2g} of the bound"
        lines = [
            f"{self.wrong} of {self.total} elements wrong, worst at {self.worst:.3g} x the bound"
        ]
        for index, got, want, allowed in self.first:
            where = ", ".join(map(str, index))
            lines.append(f"  [{where}] got {got:.9g}, want {want:.9g} within {allowed:.3g}")
        return "\n".join(lines)


def judge(got: np.ndarray, want: np.ndarray, bound: np.ndarray | float) -> Verdict:
    """Compare elementwise; NaN passes only where the judge has NaN too.

    Parameters
    ----------
    got
        The kernel's output, host memory.
    want, bound
        The judge's output and the allowed absolute error, float64, of the same shape (or scalar).

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    if got.shape != want.shape:
        raise ValueError(f"compare: got shape {got.shape}; expected {want.shape}")
    bound = np.broadcast_to(np.asarray(bound, dtype=np.float64), want.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        difference = np.abs(got.astype(np.float64) - want)
        alike = (np.isnan(got) & np.isnan(want)) | (got == want)
        # A difference of inf is wrong even where inf among the inputs makes the bound inf.
        inside = alike | ((difference <= bound) & np.isfinite(difference))
        ratio = np.where(alike, 0.0, difference / bound)
    wrong = np.argwhere(~inside)
    first = tuple(
        (
            tuple(int(i) for i in at),
            float(got[tuple(at)]),
            float(want[tuple(at)]),
            float(bound[tuple(at)]),
        )
        for at in wrong[:5]
    )
    worst = float(np.max(np.where(np.isnan(ratio), np.inf, ratio), initial=0.0))
    return Verdict(len(wrong), int(got.size), worst, first)


def judge_pass(
    operation: str,
    direction: str,
    inputs: tuple[np.ndarray | None, ...],
    shape: Any,
    got: list[np.ndarray],
    unit_roundoff: float,
    factor_roundoff: float = 0.0,
    growth: float = 0.0,
) -> list[Verdict]:
    """Compare every output of one pass with the judge's.

    Parameters
    ----------
    got
        The kernel's outputs, host memory.
    operation, direction, inputs, shape, unit_roundoff, factor_roundoff, growth
        As for `expected`.
    """
    want, bounds = expected(
        operation, direction, inputs, shape, unit_roundoff, factor_roundoff, growth
    )
    if (operation, direction) == ("conv2d_relu_pool", "forward") and not _is_exact(inputs, shape):
        x, w, b = (a if a is None else _wide(a) for a in inputs)
        z = block_reference.preactivation(x, w, b, shape)
        attained = block_reference.at(z, got[1], shape)
        # A maximum below the error may be taken for 0, and the other way round.
        return [judge(got[0], want[0], bounds[0]), judge(attained, want[0], 2 * bounds[0])]
    return [judge(one, right, bound) for one, right, bound in zip(got, want, bounds, strict=True)]


def _is_exact(inputs: tuple[np.ndarray | None, ...], shape: BlockShape) -> bool:
    """Tell whether a block's sums are exact in any precision: small whole numbers, and few."""
    given = [a for a in inputs if a is not None]
    whole = all(bool(((np.abs(a) <= 4) & (a == np.rint(a))).all()) for a in given)
    return whole and 16 * reduction_length("forward", shape, bias=True) < 2**24


def reduction_length(direction: str, shape: Any, bias: bool = False) -> int:
    """Return n, the number of terms summed for one element of the pass's output."""
    if isinstance(shape, PoolShape):
        return shape.r * shape.s
    summed = math.prod((shape.n, *shape.output_shape[2:]))
    lengths = {
        "forward": shape.c * shape.r * shape.s + bool(bias),
        "backward_data": shape.k * shape.r * shape.s,
        "backward_filter": summed,
        "backward_bias": summed,
    }
    return lengths[direction]


def expected(
    operation: str,
    direction: str,
    inputs: tuple[np.ndarray | None, ...],
    shape: Shape,
    unit_roundoff: float,
    factor_roundoff: float = 0.0,
    growth: float = 0.0,
) -> tuple[list[np.ndarray], list[np.ndarray | float]]:
    """Return the judge's outputs of one pass and the error allowed in each.

    Parameters
    ----------
    operation, direction
        ``"conv2d"`` and ``"forward"``, for instance.
    inputs
        The pass's inputs as its launcher takes them, host memory; an absent bias is None.
    shape
        The convolution's or the pooling's.
    unit_roundoff
        u of the kernel's arithmetic. The judge's own 2**-53 is added to it, which matters when
        the kernel too computes in float64.
    factor_roundoff
        To which the kernel rounds each factor of a product; 0 for not at all.
    growth
        Of an algorithm that mixes a filter's taps, `Row.growth`; 0 for none.
    """
    reference = getattr(_REFERENCES[operation], direction)
    exact = tuple(None if a is None else _wide(a) for a in inputs)
    want = [
        np.full(dims, np.nan if dtype is None else UNWRITTEN[dtype], dtype or np.float64)
        for dims, dtype in outputs(operation, direction, shape)
    ]
    reference(*exact, *want, shape)
    if operation == "max_pool2d" and direction == "forward":
        return want, [0.0, 0.0]
    magnitudes = tuple(a if a is None or a.dtype.kind != "f" else np.abs(a) for a in exact)
    bound, *others = (np.zeros_like(one) for one in want)
    bound.fill(np.nan)
    mixed = growth > 0 and direction != "backward_bias"
    if mixed and direction != "backward_filter":
        magnitudes = (magnitudes[0], mean_of_taps(magnitudes[1]), *magnitudes[2:])
    reference(*magnitudes, bound, *others, shape)
    if mixed and direction == "backward_filter":
        bound = mean_of_taps(bound)
    with_bias = direction == "forward" and len(inputs) == 3 and inputs[2] is not None
    n = reduction_length(direction, shape, with_bias)
    roundings = n + 1
    if mixed:  # one product a channel, not one a tap
        sums = n if direction == "backward_filter" else n // (shape.r * shape.s)
        roundings = sums + MIXING_ROUNDINGS
    bound *= roundings * (unit_roundoff + UNIT_ROUNDOFF["float64"]) + factor_roundoff * (
        2 + factor_roundoff
    )
    if mixed:
        bound *= growth
    return want, [bound, *(0.0 for _ in others)]


def outputs(
    operation: str, direction: str, shape: Any
) -> list[tuple[tuple[int, ...], np.dtype | None]]:
    """Return shape and dtype of each output of a pass; None stands for the inputs' dtype."""
    if operation in ("conv2d", "conv2d_relu_pool"):
        dims = {
            "forward": shape.output_shape,
            "backward_data": shape.input_shape,
            "backward_filter": shape.filter_shape,
            "backward_bias": (shape.k,),
        }[direction]
        has_argmax = isinstance(shape, BlockShape) and direction == "forward"
        return [(dims, None), (dims, np.dtype(np.uint8))] if has_argmax else [(dims, None)]
    if direction == "backward":
        return [(shape.input_shape, None)]
    if operation == "max_pool2d":
        return [(shape.output_shape, None), (shape.output_shape, np.dtype(np.int32))]
    return [(shape.output_shape, None)]


def mean_of_taps(filters: Any) -> Any:
    """Return filters (K,C,R,S) whose taps are all their filter's mean."""
    xp = place.array_module(filters)
    return xp.broadcast_to(filters.mean(axis=(2, 3), keepdims=True), filters.shape).copy()


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64) if array.dtype.kind == "f" else array
