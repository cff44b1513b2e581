"""Whether two kernels agree, judged where the arrays are: nothing is copied to the host.

The judge of `compare` needs float64 on the host, which a call that only wants its result cannot
wait for. Two kernels that are both right lie within the sum of their bounds of each other, and the
bound's op(|a|, |b|) is what one of them returns for the inputs' absolute values. So a kernel that
is wrong is seen, unless the one it is held against is wrong alike: that one is trusted, because
`python -m kernels check` and the tests hold it against the judge.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kernels import compare, place, table
from kernels.shapes import Shape

Array = Any


class Agreement:
    """What a trusted kernel returned for some inputs, and how far another may be from it.

    Parameters
    ----------
    row
        The trusted kernel's.
    direction, shape
        The pass.
    inputs
        As its launcher takes them.
    outputs
        Arrays for what a kernel returns; their contents are lost.
    launch
        Runs the trusted kernel on inputs and outputs.
    """

    def __init__(
        self,
        row: table.Row,
        direction: str,
        inputs: tuple[Array | None, ...],
        outputs: tuple[Array, ...],
        shape: Shape,
        launch: Callable[[tuple[Array | None, ...]], None],
    ) -> None:
        self._row, self._direction, self._outputs = row, direction, outputs
        self._xp = xp = place.array_module(inputs[0])
        bias = direction == "forward" and len(inputs) == 3 and inputs[2] is not None
        self._terms = compare.reduction_length(direction, shape, bias)
        self._exact = row.operation == "max_pool2d" and direction == "forward"
        if not self._exact:
            magnitudes = [a if a is None or a.dtype.kind != "f" else xp.abs(a) for a in inputs]
            launch((*magnitudes, *outputs))
            self._magnitude = self._mixed = outputs[0].copy()
            if rows_mix(row.operation, direction):
                if direction == "backward_filter":
                    self._mixed = compare.mean_of_taps(self._magnitude)
                else:
                    magnitudes[1] = compare.mean_of_taps(magnitudes[1])
                    launch((*magnitudes, *outputs))
                    self._mixed = outputs[0].copy()
            del magnitudes
        self.spoil()
        launch((*inputs, *outputs))
        self._want = [output.copy() for output in outputs]

    def spoil(self) -> None:
        """Fill the outputs with what no kernel writes, so that what is not written shows."""
        for output in self._outputs:
            output.fill(compare.UNWRITTEN.get(output.dtype, np.nan))

    def problem(self, other: table.Row) -> str:
        """Return what is wrong with the outputs that another kernel wrote, or nothing."""
        xp, got, want = self._xp, self._outputs[0], self._want[0]
        near = (got == want) | (xp.isnan(got) & xp.isnan(want))
        if not self._exact:
            near |= xp.abs(got - want) <= self._allowed(self._row) + self._allowed(other)
            near |= ~xp.isfinite(self._magnitude)  # they overflow: there is nothing to judge by
        wrong = int((~near).sum())
        for got_at, want_at in zip(self._outputs[1:], self._want[1:], strict=True):
            # Of the block's argmax two right kernels may differ, where elements nearly tie.
            unwritten = compare.UNWRITTEN[got_at.dtype]
            wrong += int((got_at != want_at if self._exact else got_at == unwritten).sum())
        if not wrong:
            return ""
        return f"{wrong:,} of {got.size:,} elements differ from those of kernel {self._row.name!r}"

    def _allowed(self, row: table.Row) -> Array:
        """Return how far a kernel may be from the truth, as `compare` derives it."""
        unit = compare.UNIT_ROUNDOFF[self._magnitude.dtype.name]
        mixes = row.growth > 0 and self._direction != "backward_bias"
        roundings = self._terms + (compare.MIXING_ROUNDINGS if mixes else 1)
        share = roundings * unit + row.roundoff * (2 + row.roundoff)
        return share * row.growth * self._mixed if mixes else share * self._magnitude


def rows_mix(operation: str, direction: str) -> bool:
    """Tell whether a row of the operation mixes a filter's taps before it multiplies."""
    mixing = any(row.growth for row in table.rows(operation))
    return mixing and direction != "backward_bias"
