"""Train LeNet here and in PyTorch, in turns of some steps, and compare the time of a step.

Both start from the same weights and see the same batches, on the same device and cores; a turn of
ours is followed by PyTorch's turn on the same batches, so that whatever else the machine does meets
both. On a GPU our step is a CUDA graph, and PyTorch trains twice: launched from Python, and as a
graph. PyTorch runs in the memory layout, with the optimiser and on as many threads as proved
fastest here in a short trial. The losses are compared too: a speed is worth nothing if it is
another computation's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from kernels import place
from kernels.training.shuffle import permutation
from profiling import intervals, machine
from profiling.compare_torch_side import MOMENTUM, Side, fastest, torch_side

KIND = "conv-kernel-lab compare-torch 1"  # of the JSON record

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

    try:
        data = lenet.load_data(folder=args.data_dir)
        with contextlib.ExitStack() as stack:
            ours, peers = _sides(args, data, stack)
            _train(ours, peers, args, len(data.train_images))
            _report(ours, peers, args, data.name, len(data.train_images))
    except lenet.LenetError as error:
        print(f"compare-torch: {error}", file=sys.stderr)
        return 2
    return 0


def _train(ours: Side, peers: list[Side], args: argparse.Namespace, images: int) -> None:
    from lenet import device as devices

    for epoch in range(args.epochs):
        order = permutation(images, args.seed, epoch)  # as ours has it
        batches = [order[i : i + args.batch_size] for i in range(0, images, args.batch_size)]
        ours.begin(epoch)
        for first in range(0, len(batches), args.steps_a_turn):
            turn = batches[first : first + args.steps_a_turn]
            with devices.one_blas_thread():  # as `python -m lenet train` does
                ours.turn(first, turn)
            for peer in peers:
                peer.turn(first, turn)
        ours.losses += ours.end()


def _bad_option(args: argparse.Namespace) -> str | None:
    for name in ("batch_size", "epochs", "steps_a_turn", "threads"):
        if getattr(args, name) < 1:
            return f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least 1"
    if args.device == "gpu" and place.gpu_problem():
        return f"--device gpu: {place.gpu_problem()}"
    return None


def _on_gpu(args: argparse.Namespace) -> bool:
    """Tell whether both train on a GPU."""
    import torch

    return args.device != "cpu" and place.gpu_problem() is None and torch.cuda.is_available()


def _sides(
    args: argparse.Namespace, data: Any, stack: contextlib.ExitStack
) -> tuple[Side, list[Side]]:
    """Return our side and PyTorch's, as it trains fastest, compiled and fresh."""
    # Numba counts the cores before OpenMP, which PyTorch loads, may bind this thread to one.
    import numba  # noqa: F401
    import torch

    import lenet
    from kernels import cpu_threads
    from lenet import device as devices
    from lenet.step_graph import choose_steps
    from lenet.steps import TrainingSet
    from lenet.timing import Stopwatch
    from lenet.trainer import Trainer

    on_gpu = _on_gpu(args)
    # OMP_NUM_THREADS may leave ours fewer; PyTorch would not heed it.
    args.threads = min(args.threads, cpu_threads.limit(args.threads))
    where = devices.choose("gpu" if on_gpu else "cpu")
    choice = lenet.choose_kernels(args.conv, args.pool, where, block=args.block)
    model = lenet.build_model(data.classes, choice, seed=args.seed, device=where)
    weights = {
        name: torch.from_numpy(where.fetch(tensor).copy())
        for name, tensor in model.tensors(model.weights).items()
    }
    images, labels = where.put(data.train_images), where.put(data.train_labels)
    training = TrainingSet(images, labels, args.batch_size, args.seed)
    trainer = Trainer(model, momentum=MOMENTUM, watch=Stopwatch(where, every=0))
    with devices.one_blas_thread():
        steps = stack.enter_context(choose_steps(trainer, training))
        steps.warm_up()
    rates, none = np.full(training.steps, args.lr), np.empty(0)
    test = where.put(data.test_images), where.put(data.test_labels)
    ours = Side(
        f"conv-kernel-lab ({choice}{', CUDA graph' if steps.recorded else ''})",
        lambda number, indices: steps.step(number),
        where.synchronize,
        lambda: lenet.evaluate(model, *test)[1],
        lambda epoch: steps.begin(epoch, rates, none, none),
        lambda: steps.figures()[0].tolist(),
    )
    how: dict[str, bool] = {"on_gpu": on_gpu, "average": choice.pool_operation == "avg_pool2d"}
    setup = fastest(weights, data, args.lr, args.batch_size, args.threads, **how)
    setups = [setup, setup._replace(graph=args.batch_size)] if on_gpu else [setup]
    for one in setups:  # compile and allocate before the clock runs; counted nowhere
        trial = torch_side(weights, data, args.lr, one, **how)
        trial.step(0, trial.put(np.arange(min(args.batch_size, len(images)))))
        trial.wait()
    return ours, [torch_side(weights, data, args.lr, one, **how) for one in setups]


def _report(
    ours: Side, peers: list[Side], args: argparse.Namespace, data: str, images: int
) -> None:
    where = "gpu" if _on_gpu(args) else "cpu"
    ratios = [
        intervals.ratio_interval(np.array(peer.seconds), np.array(ours.seconds), paired=True)
        for peer in peers
    ]
    record = {
        "kind": KIND,
        "device": where,
        "machine": machine.describe(where),
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
            for side in (ours, *peers)
        ],
        "ratios": [
            {"of": peer.name, "ratio": ratio, "interval": [low, high]}
            for peer, (ratio, low, high) in zip(peers, ratios, strict=True)
        ],
    }
    if args.json:
        print(json.dumps(record, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("", "median step", "an epoch", "images/s", "test accuracy", box=None)
    for row in record["sides"]:
        table.add_row(
            row["name"],
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
    for peer, (ratio, low, high) in zip(peers, ratios, strict=True):
        console.print(
            f"{peer.name}: its step takes {ratio:.2f} times ours (95 % interval {low:.2f} to "
            f"{high:.2f}); first losses {ours.losses[0]:.6f} and {float(peer.losses[0]):.6f}",
            markup=False, highlight=False, soft_wrap=True,
        )  # fmt: skip
