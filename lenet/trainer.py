"""One training step, one evaluation, and both as functions for callers outside."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from kernels import place
from kernels.training.batch import Gather
from lenet import device as devices
from lenet.choice import choose_kernels
from lenet.errors import KernelError
from lenet.learning_layers import Figures, Side, figures_for_one
from lenet.loss import softmax_cross_entropy, softmax_cross_entropy_and_hits
from lenet.model import Model, build_model
from lenet.optim import NesterovSGD, one_cycle
from lenet.ranks import ALONE, Ranks
from lenet.timing import Phase, Stopwatch

Array = Any  # numpy.ndarray or cupy.ndarray

EVALUATION_BATCH = 512

DATA = Phase("data", "data")
LOSS = Phase("loss", "loss")
COMMUNICATION = Phase("communication", "communication")
UPDATE = Phase("update", "update")


class Record(NamedTuple):
    """What the steps of an epoch find and leave on the device.

    Attributes
    ----------
    losses, hits, rates
        (steps,): mean losses and learning rates of the model's dtype, and int32.
    step
        int32, (1,): the step's number, to which its update adds 1.
    ticket
        uint32, (1,), 0.
    """

    losses: Array
    hits: Array
    rates: Array
    step: Array
    ticket: Array


class Trainer:
    """A model, its optimiser and a stopwatch.

    Parameters
    ----------
    model
        What to train.
    momentum, weight_decay
        As for `NesterovSGD`.
    watch
        Counts time; a new one by default.
    ranks
        Who learns from the other parts of each batch; nobody by default.
    """

    def __init__(
        self,
        model: Model,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        watch: Stopwatch | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model, self.ranks = model, ranks
        self.optimizer = NesterovSGD(model.weights, model.gradient, momentum, weight_decay)
        self.watch = watch or Stopwatch(model.device)

    def warm_up(self, images: Array, labels: Array) -> None:
        """Make a step and take it back, so that all is compiled.

        Raises
        ------
        KernelError
            As for `taken_back`.
        """
        with self.taken_back():
            self.learn(images, labels, 0.0)

    def warm_up_evaluation(self, images: Array, labels: Array) -> None:
        """Evaluate a batch of each size that `evaluate` will make of them.

        What a training step compiled is not all: for more images at once other kernels may run.

        Raises
        ------
        KernelError
            As for `taken_back`.
        """
        last = len(images) // EVALUATION_BATCH * EVALUATION_BATCH
        with self.taken_back():
            for begin in {0, last}:
                batch = slice(begin, begin + EVALUATION_BATCH)
                evaluate_sums(self.model, images[batch], labels[batch])

    @contextlib.contextmanager
    def taken_back(self) -> Iterator[None]:
        """Return a context whose steps leave weights and momentum as they were.

        Inside it a rank is alone: ranks may have parts of different sizes to compile for.

        Raises
        ------
        KernelError
            A kernel that cannot be built or started: no compiler, a package that is missing.
        """
        vectors = self.model.weights, self.optimizer.velocity
        before = [vector.copy() for vector in vectors]
        ranks, self.ranks = self.ranks, ALONE
        try:
            yield
            self.model.device.synchronize()
        except (ImportError, RuntimeError) as error:
            raise KernelError(f"the kernels do not run here: {error}") from error
        finally:
            self.ranks = ranks
        for vector, saved in zip(vectors, before, strict=True):
            vector[...] = saved

    def step(self, images: Array, labels: Array, indices: Array, rate: float) -> tuple[Array, Any]:
        """Learn from one batch.

        Parameters
        ----------
        images, labels
            All training data, on the model's device.
        indices
            Which of them are the batch.
        rate
            Learning rate.

        Returns
        -------
        loss, hits
            The batch's mean loss and how many it got right, before the update; on the device.
        """
        self.watch.start_step()
        with self.watch.phase(DATA):
            x, target = gathered(images, indices), labels[indices]
        return self.learn(x, target, rate)

    def learn(self, x: Array, target: Array, rate: Any, share: float = 1.0) -> tuple[Array, Any]:
        """Do what `step` does once the batch is there.

        Parameters
        ----------
        x, target
            The batch's images and labels.
        rate
            Learning rate: a number, or one element of an array on the device.
        share
            How much of the batch x is, 0 to 1; the other ranks have the rest.
        """
        watch, pieces = self.watch, None
        if not len(x):
            loss, hits = self._nothing()
        elif self.model.learns:
            figures = figures_for_one(self.model.weights)
            pieces = self.model.learn(x, target, figures, len(x) / share, watch)
            (loss,), (hits,) = figures[:2]
        else:
            loss, hits = self._differentiate(x, target, share)
        if self.ranks.size > 1:
            with watch.phase(COMMUNICATION):
                if pieces:
                    self.model.sum_pieces(pieces)
                    pieces = None
                loss, hits = self.ranks.add_up(self.model, loss * share, hits)
        with watch.phase(UPDATE):
            self.optimizer.step(rate, pieces)
        return loss, hits

    def learn_in_place(self, batch: Gather, record: Record, side: Side | None = None) -> None:
        """Do what `learn` does, alone and by a model that `learns`; figures and rate stay there.

        Parameters
        ----------
        batch
            The batch, yet to be gathered.
        record
            Where the step's number and rate are, and its figures go.
        side
            As for `Model.learn`.
        """
        figures = Figures(record.losses, record.hits, record.step)
        pieces = self.model.learn(
            batch.x, batch.target, figures, len(batch.x), self.watch, side, batch
        )
        with self.watch.phase(UPDATE):
            self.optimizer.step(record.rates, pieces, record.step, record.ticket)

    def _nothing(self) -> tuple[float, int]:
        """Write the gradient of no images."""
        self.model.gradient.fill(0)
        return 0.0, 0

    def _differentiate(self, x: Array, target: Array, share: float) -> tuple[Array, Any]:
        """Write the gradient of x's share of the batch's loss; return x's mean loss and hits."""
        watch = self.watch
        logits = self.model.forward(x, watch)
        with watch.phase(LOSS):
            if place.on_gpu(logits):
                loss, hits, gradient = softmax_cross_entropy_and_hits(logits, target)
            else:
                hits = (logits.argmax(axis=1) == target).sum()
                loss, gradient = softmax_cross_entropy(logits, target)
            if share != 1:
                gradient *= gradient.dtype.type(share)
        self.model.backward(gradient, watch)
        return loss, hits


