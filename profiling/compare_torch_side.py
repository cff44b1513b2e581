"""PyTorch's side of `compare-torch`: the same LeNet, in the set-up that is fastest here.

On a GPU there are two: one that launches from Python, and one whose step is a CUDA graph.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MOMENTUM = 0.9
# Threads of one library may spin for a while after its last parallel loop; let them fall asleep.
PAUSE_SECONDS = 0.01
TRIAL_STEPS = 12
GRAPH = "CUDA graph"  # in the name of a side that has one


@dataclasses.dataclass
class Side:
    """One of the trainings.

    Attributes
    ----------
    name
        For the table.
    step
        Makes an epoch's step of some number, which learns from the images of some indices; returns
        the batch's mean loss on the device, or None where `end` has all of them.
    wait
        Returns when the device is idle.
    accuracy
        Returns the share of right answers on the test images.
    begin
        Called before an epoch, with its number.
    end
        Called after it; returns its losses where `step` does not.
    put
        Returns a step's indices where `step` wants them; called before the clock runs.
    seconds
        Of each turn, divided by its steps.
    total
        Seconds of all turns.
    losses
        Of every step, on the device.
    """

    name: str
    step: Callable[[int, Any], Any]
    wait: Callable[[], None]
    accuracy: Callable[[], float]
    begin: Callable[[int], None] = lambda epoch: None
    end: Callable[[], list[float]] = list
    put: Callable[[np.ndarray], Any] = lambda indices: indices
    seconds: list[float] = dataclasses.field(default_factory=list)
    total: float = 0.0
    losses: list[Any] = dataclasses.field(default_factory=list)

    def turn(self, first: int, batches: list[np.ndarray]) -> None:
        """Make some steps, the first of which has the given number, timed."""
        there = [self.put(indices) for indices in batches]
        time.sleep(PAUSE_SECONDS)
        self.wait()
        began = time.perf_counter()
        losses = [self.step(number, indices) for number, indices in enumerate(there, first)]
        self.wait()
        elapsed = time.perf_counter() - began
        self.losses += [loss for loss in losses if loss is not None]
        self.seconds.append(elapsed / len(batches))
        self.total += elapsed


class Setup(NamedTuple):
    """How PyTorch trains.

    Attributes
    ----------
    channels_last
        Whether images and filters lie with their channels innermost.
    optimizer
        ``"foreach"``, ``"fused"`` or ``""``: one parameter at a time.
    threads
        Of a CPU.
    graph
        Images of a step that is a CUDA graph; 0 for none.
    """

    channels_last: bool
    optimizer: str
    threads: int
    graph: int = 0

    def __str__(self) -> str:
        words = ["channels_last"] * self.channels_last + [self.optimizer] * bool(self.optimizer)
        return ", ".join([*words, f"{self.threads} threads", *[GRAPH] * bool(self.graph)])


def fastest(
    weights: dict[str, Any], data: Any, lr: float, batch_size: int, threads: int, **how: bool
) -> Setup:
    """Return the set-up whose median step was the shortest, after a few steps of each.

    Parameters
    ----------
    weights, data, lr, how
        As for `torch_side`.
    batch_size
        Images a step.
    threads
        The most there may be; one is tried as well.
    """
    setups = itertools.product((False, True), ("", "foreach", "fused"), sorted({1, threads}))
    medians: dict[Setup, float] = {}
    rng = np.random.default_rng(0)
    for setup in itertools.starmap(Setup, setups):
        side = torch_side(weights, data, lr, setup, **how)
        for _ in range(TRIAL_STEPS):
            side.turn(0, [rng.integers(0, len(data.train_images), batch_size)])
        medians[setup] = float(np.median(side.seconds[TRIAL_STEPS // 4 :]))
    return min(medians, key=lambda setup: medians[setup])


def torch_side(
    weights: dict[str, Any], data: Any, lr: float, setup: Setup, *, on_gpu: bool, average: bool
) -> Side:
    """Return PyTorch's training of the same LeNet from the same weights.

    Parameters
    ----------
    weights
        Ours, by name, as PyTorch tensors on the host.
    data
        A `lenet.Dataset`.
    lr
        The constant learning rate.
    setup
        How it trains.
    on_gpu
        Where.
    average
        Whether it pools by the mean.
    """
    import torch
    from torch import nn

    torch.set_num_threads(setup.threads)
    device = "cuda" if on_gpu else "cpu"
    layout = torch.channels_last if setup.channels_last else torch.contiguous_format
    pool = nn.AvgPool2d if average else nn.MaxPool2d
    classes = len(weights["linear3.b"])
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), pool(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), pool(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, classes),
    )  # fmt: skip
    named = ("conv1", "conv2", "linear1", "linear2", "linear3")
    layers = [layer for layer in model if hasattr(layer, "weight")]
    with torch.no_grad():
        for name, layer in zip(named, layers, strict=True):
            weight = weights[f"{name}.w"]
            # A matrix of ours may be stored the other way round.
            layer.weight.copy_(weight if weight.shape == layer.weight.shape else weight.T)
            layer.bias.copy_(weights[f"{name}.b"])
    model = model.to(device, memory_format=layout)
    chosen_form = {setup.optimizer: True} if setup.optimizer else {"foreach": False}
    optimizer = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=MOMENTUM, nesterov=True, **chosen_form
    )
    criterion = nn.CrossEntropyLoss()
    x = torch.from_numpy(data.train_images).to(device, memory_format=layout)
    labels = torch.from_numpy(data.train_labels).to(device)

    def learn(chosen: Any) -> Any:
        loss = criterion(model(x[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def step(number: int, indices: Any) -> Any:
        del number
        return learn(indices)

    if setup.graph:
        step = _graphed(model, optimizer, learn, step, setup.graph)

    def accuracy() -> float:
        with torch.no_grad():
            guesses = model(torch.from_numpy(data.test_images).to(device)).argmax(1).cpu()
        return float((guesses == torch.from_numpy(data.test_labels)).float().mean())

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    def put(indices: np.ndarray) -> Any:
        return torch.from_numpy(indices).to(device)

    return Side(f"PyTorch {torch.__version__} ({setup})", step, wait, accuracy, put=put)


def _graphed(model: Any, optimizer: Any, learn: Any, eager: Any, size: int) -> Callable[..., Any]:
    """Return a step that for batches of `size` replays a CUDA graph."""
    import torch

    chosen = torch.arange(size, device="cuda")
    before = [weight.detach().clone() for weight in model.parameters()]
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # as PyTorch's documentation has it, before a recording
        for _ in range(3):
            learn(chosen)
    torch.cuda.current_stream().wait_stream(aside)
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = learn(chosen)
    # What the steps before the recording did is taken back; it has done nothing itself.
    with torch.no_grad():
        for weight, value in zip(model.parameters(), before, strict=True):
            weight.copy_(value)
            optimizer.state[weight]["momentum_buffer"].zero_()

    def step(number: int, indices: Any) -> Any:
        if len(indices) != size:  # the last of an epoch
            return eager(number, indices)
        chosen.copy_(indices)
        graph.replay()
        return loss.clone()

    return step
