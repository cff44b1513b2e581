"""A whole training run: epochs, evaluation, checkpoints; from the start or from a checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kernels import ranges
from lenet.checkpoint import Checkpoint, Run
from lenet.choice import Choice
from lenet.data import Dataset
from lenet.device import Device, describe, one_blas_thread
from lenet.errors import CheckpointError, DivergedError
from lenet.interrupt import CtrlC, Stopped
from lenet.model import build_model
from lenet.optim import one_cycle
from lenet.progress import Silent
from lenet.ranks import ALONE, Ranks
from lenet.settings import Settings, resumed
from lenet.step_graph import check_graph, choose_steps
from lenet.steps import TrainingSet
from lenet.timing import Phase, Stopwatch
from lenet.trainer import Array, Trainer, evaluate_sums

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
    stopped_by
        What did, if not Ctrl-C; a sentence's beginning.
    graph
        Whether its steps were a CUDA graph, but for those that were timed.
    """

    run: Run
    settings: Settings
    history: list[dict[str, Any]]
    seconds: dict[Phase, float]
    interrupted: bool
    graph: bool = False
    stopped_by: str = ""


def train(
    settings: Settings,
    folder: Path,
    progress: Silent | None = None,
    *,
    graph: bool | None = None,
    ranks: Ranks = ALONE,
) -> Result:
    """Train a fresh LeNet and keep the run in `folder`, which must not be there yet.

    Parameters
    ----------
    settings
        What decides the run's numbers.
    folder
        The run's.
    progress
        Shows it.
    graph
        Whether the step is a CUDA graph, as for `choose_steps`; the numbers are the same.
    ranks
        This process among those that train together. The first one alone writes.

    Raises
    ------
    LenetError
        Options, data, kernels or a folder that cannot be used, or a loss that is no number.
    """
    device, choice, dataset, settings = ranks.together(lambda: _prepared(settings, graph, ranks))
    ranks.join(device, _facts(settings, dataset))
    run = ranks.from_first(lambda: Run.create(folder, settings.config(dataset)))
    session = _Session(run, settings, dataset, device, choice, progress or Silent(), graph, ranks)
    return session.go(Checkpoint.none())


def resume(
    folder: Path,
    given: Mapping[str, Any],
    progress: Silent | None = None,
    *,
    graph: bool | None = None,
    ranks: Ranks = ALONE,
) -> Result:
    """Go on with a run as if it had never stopped, bit for bit.

    Parameters
    ----------
    folder
        The run's.
    given
        Options that the caller set; they must agree with the run's.
    progress, graph, ranks
        As for `train`; a run may go on with a graph that began without one. With another number of
        ranks than before it goes on to the same numbers within rounding.

    Raises
    ------
    LenetError
        As for `train`; and a checkpoint that is missing, damaged or foreign, data that changed, or
        an option that disagrees.
    """
    run = Run(folder)
    config = ranks.from_first(run.config)
    fingerprint = config["fingerprint"]

    def prepared() -> tuple[Device, Choice, Dataset, Settings]:
        found = _prepared(resumed(config, given, folder), graph, ranks)
        if found[2].fingerprint != fingerprint:
            raise CheckpointError(
                f"{folder}: the data at {found[2].name} are not those the run began with; give "
                "their place by --data-dir, or start a new run"
            )
        return found

    device, choice, dataset, settings = ranks.together(prepared)
    ranks.join(device, _facts(settings, dataset))
    session = _Session(run, settings, dataset, device, choice, progress or Silent(), graph, ranks)
    tensors = session.model.tensors(session.model.weights)
    expected = {name: device.fetch(view) for name, view in tensors.items()}
    epochs, steps = settings.epochs, session.data.steps
    return session.go(ranks.from_first(lambda: _checkpoint(run, expected, epochs, steps)))


def _prepared(
    settings: Settings, graph: bool | None, ranks: Ranks
) -> tuple[Device, Choice, Dataset, Settings]:
    """Return what the settings mean on this machine."""
    ranks.pick_gpu(settings.device)
    device, choice = settings.check()
    check_graph(graph, device, ranks)
    dataset = settings.data_set()
    return device, choice, dataset, settings.resolved(device, choice)


def _facts(settings: Settings, dataset: Dataset) -> dict[str, Any]:
    """Return what all ranks must have alike; their data may lie in different places."""
    facts = settings.config(dataset)
    del facts["data_dir"]
    return {**facts, "training images": len(dataset.train_images)}