def gathered(images: Array, indices: Array) -> Array:
    """Return images[indices], on the host by all cores."""
    if place.on_gpu(images):
        return images[indices]
    from kernels.training.gather_cpu import gather  # Numba takes a while to import

    return gather(images, indices)


def evaluate(
    model: Model,
    images: Array,
    labels: Array,
    between: Callable[[], None] = lambda: None,
    seen: Callable[[Array], None] = lambda logits: None,
) -> tuple[float, float]:
    """Return a model's mean loss and its share of right answers, 0 to 1.

    Parameters
    ----------
    model
        With its weights.
    images, labels
        On the model's device, one or more.
    between
        Called before every batch; it may raise to stop.
    seen
        Called with the logits of every batch, in order.
    """
    loss, hits = evaluate_sums(model, images, labels, between, seen)
    return loss / len(images), hits / len(images)


def evaluate_sums(
    model: Model,
    images: Array,
    labels: Array,
    between: Callable[[], None] = lambda: None,
    seen: Callable[[Array], None] = lambda logits: None,
) -> tuple[float, int]:
    """Return the images' summed loss and how many a model gets right; see `evaluate`."""
    loss, hits = 0.0, 0
    for begin in range(0, len(images), EVALUATION_BATCH):
        between()
        batch = slice(begin, begin + EVALUATION_BATCH)
        target = labels[batch]
        logits = model.forward(images[batch])
        seen(logits)
        loss += float(softmax_cross_entropy(logits, target)[0]) * len(target)
        hits += int((logits.argmax(axis=1) == target).sum())
    return loss, hits


@dataclasses.dataclass(frozen=True)
class Curve:
    """What `train_steps` saw.

    Attributes
    ----------
    losses
        The mean loss of each step's batch, before its update.
    seconds
        Wall seconds by phase: each layer forward and backward, data, loss, update. Compiling is
        not in it.
    model
        As the last step left it.
    """

    losses: list[float]
    seconds: dict[Phase, float]
    model: Model


def train_steps(
    images: np.ndarray,
    labels: np.ndarray,
    steps: int,
    *,
    conv: str = "auto",
    pool: str = "auto",
    block: str = "auto",
    activation: str = "relu",
    batch_size: int = 16,
    lr: float = 0.05,
    momentum: float = 0.9,
    seed: int = 0,
    device: str = "cpu",
    dtype: Any = np.float32,
    time_every: int | None = None,
) -> Curve:
    """Train a fresh LeNet for some steps on named kernels.

    Parameters
    ----------
    images
        (N, 1, 28, 28), NumPy; converted to `dtype`.
    labels
        Integers, (N,).
    steps
        Batches to learn from, in order, again from the first when they end.
    conv, pool, block, device
        As ``python -m lenet train`` takes them.
    activation, batch_size, lr, momentum, seed, dtype
        The model and its training; `lr` is the peak of the one-cycle schedule.
    time_every
        Time one step in this many, as for `Stopwatch`.
    """
    where = devices.choose(device)
    choice = choose_kernels(conv, pool, where, block=block, activation=activation)
    model = build_model(
        int(labels.max()) + 1, choice, activation=activation, seed=seed, device=where, dtype=dtype
    )
    trainer = Trainer(model, momentum=momentum, watch=Stopwatch(where, time_every))
    x, target = where.put(images.astype(dtype)), where.put(labels.astype(np.int64))
    trainer.warm_up(x[:batch_size], target[:batch_size])
    losses = []
    with devices.one_blas_thread():
        for step in range(steps):
            batch = (np.arange(batch_size) + step * batch_size) % len(images)
            loss, _ = trainer.step(x, target, where.put(batch), one_cycle(step, steps, lr))
            losses.append(loss)
    return Curve([float(loss) for loss in losses], trainer.watch.seconds(), model)
