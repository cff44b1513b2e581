"""The steps of an epoch: which images each one takes, and its figures.

The order of an epoch's images and how far each is moved are functions of seed and epoch, the same
wherever the training runs; so is how they are distorted, whose pixels agree to rounding.
`HostSteps` computes them with NumPy; `lenet.step_graph` on the device.
"""

from __future__ import annotations

import dataclasses
import math
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from kernels import ranges
from kernels.training import batch, shuffle
from lenet.trainer import DATA, Array, Trainer, gathered


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """All training images where the model is, and how they are dealt out.

    Attributes
    ----------
    images, labels
        (N, 1, 28, 28), and int64, (N,).
    batch_size
        Images a step; the last of an epoch has what is left.
    seed
        Of the order and the moves.
    augment
        How many pixels an image is moved at most, up or down and left or right, anew every epoch.
    background
        What comes in there.
    distort
        By what share an image is at most scaled, squeezed and sheared, likewise.
    """

    images: Array
    labels: Array
    batch_size: int
    seed: int = 0
    augment: int = 0
    background: float = 0.0
    distort: float = 0.0

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return math.ceil(len(self.images) / self.batch_size)

    @property
    def sizes(self) -> np.ndarray:
        """Images of each of them."""
        sizes = np.full(self.steps, self.batch_size)
        sizes[-1] = len(self.images) - self.batch_size * (self.steps - 1)
        return sizes


class Steps(Protocol):
    """Makes the steps of one epoch after the other; the steps themselves happen inside ``with``.

    Attributes
    ----------
    seen
        (2, steps), the epoch's losses and hits as far as they can be looked at without waiting, or
        None where they cannot.
    recorded
        Whether steps run as a CUDA graph, but for those that the stopwatch times.
    no_graph
        That none could be recorded, and why, in words for the user; or nothing.
    """

    recorded: bool
    no_graph: str

    @property
    def seen(self) -> np.ndarray | None:
        """Losses and hits; see above."""

    def warm_up(self) -> None:
        """Compile whatever a step needs; weights and momentum stay."""

    def begin(self, epoch: int, rates: np.ndarray, losses: np.ndarray, hits: np.ndarray) -> None:
        """Set an epoch up.

        Parameters
        ----------
        epoch
            From 0.
        rates
            float64, the learning rate of each of its steps.
        losses, hits
            Of the steps that were made already.
        """

    def step(self, number: int) -> None:
        """Make the epoch's step `number`; they come in order."""

    def done(self) -> int:
        """Return how many steps of the epoch are known to have ended, without waiting for one."""

    def figures(self) -> np.ndarray:
        """Wait for the steps made so far and return losses and hits, float64, (2, steps)."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class HostSteps:
    """The steps in host memory.

    Parameters
    ----------
    trainer
        Model, optimiser and stopwatch.
    data
        NumPy arrays.
    """

    recorded, no_graph = False, ""

    def __init__(self, trainer: Trainer, data: TrainingSet) -> None:
        self.trainer, self.data = trainer, data

    def warm_up(self) -> None:
        """Make a step of each size and take it back."""
        parts = [self.trainer.ranks.part(int(size)) for size in self.data.sizes]
        order = shuffle.permutation(len(self.data.images), self.data.seed, 0)
        for size in {part.stop - part.start for part in parts}:
            self.trainer.warm_up(*self._batch(order[:size], 0))

    def begin(self, epoch: int, rates: np.ndarray, losses: np.ndarray, hits: np.ndarray) -> None:
        """Compute the order."""
        data = self.data
        self.epoch, self.rates, self.made = epoch, rates.tolist(), len(losses)
        self.order = shuffle.permutation(len(data.images), data.seed, epoch)
        self.seen: np.ndarray = np.zeros((2, data.steps))
        self.seen[:, : self.made] = losses, hits

    def step(self, number: int) -> None:
        """Gather the batch and learn from it."""
        data, watch = self.data, self.trainer.watch
        whole = self.order[number * data.batch_size : (number + 1) * data.batch_size]
        chosen = whole[self.trainer.ranks.part(len(whole))]
        watch.start_step()
        with ranges.span("step"):
            with watch.phase(DATA):
                x, target = self._batch(chosen, self.epoch)
            loss, hits = self.trainer.learn(x, target, self.rates[number], len(chosen) / len(whole))
        self.seen[:, number] = x.dtype.type(loss), hits  # a loss has no more digits on a GPU
        self.made = number + 1

    def _batch(self, chosen: np.ndarray, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images and labels of a step."""
        data = self.data
        how = (data.seed, epoch, data.augment, data.background)
        if data.distort:
            x = batch.distorted(data.images, chosen, *how, data.distort)
        elif data.augment:
            x = batch.moved(data.images, chosen, *how)
        else:
            x = gathered(data.images, chosen)
        return x, data.labels[chosen]

    def done(self) -> int:
        """Return how many steps were made."""
        return self.made

    def figures(self) -> np.ndarray:
        """Return losses and hits."""
        return self.seen

    def __enter__(self) -> HostSteps:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to give back."""