def _checkpoint(run: Run, expected: dict[str, np.ndarray], epochs: int, steps: int) -> Checkpoint:
    """Return where the run is, and drop what it has written past that."""
    checkpoint = run.load(expected) if run.begun() else Checkpoint.none()
    if checkpoint.epoch > epochs or len(checkpoint.losses) > steps:
        raise CheckpointError(
            f"{run.folder}: its checkpoint is at epoch {checkpoint.epoch} and step "
            f"{len(checkpoint.losses)}, past the run's {epochs} epochs of {steps} steps; start the "
            "run anew"
        )
    run.trim_metrics(checkpoint.epoch)
    if checkpoint.epoch == epochs and not run.metrics():
        raise CheckpointError(
            f"{run.folder}: the run is complete but its metrics.jsonl is gone; "
            f"use python -m lenet evaluate {run.folder}"
        )
    return checkpoint


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
        graph: bool | None,
        ranks: Ranks,
    ) -> None:
        self.run, self.settings, self.device, self.progress = run, settings, device, progress
        self.ranks, self.simulated = ranks, bool(choice.simulated(device))
        self.model = build_model(
            dataset.classes,
            choice,
            model=settings.model,
            activation=settings.activation,
            seed=settings.seed,
            device=device,
        )
        self.trainer = Trainer(
            self.model,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            watch=Stopwatch(device),
            ranks=ranks,
        )
        self.watch = self.trainer.watch
        self.earlier = ranks.from_first(run.timing)
        self.data = TrainingSet(
            device.put(dataset.train_images),
            device.put(dataset.train_labels),
            settings.batch_size,
            settings.seed,
            settings.augment,
            dataset.background,
            settings.distort,
        )
        self.steps = choose_steps(self.trainer, self.data, graph)
        self.test_count = len(dataset.test_images)
        mine = ranks.part(self.test_count)
        self.test = device.put(dataset.test_images[mine]), device.put(dataset.test_labels[mine])

    def go(self, start: Checkpoint) -> Result:
        """Train from `start` to the end, or until Ctrl-C."""
        settings = self.settings
        stopped: Stopped | None = None
        self._restore(start)
        if start.epoch < settings.epochs:
            # NaN is looked for after each epoch; NumPy need not warn of it at every step.
            quiet = np.errstate(over="ignore", invalid="ignore")
            with CtrlC(self.ranks.signals) as ctrl_c, quiet, one_blas_thread(), self.steps:
                if not start.weights:
                    self._save(0, np.empty(0), np.empty(0))
                self.ranks.began(self.run.folder)
                with self.watch.outside(WARM_UP):
                    self.ranks.together(self._warm_up)
                if self.steps.no_graph:
                    self.progress.note(self.steps.no_graph)
                with self.progress:
                    try:
                        self._epochs(start, ctrl_c)
                    except Stopped as caught:
                        stopped = caught
        seconds = self.watch.seconds()
        history = self.ranks.from_first(self.run.metrics)
        return Result(
            self.run, settings, history, seconds, stopped is not None, self.steps.recorded,
            str(stopped or ""),
        )  # fmt: skip

    def _warm_up(self) -> None:
        """Compile what steps and evaluations need."""
        self.steps.warm_up()
        if not self.simulated:  # nothing to compile, and an evaluation takes hours
            self.trainer.warm_up_evaluation(*self.test)

    def _epochs(self, start: Checkpoint, ctrl_c: CtrlC) -> None:
        self.progress.begin(self.settings.epochs, len(self.data.images), start.epoch)
        losses, hits = start.losses, start.hits
        for epoch in range(start.epoch, self.settings.epochs):
            with ranges.span(f"epoch {epoch + 1}"):
                self._epoch(epoch, losses, hits, ctrl_c)
            losses = hits = np.empty(0)

    def _epoch(self, epoch: int, losses: np.ndarray, hits: np.ndarray, ctrl_c: CtrlC) -> None:
        """Run what is left of one epoch after the steps whose losses and hits are given."""
        settings, steps = self.settings, self.steps
        count, batches, first = len(self.data.images), self.data.steps, len(losses)
        rates = [
            one_cycle(epoch * batches + step, settings.epochs * batches, settings.lr)
            for step in range(batches)
        ]
        steps.begin(epoch, np.array(rates), losses, hits)
        begin, done = time.perf_counter(), first
        try:
            for done in range(first, batches):
                self.ranks.check(ctrl_c)
                steps.step(done)
                self.progress.step(steps, settings.batch_size)
            done = batches
            losses, hits = steps.figures()
            seconds = time.perf_counter() - begin
            with self.watch.outside(EVALUATION):
                test_loss, test_accuracy = self._evaluate(ctrl_c)
        except Stopped:
            self._save(epoch, *steps.figures()[:, :done])
            raise
        sizes = self.data.sizes
        train_loss = float(losses @ sizes / count)
        self.ranks.from_first(lambda: _check_finite(epoch, train_loss, test_loss, settings.lr))
        self.ranks.check_drift(self.model.weights)
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
            self.ranks.from_first(lambda: self.run.add_metrics(line))
            self._save(epoch + 1, np.empty(0), np.empty(0))
        self.progress.epoch(line)

    def _evaluate(self, ctrl_c: CtrlC) -> tuple[float, float]:
        """Return mean loss and share of right answers over the test images of all ranks."""
        loss, hits = 0.0, 0
        with contextlib.suppress(Stopped):  # until all ranks have heard of it
            loss, hits = evaluate_sums(self.model, *self.test, ctrl_c.check)
        loss, hits = self.ranks.totals(loss, hits, ctrl_c)
        return loss / self.test_count, hits / self.test_count

    def _save(self, epoch: int, losses: np.ndarray, hits: np.ndarray) -> None:
        """Let the first rank write a checkpoint."""
        self.ranks.from_first(lambda: self._write(epoch, losses, hits))

    def _write(self, epoch: int, losses: np.ndarray, hits: np.ndarray) -> None:
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
            here = {
                "machine": describe(self.device),
                "graph": self.steps.recorded,
                "ranks": self.ranks.size,
                **self.watch.record(),
            }
            self.run.save_timing([*self.earlier, here])

    def _restore(self, checkpoint: Checkpoint) -> None:
        for vector, saved in (
            (self.model.weights, checkpoint.weights),
            (self.trainer.optimizer.velocity, checkpoint.velocity),
        ):
            views: dict[str, Array] = self.model.tensors(vector)
            for name, array in saved.items():
                views[name][...] = self.device.put(array)
            self.ranks.equalise(vector)


def _check_finite(epoch: int, train_loss: float, test_loss: float, lr: float) -> None:
    if not math.isfinite(train_loss) or not math.isfinite(test_loss):
        raise DivergedError(
            f"the loss is no longer a number in epoch {epoch + 1}: the training diverged; "
            f"try a smaller --lr than {lr}"
        )
