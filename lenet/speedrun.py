"""MNIST to 99 %, by a fixed recipe, over many seeds: how well, and in what time.

The recipe was judged by the last 10,000 of the 60,000 training images, after training on the others
(`held_out`); README.md says of the one that was tried before it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from lenet import device as devices
from lenet.choice import Choice
from lenet.data import Dataset
from lenet.device import Device
from lenet.errors import DataError, DivergedError
from lenet.model import Model, lenet5
from lenet.optim import one_cycle
from lenet.step_graph import choose_steps
from lenet.steps import TrainingSet
from lenet.timing import Stopwatch
from lenet.trainer import Trainer, evaluate

HELD_OUT = 10_000


class Recipe(NamedTuple):
    """What a run is trained with.

    Attributes
    ----------
    epochs, batch_size
        Passes over the training images, and images a step.
    lr, momentum, weight_decay
        Of Nesterov's gradient descent; `lr` is the peak of the one-cycle schedule.
    augment
        Pixels that an image is moved at most, each way and anew every epoch.
    gain
        Initial scale: the weights' variance is ``gain / fan_in``.
    """

    epochs: int = 5
    batch_size: int = 256
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0005
    augment: int = 0
    gain: float = 1.0


RECIPE = Recipe()


class Outcome(NamedTuple):
    """One run.

    Attributes
    ----------
    seed
        Of weights, order and moves.
    accuracy
        Share of the test images (held-out images) told right, 0 to 1.
    seconds
        Wall clock from before the first step to after the last: the orders of the images, the
        moves and every step. The data is on the device and the kernels are compiled before it;
        the evaluation comes after it.
    steps
        How many.
    """

    seed: int
    accuracy: float
    seconds: float
    steps: int


class Summary(NamedTuple):
    """Several runs together.

    Attributes
    ----------
    runs, reached
        How many, and how many of them reached the target.
    accuracy, deviation, error
        The mean accuracy, the standard deviation of one run's, and the standard error of the mean;
        the latter two are None for a single run.
    seconds
        Mean.
    """

    runs: int
    reached: int
    accuracy: float
    deviation: float | None
    error: float | None
    seconds: float


def held_out(dataset: Dataset) -> Dataset:
    """Return a data set whose last 10,000 training images are its test.

    Raises
    ------
    DataError
        A set that has no more than these.
    """
    if len(dataset.train_images) <= HELD_OUT:
        raise DataError(
            f"{dataset.name}: {len(dataset.train_images):,} training images; --held-out takes "
            f"{HELD_OUT:,} of them away, so that it wants more, such as MNIST's 60,000"
        )
    return dataclasses.replace(
        dataset,
        train_images=dataset.train_images[:-HELD_OUT],
        train_labels=dataset.train_labels[:-HELD_OUT],
        test_images=dataset.train_images[-HELD_OUT:],
        test_labels=dataset.train_labels[-HELD_OUT:],
    )


def runs(
    dataset: Dataset,
    device: Device,
    choice: Choice,
    seeds: range,
    recipe: Recipe,
    *,
    graph: bool | None = None,
    between: Callable[[], None] = lambda: None,
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[Outcome]:
    """Train and evaluate once for each seed.

    Parameters
    ----------
    dataset
        Its training part is trained on, its test part judges.
    device, choice
        Where, and on which kernels.
    seeds
        One a run.
    recipe
        What to train with.
    graph
        As for `lenet.step_graph.choose_steps`.
    between
        Called before every step; it may raise to stop.
    note
        Called with what the user should know, before the first run.

    Raises
    ------
    DivergedError
        A loss that is no number.
    """
    put = device.put
    images, labels = put(dataset.train_images), put(dataset.train_labels)
    test = put(dataset.test_images), put(dataset.test_labels)
    for seed in seeds:
        data = TrainingSet(
            images, labels, recipe.batch_size, seed, recipe.augment, dataset.background
        )
        layers = lenet5(dataset.classes, choice)
        model = Model(layers, seed, gain=recipe.gain, device=device)
        trainer = Trainer(
            model,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            watch=Stopwatch(device, every=0),
        )
        rates = _rates(recipe, data.steps)
        none = np.empty(0)
        quiet = np.errstate(over="ignore", invalid="ignore")
        with quiet, devices.one_blas_thread(), choose_steps(trainer, data, graph) as steps:
            steps.warm_up()
            if steps.no_graph and seed == seeds[0]:
                note(steps.no_graph)
            device.synchronize()
            begin = time.perf_counter()
            for epoch in range(recipe.epochs):
                steps.begin(epoch, rates[epoch], none, none)
                for number in range(data.steps):
                    between()
                    steps.step(number)
            losses, _ = steps.figures()
            seconds = time.perf_counter() - begin
            if not np.isfinite(losses).all():
                raise DivergedError(f"seed {seed}: the loss is no longer a number")
            _, accuracy = evaluate(model, *test, between)
        yield Outcome(seed, accuracy, seconds, rates.size)


def _rates(recipe: Recipe, steps: int) -> np.ndarray:
    """Return the learning rate of each step, (epochs, steps)."""
    every = range(recipe.epochs * steps)
    rates = np.array([one_cycle(step, len(every), recipe.lr) for step in every])
    return rates.reshape(recipe.epochs, steps)


def summary(outcomes: list[Outcome], target: float) -> Summary:
    """Return several runs' mean and spread.

    Parameters
    ----------
    outcomes
        One or more.
    target
        Accuracy, 0 to 1.
    """
    accuracies = np.array([outcome.accuracy for outcome in outcomes])
    many = len(outcomes) > 1
    deviation = float(accuracies.std(ddof=1)) if many else None
    return Summary(
        len(outcomes),
        int((accuracies >= target).sum()),
        float(accuracies.mean()),
        deviation,
        deviation / math.sqrt(len(outcomes)) if deviation is not None else None,
        float(np.mean([outcome.seconds for outcome in outcomes])),
    )
