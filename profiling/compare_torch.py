"""Train LeNet here and in PyTorch, in turns of some steps, and compare the time of a step.

Both start from the same weights and see the same batches, on the same device and cores; a turn of
ours is followed by PyTorch's turn on the same batches, so that whatever else the machine does meets
both. PyTorch runs in the memory layout, with the optimiser and on as many threads as proved fastest
here in a short trial. The losses are compared too: a speed is worth nothing if it is another
computation's.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from kernels import place
from profiling import intervals, machine
from profiling.compare_torch_side import MOMENTUM, Setup, Side, fastest, torch_side

INSTALL = (
    "compare-torch: PyTorch is not installed; make compare-torch installs it, or: "
    "pip install torch==2.13.0"
)


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
    parser.add_argument("--block", default="auto", help="our conv2d_relu_pool kernel, or none")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument("--json", action="store_true", help="for a program to read")


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
        ours, theirs, setup = _sides(args, data)
    except lenet.LenetError as error:
        print(f"compare-torch: {error}", file=sys.stderr)
        return 2
    images = len(data.train_images)
    for side in (ours, theirs):  # compile and allocate before the clock runs; counted nowhere
        side.step(np.arange(min(args.batch_size, images)))
        side.wait()
    ours, theirs, _ = _sides(args, data, setup)
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


def _sides(
    args: argparse.Namespace, data: Any, setup: Setup | None = None
) -> tuple[Side, Side, Setup]:
    """Return both sides, fresh, and how PyTorch trains: by default as it does fastest."""
    import numba
    import torch

    import lenet
    from lenet import device as devices
    from lenet.trainer import Trainer

    on_gpu = args.device != "cpu" and place.gpu_problem() is None and torch.cuda.is_available()
    numba.set_num_threads(min(args.threads, numba.get_num_threads()))
    where = devices.choose("gpu" if on_gpu else "cpu")
    choice = lenet.choose_kernels(args.conv, args.pool, where, block=args.block)
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
    how = {"on_gpu": on_gpu, "average": choice.pool_operation == "avg_pool2d"}
    if setup is None:
        setup = fastest(weights, data, args.lr, args.batch_size, args.threads, **how)
    return ours, torch_side(weights, data, args.lr, setup, **how), setup


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
