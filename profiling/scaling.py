"""Weak scaling of distributed training: more ranks, as many images for each.

Starts ``mpiexec -n N python -m lenet train --distributed`` for every number of ranks, in rounds, so
that whatever else the machine does meets all of them. The images of a step grow with the ranks; the
efficiency is a rank's rate over that of one rank alone, of the same round. Communication is the
trainer's own figure of the first rank: the share of its step until the sum is there, waiting for
slower ranks included. Every rank has as many threads, whatever their number.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kernels.one_line import one_line
from profiling import intervals, machine

INSTALL = (
    "pip install 'conv-kernel-lab[distributed]', and an MPI, such as pip install mpich; or name "
    "its launcher by --mpiexec"
)


class Sample(NamedTuple):
    """What one job measured.

    Attributes
    ----------
    images_per_second
        Of all ranks together; evaluation and checkpoints are not in it.
    communication
        Share of the first rank's steps, 0 to 1.
    """

    images_per_second: float
    communication: float


class ScalingError(Exception):
    """An option or a job that went wrong; the message says which."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--ranks", default="1,2,4", metavar="N,N", help="numbers of ranks (1,2,4); 1 is always in"
    )
    parser.add_argument(
        "--images", type=int, default=64, metavar="N", help="images a rank and step (64)"
    )
    parser.add_argument("--steps", type=int, default=200, metavar="N", help="steps of a job (200)")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="jobs of each number of ranks (5)"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads of a rank (cores / largest number)"
    )
    parser.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="IDX files (default: the embedded digits)"
    )
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    parser.add_argument(
        "--mpiexec",
        default="",
        metavar="COMMAND",
        help="how to start ranks, without -n N (mpiexec)",
    )
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and return the exit code."""
    try:
        record = measure(args)
    except ScalingError as error:
        print(f"scaling: {one_line(str(error))}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(record, indent=2))
    else:
        _print(record)
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run all jobs and return what is known of them.

    Raises
    ------
    ScalingError
        An option that cannot be used, no MPI, or a job that failed.
    """
    counts = _counts(args)
    launcher = _launcher(args.mpiexec)
    training_images = _training_images(args.data_dir)
    step = args.images * counts[-1]
    if step > training_images:
        raise ScalingError(
            f"{counts[-1]} ranks with --images {args.images} want {step} images a step, and there "
            f"are {training_images}; take fewer, or larger data by --data-dir"
        )
    cores = len(os.sched_getaffinity(0))
    threads = args.threads or max(cores // counts[-1], 1)
    samples: dict[int, list[Sample]] = {count: [] for count in counts}
    with tempfile.TemporaryDirectory(prefix="conv-kernel-lab-scaling-") as folder:
        for number in range(args.rounds):
            for count in counts:
                epochs = math.ceil(args.steps * args.images * count / training_images)
                run_folder = Path(folder) / f"{count}-{number}"
                command = [*launcher, "-n", str(count), *_training(args, count, epochs, run_folder)]
                _start(command, threads)
                samples[count].append(_sample(run_folder))
    alone = _seconds(samples[1], 1, args.images)
    rows = []
    for count, found in samples.items():
        efficiency = intervals.ratio_interval(
            alone, _seconds(found, count, args.images), paired=True
        )
        rows.append(
            {
                "ranks": count,
                "images_a_step": count * args.images,
                "images_per_second": float(np.median([one.images_per_second for one in found])),
                "efficiency": efficiency[0],
                "interval": list(efficiency[1:]),
                "communication": float(np.median([one.communication for one in found])),
                "oversubscribed": count * threads > cores,
            }
        )
    head, dirty = machine.commit()
    return {
        "machine": machine.describe("cpu"),
        "commit": head,
        "dirty": dirty,
        "date": machine.today(),
        "device": args.device,
        "threads_a_rank": threads,
        "rounds": args.rounds,
        "rows": rows,
    }


def _counts(args: argparse.Namespace) -> list[int]:
    for name in ("images", "steps", "rounds", "threads"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ScalingError(f"--{name} is {value}; expected at least 1")
    parts = args.ranks.split(",")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ScalingError(f"--ranks is {args.ranks!r}; expected numbers from 1 on, such as 1,2,4")
    return sorted({1, *map(int, parts)})


def _launcher(given: str) -> list[str]:
    command = shlex.split(given) or ["mpiexec"]
    beside_python = str(Path(sys.executable).parent)
    path = shutil.which(command[0], path=os.pathsep.join([beside_python, os.environ["PATH"]]))
    if path is None:
        raise ScalingError(f"there is no {command[0]}: {INSTALL}")
    if importlib.util.find_spec("mpi4py") is None:
        raise ScalingError(f"mpi4py is not installed: {INSTALL}")
    return [path, *command[1:]]


def _training_images(folder: Path | None) -> int:
    import lenet

    try:
        return len(lenet.load_data(folder=folder).train_images)
    except lenet.LenetError as error:
        raise ScalingError(str(error)) from None


def _training(args: argparse.Namespace, count: int, epochs: int, folder: Path) -> list[str]:
    data = ["--data-dir", str(args.data_dir)] if args.data_dir else []
    return [
        sys.executable, "-m", "lenet", "train", "--distributed", "--no-progress", *data,
        "--batch-size", str(count * args.images), "--epochs", str(epochs), "--device", args.device,
        "--runs-dir", str(folder.parent), "--name", folder.name,
    ]  # fmt: skip


def _start(command: list[str], threads: int) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("NUMBA_NUM_THREADS", None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise ScalingError(f"{shlex.join(command)} ended with {done.returncode}: {last}")


def _sample(folder: Path) -> Sample:
    import lenet

    kept = lenet.Run(folder)
    lines = kept.metrics()
    seconds = sum(line["seconds"] for line in lines)
    images = sum(line["seconds"] * line["images_per_second"] for line in lines)
    (session,) = kept.timing()
    in_steps = {p["name"]: p["seconds"] for p in session["phases"] if p["in_steps"]}
    every = sum(p["seconds"] for p in session["phases"] if p["in_steps"])
    return Sample(images / seconds, in_steps.get("communication", 0.0) / every)


def _seconds(samples: list[Sample], count: int, images: int) -> np.ndarray:
    """Return seconds of a step, from the rates."""
    return np.array([count * images / one.images_per_second for one in samples])


def _print(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("ranks", "images a step", "images/s", "efficiency", "communication", box=None)
    for row in record["rows"]:
        low, high = row["interval"]
        table.add_row(
            f"{row['ranks']}{' *' * row['oversubscribed']}",
            f"{row['images_a_step']:,}",
            f"{row['images_per_second']:,.0f}",
            f"{row['efficiency']:.0%} ({low:.0%} to {high:.0%})" if row["ranks"] > 1 else "",
            f"{row['communication']:.0%} of a step" if row["ranks"] > 1 else "",
        )
    console = Console(highlight=False)
    about = record["machine"]
    threads = record["threads_a_rank"]
    console.print(
        f"Weak scaling, {about['name']}, {about['cores']} cores, --device {record['device']}: "
        f"{threads} thread{'s' * (threads != 1)} a rank, {record['rounds']} rounds",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    console.print(table)
    if any(row["oversubscribed"] for row in record["rows"]):
        console.print(
            "* more threads than cores, which take turns: no measure of the communication",
            soft_wrap=True,
        )
