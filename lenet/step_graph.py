"""The whole step on the device: batch, network, loss and update, recorded once as a CUDA graph.

The data lies in device memory, the order of the images is computed there, and what changes from
step to step (its number, its learning rate) is read there by the launches themselves. So the same
launches make every step; recorded as a graph, a step costs the host one call. Nothing is read back
before the end of an epoch.

The graph holds addresses, not arrays. What one launch hands to another inside a step lies in a
memory pool of the graphs' own, which lives as long as they do; what outlives a step is allocated
before the recording and kept.
"""

from __future__ import annotations

import contextlib
from collections import deque
from types import TracebackType
from typing import Any

import numpy as np

from kernels import observe, ranges
from kernels.training import batch, shuffle, step_end
from lenet.device import Device
from lenet.errors import KernelError, OptionError
from lenet.learning_layers import Side, SideStreams
from lenet.ranks import ALONE, Ranks
from lenet.steps import HostSteps, Steps, TrainingSet
from lenet.trainer import DATA, UPDATE, Record, Trainer

LOOK = 16  # steps between two events by which the host sees how far the device is
# A step is timed launch by launch, outside its graph and with a wait at each part: so seldom that
# the others' time is not lost in it.
TIME_EVERY = 512


def check_graph(graph: bool | None, device: Device, ranks: Ranks = ALONE) -> None:
    """Raise OptionError where a CUDA graph is asked for on a CPU, or of several ranks."""
    if graph and ranks.size > 1:
        raise OptionError(
            "--graph: a step that several ranks share is launched kernel by kernel; leave --graph "
            "out, or --distributed"
        )
    if graph and device.name == "cpu":
        raise OptionError(
            "--graph: a CUDA graph needs a GPU, and this run is on the CPU; leave --graph out"
        )


def choose_steps(trainer: Trainer, data: TrainingSet, graph: bool | None = None) -> Steps:
    """Return what makes a training's steps where its data is.

    Parameters
    ----------
    trainer
        Model, optimiser and stopwatch.
    data
        On the model's device.
    graph
        On a GPU: True records the step as a CUDA graph or fails, False launches its kernels one by
        one, None records it where that can be done.
    """
    if trainer.model.device.name == "cpu":
        return HostSteps(trainer, data)
    # That NCCL's sum can be recorded with the rest is not yet tried on GPUs.
    return DeviceSteps(trainer, data, graph if trainer.ranks.size == 1 else False)


