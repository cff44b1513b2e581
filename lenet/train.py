"""A whole training run: epochs, evaluation, checkpoints; from the start or from a checkpoint."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kernels import ranges
from lenet.checkpoint import Checkpoint, Run
from lenet.data import Dataset, load_data
from lenet.device import Device, describe, one_blas_thread
from lenet.errors import CheckpointError, DivergedError
from lenet.interrupt import CtrlC, Stopped
from lenet.model import Choice, build_model
from lenet.optim import one_cycle
from lenet.progress import Silent
from lenet.settings import Settings, resumed
from lenet.timing import Phase, Stopwatch
from lenet.trainer import Array, Trainer, evaluate

EVALUATION = Phase("evaluation", "evaluation")
CHECKPOINT = Phase("checkpoint", "checkpoint")
WARM_UP = Phase("warm-up", "warm-up")


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes
    ----------
    run
        Its folder.
    settings
        What it was told.
    history
        The lines of metrics.jsonl, one an epoch.
    seconds
        Wall seconds by phase in this process; "warm-up" is compiling, and in no other figure.
    interrupted
        Whether Ctrl-C stopped it before its last epoch.
    """

    run: Run
    settings: Settings
    history: list[dict[str, Any]]
    seconds: dict[Phase, float]
    interrupted: bool


def train(settings: Settings, folder: Path, progress: Silent | None = None) -> Result:
    """Train a fresh LeNet and keep the run in `folder`, which must not be there yet.

    Raises
    ------
    LenetError
        Options, data, kernels or a folder that cannot be used, or a loss that is no number.
    """
    device, choice = settings.check()
    dataset = load_data(settings.data, settings.data_dir)
    settings = settings.resolved(device, choice)
    run = Run.create(folder, settings.config(dataset))
    session = _Session(run, settings, dataset, device, choice, progress or Silent())
    return session.go(Checkpoint.none())


def resume(folder: Path, given: Mapping[str, Any], progress: Silent | None = None) -> Result:
    """Go on with a run as if it had never stopped, bit for bit.

    Parameters
    ----------
    folder
        The run's.
    given
        Options that the caller set; they must agree with the run's.

    Raises
    ------
    LenetError
        As for `train`; and a checkpoint that is missing, damaged or foreign, data that changed, or
        an option that disagrees.
    """
    run = Run(folder)
    config = run.config()
    settings = resumed(config, given, folder)
    device, choice = settings.check()
    dataset = load_data(settings.data, settings.data_dir)
    if dataset.fingerprint != config["fingerprint"]:
        raise CheckpointError(
            f"{folder}: the data at {dataset.name} are not those the run began with; give their "
            "place by --data-dir, or start a new run"
        )
    session = _Session(run, settings, dataset, device, choice, progress or Silent())
    tensors = session.model.tensors(session.model.weights)
    checkpoint = run.load({name: device.fetch(view) for name, view in tensors.items()})
    run.trim_metrics(checkpoint.epoch)
    if checkpoint.epoch == settings.epochs and not run.metrics():
        raise CheckpointError(
            f"{folder}: the run is complete but its metrics.jsonl is gone; "
            f"use python -m lenet evaluate {folder}"
        )
    return session.go(checkpoint)


