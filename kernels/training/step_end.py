"""The end of a step: its figures are kept, and the next one is set up (`step_end.cu`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.source import CudaSource

source = CudaSource("training/step_end.cu")


def end_step(
    loss: Any, right: Any, losses: Any, hits: Any, rates: Any, rate: Any, position: Any
) -> None:
    """Keep a step's loss and hits, and set number and rate of the next.

    Parameters
    ----------
    loss, right
        The step's: one element, and one int32.
    losses, hits
        (steps,), of the epoch: of loss's dtype, and int32.
    rates
        (steps,), of loss's dtype.
    rate
        (1,): becomes the next step's.
    position
        int32, (2,): the epoch, and the step, which becomes the next.
    """
    args = (loss, right, losses, hits, rates, rate, position, np.int32(rates.size))
    source.kernel("end_step", like=rates)((1,), (1,), args)