class DeviceSteps:
    """The steps as launches on the device, with a graph or one by one: the same numbers.

    Parameters
    ----------
    trainer
        Model, optimiser and stopwatch. Steps that the stopwatch times run launch by launch.
    data
        On the model's device. (NumPy arrays run the same launches on the emulator.)
    graph
        True records the step and raises where that fails; None records it where that can be done;
        False does not.
    """

    seen: np.ndarray | None = None
    recorded, no_graph = False, ""

    def __init__(self, trainer: Trainer, data: TrainingSet, graph: bool | None = None) -> None:
        self.trainer, self.data, self.graph = trainer, data, graph
        self.xp = xp = trainer.model.device.xp
        dtype = trainer.model.weights.dtype
        self.order = xp.empty(len(data.images), np.int32)
        self.position = xp.zeros(2, np.int32)  # epoch and step
        self.rates, self.rate = xp.zeros(data.steps, dtype), xp.zeros(1, dtype)
        self.losses, self.hits = xp.zeros(data.steps, dtype), xp.zeros(data.steps, np.int32)
        self.record: Record | None = None
        if trainer.model.learns and trainer.ranks.size == 1:
            step, ticket = self.position[1:], xp.zeros(1, np.uint32)
            self.record = Record(self.losses, self.hits, self.rates, step, ticket)
        # Of one batch of each size that occurs, this rank's part.
        self.batches = {}
        for size in {int(size) for size in data.sizes}:
            part = trainer.ranks.part(size)
            mine = part.stop - part.start
            shape = (mine, *data.images.shape[1:])
            self.batches[size] = part, xp.empty(shape, dtype), xp.empty(mine, np.int64)
        self.graphs: dict[int, Any] = {}
        self.sides: list[SideStreams] = []
        self.pool: Any = None
        self.stream: Any = None
        self.events: deque[tuple[int, Any]] = deque()

    def warm_up(self) -> None:
        """Make a step of each size, so that all is compiled, and take it back; record the graphs.

        Raises
        ------
        KernelError
            A kernel that cannot be built or started, or recorded where a graph was asked for.
        """
        with self.trainer.taken_back():
            for size in self.batches:
                self.begin(0, np.zeros(self.data.steps), np.empty(0), np.empty(0))
                self.launches(size)
        if self.graph is False:
            return
        try:
            self._record()
        except (RuntimeError, ValueError) as error:  # CuPy refuses what a graph cannot hold
            self.graphs.clear()
            self.no_graph = f"no CUDA graph, kernels are launched one by one: {error}"
            if self.graph:
                raise KernelError(
                    f"--graph: the step cannot be recorded as a CUDA graph: {error}; take other "
                    "kernels, or leave --graph out"
                ) from error
            return
        self.recorded = True
        watch = self.trainer.watch
        watch.every = watch.every and max(watch.every, TIME_EVERY)

    def begin(self, epoch: int, rates: np.ndarray, losses: np.ndarray, hits: np.ndarray) -> None:
        """Put the epoch's rates and figures on the device and compute its order there."""
        put, self.made, self.ended = self.trainer.model.device.put, len(losses), len(losses)
        self.events.clear()
        self.position[...] = put(np.array([epoch, self.made], np.int32))
        self.rates[...] = put(rates.astype(self.rates.dtype))
        if self.made < len(rates):
            self.rate[...] = self.rates[self.made : self.made + 1]
        self.losses[: self.made] = put(losses.astype(self.losses.dtype))
        self.hits[: self.made] = put(hits.astype(np.int32))
        shuffle.shuffle(self.order, self.position, self.rates, self.data.seed)

    def step(self, number: int) -> None:
        """Launch a step: its graph, or where there is none or it is timed, its kernels."""
        watch = self.trainer.watch
        watch.start_step()
        size = int(min(self.data.batch_size, len(self.data.images) - number * self.data.batch_size))
        if watch.sampling or size not in self.graphs:
            with ranges.span("step"):
                self.launches(size)
        else:
            self.graphs[size].launch()
        self.made = number + 1
        if self.stream is not None and self.made % LOOK == 0:
            self.events.append((self.made, self.stream.record()))

    def done(self) -> int:
        """Return how many steps have ended, by the last event that has passed."""
        if self.stream is None:
            return self.made
        while self.events and self.events[0][1].done:
            self.ended, _ = self.events.popleft()
        return self.ended

    def figures(self) -> np.ndarray:
        """Wait for the launched steps and return their losses and hits."""
        fetch = self.trainer.model.device.fetch
        return np.stack([fetch(self.losses), fetch(self.hits)])

    def __enter__(self) -> DeviceSteps:
        if self.xp is not np:
            # What is on its way on the stream before is not waited for by this one.
            self.trainer.model.device.synchronize()
            self.stream = self.xp.cuda.Stream(non_blocking=True)
            self.stream.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.stream is not None:
            self.stream.synchronize()
            self.stream.__exit__(kind, error, trace)
            self.stream = None

    def launches(self, size: int, side: Side | None = None) -> None:
        """Make the step that `position` names, with so many images.

        With a record the last launch is the update; else one more keeps the figures.

        Parameters
        ----------
        size
            One of the data's batch sizes.
        side
            As for `Model.learn`.
        """
        data, trainer = self.data, self.trainer
        part, x, target = self.batches[size]
        wanted = batch.Gather(
            data.images, data.labels, self.order[part.start :], self.position, x, target,
            data.batch_size, data.seed, data.augment, data.background, data.distort,
        )  # fmt: skip
        if self.record:
            trainer.learn_in_place(wanted, self.record, side)
            return
        if len(x):
            with trainer.watch.phase(DATA):
                batch.gather(wanted)
        loss, hits = trainer.learn(x, target, self.rate[0], len(x) / size)
        with trainer.watch.phase(UPDATE):
            loss = self.xp.asarray(loss, self.rates.dtype)
            hits = self.xp.asarray(hits, np.int32)
            step_end.end_step(
                loss, hits, self.losses, self.hits, self.rates, self.rate, self.position
            )

    def _record(self) -> None:
        """Record the step of each size."""
        if self.xp is np:
            raise ValueError("a CUDA graph needs a GPU")
        if observe.current is not None and not self.graph:
            raise ValueError("a trace times every launch, and inside a graph it sees none")
        self.pool = self.xp.cuda.MemoryPool()
        for size in self.batches:
            self.graphs[size] = self._capture(size)

    def _capture(self, size: int) -> Any:
        """Return the graph of a step with so many images."""
        self.sides.append(SideStreams(self.xp))
        self.stream.begin_capture()
        try:
            with self.xp.cuda.using_allocator(self.pool.malloc):
                self.launches(size, self.sides[-1])
        except BaseException:
            with contextlib.suppress(RuntimeError):  # it may have been called off already
                self.stream.end_capture()
            raise
        return self.stream.end_capture()