class _Session:
    """One process's part of a run."""

    def __init__(
        self,
        run: Run,
        settings: Settings,
        dataset: Dataset,
        device: Device,
        choice: Choice,
        progress: Silent,
    ) -> None:
        self.run, self.settings, self.device, self.progress = run, settings, device, progress
        self.model = build_model(
            dataset.classes,
            choice,
            activation=settings.activation,
            seed=settings.seed,
            device=device,
        )
        self.trainer = Trainer(
            self.model,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            watch=Stopwatch(device),
        )
        self.watch = self.trainer.watch
        self.earlier = run.timing()
        self.images, self.labels = (
            device.put(dataset.train_images),
            device.put(dataset.train_labels),
        )
        self.test = device.put(dataset.test_images), device.put(dataset.test_labels)
        self.batches = math.ceil(len(self.images) / settings.batch_size)

    def go(self, start: Checkpoint) -> Result:
        """Train from `start` to the end, or until Ctrl-C."""
        settings = self.settings
        interrupted = False
        self._restore(start)
        if start.epoch < settings.epochs:
            # NaN is looked for after each epoch; NumPy need not warn of it at every step.
            quiet = np.errstate(over="ignore", invalid="ignore")
            with CtrlC() as ctrl_c, quiet, one_blas_thread():
                if not start.weights:
                    self._save(0, np.empty(0), np.empty(0))
                with self.watch.outside(WARM_UP):
                    batch = slice(settings.batch_size)
                    self.trainer.warm_up(self.images[batch], self.labels[batch])
                with self.progress:
                    try:
                        self._epochs(start, ctrl_c)
                    except Stopped:
                        interrupted = True
        seconds = self.watch.seconds()
        return Result(self.run, settings, self.run.metrics(), seconds, interrupted)

    def _epochs(self, start: Checkpoint, ctrl_c: CtrlC) -> None:
        self.progress.begin(self.settings.epochs, len(self.images), start.epoch)
        losses, hits = start.losses, start.hits
        for epoch in range(start.epoch, self.settings.epochs):
            with ranges.span(f"epoch {epoch + 1}"):
                self._epoch(epoch, losses, hits, ctrl_c)
            losses = hits = np.empty(0)

    def _epoch(self, epoch: int, losses: np.ndarray, hits: np.ndarray, ctrl_c: CtrlC) -> None:
        """Run what is left of one epoch after the steps whose losses and hits are given."""
        settings, device, count = self.settings, self.device, len(self.images)
        # The steps' figures stay on the device: reading one would wait for it.
        figures = device.xp.zeros((2, self.batches))
        done = len(losses)
        figures[0, :done], figures[1, :done] = device.put(losses), device.put(hits)
        order = device.put(np.random.default_rng([settings.seed, epoch + 1]).permutation(count))
        steps = settings.epochs * self.batches
        begin, first = time.perf_counter(), done
        try:
            for done in range(first, self.batches):
                ctrl_c.check()
                batch = order[done * settings.batch_size : (done + 1) * settings.batch_size]
                rate = one_cycle(epoch * self.batches + done, steps, settings.lr)
                with ranges.span("step"):
                    loss, right = self.trainer.step(self.images, self.labels, batch, rate)
                figures[0, done], figures[1, done] = loss, right
                self.progress.step(figures, done + 1, settings.batch_size)
            done = self.batches
            device.synchronize()
            seconds = time.perf_counter() - begin
            with self.watch.outside(EVALUATION):
                test_loss, test_accuracy = evaluate(self.model, *self.test, ctrl_c.check)
        except Stopped:
            self._save(epoch, *device.fetch(figures)[:, :done])
            raise
        losses, hits = device.fetch(figures)
        sizes = np.full(self.batches, settings.batch_size)
        sizes[-1] = count - settings.batch_size * (self.batches - 1)
        train_loss = float(losses @ sizes / count)
        if not math.isfinite(train_loss) or not math.isfinite(test_loss):
            raise DivergedError(
                f"the loss is no longer a number in epoch {epoch + 1}: the training diverged; "
                f"try a smaller --lr than {settings.lr}"
            )
        line = {
            "epoch": epoch + 1,
            "loss": train_loss,
            "accuracy": float(hits.sum() / count),
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "seconds": round(seconds, 4),
            "images_per_second": round(float(sizes[first:].sum()) / seconds, 1),
        }
        with self.watch.outside(CHECKPOINT):
            self.run.add_metrics(line)
            self._save(epoch + 1, np.empty(0), np.empty(0))
        self.progress.epoch(line)

    def _save(self, epoch: int, losses: np.ndarray, hits: np.ndarray) -> None:
        weights, velocity = (
            {name: self.device.fetch(view) for name, view in self.model.tensors(vector).items()}
            for vector in (self.model.weights, self.trainer.optimizer.velocity)
        )
        self.run.save(
            Checkpoint(
                weights, velocity, epoch, np.ascontiguousarray(losses), np.ascontiguousarray(hits)
            )
        )
        if self.watch.steps:
            here = {"machine": describe(self.device), **self.watch.record()}
            self.run.save_timing([*self.earlier, here])

    def _restore(self, checkpoint: Checkpoint) -> None:
        for vector, saved in (
            (self.model.weights, checkpoint.weights),
            (self.trainer.optimizer.velocity, checkpoint.velocity),
        ):
            views: dict[str, Array] = self.model.tensors(vector)
            for name, array in saved.items():
                views[name][...] = self.device.put(array)
