"""Train LeNet here and in PyTorch, in turns of some steps, and compare the time of a step.

Both start from the same weights and see the same batches, on the same device with the same number
of threads; a turn of ours is followed by PyTorch's turn on the same batches, so that whatever else
the machine does meets both. The losses are compared too: a speed is worth nothing if it is another
computation's.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kernels import place
from profiling import intervals, machine

INSTALL = (
    "compare-torch: PyTorch is not installed; make compare-torch installs it, or: "
    "pip install torch==2.13.0"
)
MOMENTUM = 0.9
# Threads of one library may spin for a while after its last parallel loop; let them fall asleep.
PAUSE_SECONDS = 0.01


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="IDX files (default: the embedded digits)"
    )
    parser.add_argument("--batch-size", type=int, default=128, metavar="N")
    parser.add_argument("--epochs", type=int, default=1, metavar="N")
    parser.add_argument("--steps-a-turn", type=int, default=10, metavar="N")
    parser.add_argument("--lr", type=float, default=0.02, help="constant learning rate")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--conv", default="auto", help="our conv2d kernel")
    parser.add_argument("--pool", default="auto", help="our pooling kernel")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--json", action="store_true", help="for a program to read")


@dataclasses.dataclass
class Side:
    """One of the two trainings.

    Attributes
    ----------
    name
        For the table.
    step
        Learns from the images of some indices; returns the batch's mean loss, on the device.
    wait
        Returns when the device is idle.
    accuracy
        Returns the share of right answers on the test images.
    seconds
        Of each turn, divided by its steps.
    total
        Seconds of all turns.
    losses
        Of every step, on the device.
    """

    name: str
    step: Callable[[np.ndarray], Any]
    wait: Callable[[], None]
    accuracy: Callable[[], float]
    seconds: list[float] = dataclasses.field(default_factory=list)
    total: float = 0.0
    losses: list[Any] = dataclasses.field(default_factory=list)

    def turn(self, batches: list[np.ndarray]) -> None:
        """Learn from some batches, timed."""
        time.sleep(PAUSE_SECONDS)
        self.wait()
        began = time.perf_counter()
        self.losses += [self.step(indices) for indices in batches]
        self.wait()
        elapsed = time.perf_counter() - began
        self.seconds.append(elapsed / len(batches))
        self.total += elapsed


def run(args: argparse.Namespace) -> int:
    """Train both, print the comparison, and return the exit code."""
    if importlib.util.find_spec("torch") is None:
        print(INSTALL, file=sys.stderr)
        return 2
    problem = _bad_option(args)
    if problem:
        print(f"compare-torch: {problem}", file=sys.stderr)
        return 2
    import lenet
    from lenet import device as devices

    try:
        data = lenet.load_data(folder=args.data_dir)
        ours, theirs = _sides(args, data)
    except lenet.LenetError as error:
        print(f"compare-torch: {error}", file=sys.stderr)
        return 2
    images = len(data.train_images)
    for side in (ours, theirs):  # compile and allocate before the clock runs; counted nowhere
        side.step(np.arange(min(args.batch_size, images)))
        side.wait()
    ours, theirs = _sides(args, data)
    rng = np.random.default_rng(args.seed)
    for _ in range(args.epochs):
        order = rng.permutation(images)
        batches = [order[i : i + args.batch_size] for i in range(0, images, args.batch_size)]
        for first in range(0, len(batches), args.steps_a_turn):
            turn = batches[first : first + args.steps_a_turn]
            with devices.one_blas_thread():  # as `python -m lenet train` does
                ours.turn(turn)
            theirs.turn(turn)
    _report(ours, theirs, args, data.name, images)
    return 0


def _bad_option(args: argparse.Namespace) -> str | None:
    for name in ("batch_size", "epochs", "steps_a_turn", "threads"):
        if getattr(args, name) < 1:
            return f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least 1"
    if args.device == "gpu" and place.gpu_problem():
        return f"--device gpu: {place.gpu_problem()}"
    return None


def _sides(args: argparse.Namespace, data: Any) -> tuple[Side, Side]:
    import numba
    import torch

    import lenet
    from lenet import device as devices
    from lenet.trainer import Trainer

    on_gpu = args.device != "cpu" and place.gpu_problem() is None and torch.cuda.is_available()
    numba.set_num_threads(min(args.threads, numba.get_num_threads()))
    torch.set_num_threads(args.threads)
    where = devices.choose("gpu" if on_gpu else "cpu")
    choice = lenet.choose_kernels(args.conv, args.pool, where)
    model = lenet.build_model(data.classes, choice, seed=args.seed, device=where)
    trainer = Trainer(model, momentum=MOMENTUM)
    weights = {
        name: torch.from_numpy(where.fetch(tensor).copy())
        for name, tensor in model.tensors(model.weights).items()
    }
    x, labels = where.put(data.train_images), where.put(data.train_labels)
    ours = Side(
        f"conv-kernel-lab ({choice})",
        lambda indices: trainer.step(x, labels, where.put(indices), args.lr)[0],
        where.synchronize,
        lambda: lenet.evaluate(model, where.put(data.test_images), where.put(data.test_labels))[1],
    )
    average = choice.pool_operation == "avg_pool2d"
    return ours, _torch_side(weights, data, args.lr, on_gpu, average)


def _torch_side(weights: Any, data: Any, lr: float, on_gpu: bool, average: bool) -> Side:
    """Return PyTorch's training of the same LeNet from the same weights."""
    import torch
    from torch import nn

    device = "cuda" if on_gpu else "cpu"
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
    model = model.to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=MOMENTUM, nesterov=True)
    criterion = nn.CrossEntropyLoss()
    x = torch.from_numpy(data.train_images).to(device)
    labels = torch.from_numpy(data.train_labels).to(device)

    def step(indices: np.ndarray) -> Any:
        chosen = torch.from_numpy(indices).to(device)
        loss = criterion(model(x[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    def accuracy() -> float:
        with torch.no_grad():
            guesses = model(torch.from_numpy(data.test_images).to(device)).argmax(1).cpu()
        return float((guesses == torch.from_numpy(data.test_labels)).float().mean())

    def wait() -> None:
        if on_gpu:
            torch.cuda.synchronize()

    return Side(f"PyTorch {torch.__version__}", step, wait, accuracy)


def _report(ours: Side, theirs: Side, args: argparse.Namespace, data: str, images: int) -> None:
    ratio, low, high = intervals.ratio_interval(
        np.array(theirs.seconds), np.array(ours.seconds), paired=True
    )
    first = [float(side.losses[0]) for side in (ours, theirs)]
    record = {
        "machine": machine.describe("cpu"),
        "data": data,
        "images": images,
        "batch_size": args.batch_size,
        "threads": args.threads,
        "epochs": args.epochs,
        "turns": len(ours.seconds),
        "sides": [
            {
                "name": side.name,
                "step_ms": 1e3 * float(np.median(side.seconds)),
                "epoch_s": side.total / args.epochs,
                "first_loss": float(side.losses[0]),
                "last_loss": float(side.losses[-1]),
                "accuracy": side.accuracy(),
            }
            for side in (ours, theirs)
        ],
        "ratio": ratio,
        "ratio_interval": [low, high],
    }
    if args.json:
        print(json.dumps(record, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", "median step", "an epoch", "images/s", "test accuracy", box=None)
    for side, row in zip((ours, theirs), record["sides"], strict=True):
        table.add_row(
            side.name,
            f"{row['step_ms']:.2f} ms",
            f"{row['epoch_s']:.2f} s",
            f"{images / row['epoch_s']:,.0f}",
            f"{row['accuracy']:.2%}",
        )
    console = Console()
    console.print(
        f"{images:,} images of {data}, batches of {args.batch_size}, {args.threads} threads, "
        f"{record['turns']} turns of {args.steps_a_turn} steps each in alternation",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    console.print(table)
    console.print(
        f"PyTorch's step takes {ratio:.2f} times ours (95 % interval {low:.2f} to {high:.2f}); "
        f"first losses {first[0]:.6f} and {first[1]:.6f}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
