"""LeNet's training step, launch by launch, without a GPU: what each one can take at least.

The step that a GPU trains by (block `fused`) runs on the emulator under the X-ray, on random
images. The times are the X-ray's bounds for one launch alone: what a launch waits for, and what a
GPU needs to begin one, comes on top.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kernels import emulator, resources, xray
from kernels.source import KernelCompileError
from kernels.xray import gpus, static
from profiling import units

CLASSES = 10
TRACED_BLOCKS = 8


class Launch(NamedTuple):
    """One launch of the step.

    Attributes
    ----------
    report
        The X-ray's, with its bound.
    blocks
        Of the grid.
    is_aside
        Whether nothing before the update waits for it: in the graph it is on a branch.
    findings
        What the sanitiser found.
    """

    report: static.Report
    blocks: int
    is_aside: bool
    findings: int

    @property
    def bound_s(self) -> float:
        """The least time, seconds."""
        return self.report.bound.seconds if self.report.bound else 0.0


class _Aside:
    """Makes launches at once, and notes which they are."""

    def __init__(self, recordings: list[xray.Recording]) -> None:
        self.recordings, self.numbers = recordings, set[int]()

    def __call__(self, launch: Callable[..., None], *args: Any) -> None:
        first = len(self.recordings)
        launch(*args)
        self.numbers.update(range(first, len(self.recordings)))

    def join(self) -> None:
        pass


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "--batch-size", type=int, default=256, metavar="N", help="images a step (default 256)"
    )
    parser.add_argument("--gpu", default="h200", help="for which GPU: h200, a100, 4090 ...")
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(args: argparse.Namespace) -> int:
    """Print the table and return the exit code: 1 where the sanitiser found something."""
    try:
        gpu = gpus.find(args.gpu)
        launches = record(args.batch_size, gpu)
    except (ValueError, resources.NvrtcMissingError, KernelCompileError) as error:
        print(f"step: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(_record(args.batch_size, gpu, launches), indent=2))
    else:
        _show(args.batch_size, gpu, launches)
    return 1 if any(launch.findings for launch in launches) else 0


def record(batch_size: int, gpu: gpus.Gpu) -> list[Launch]:
    """Return the launches of one step, in their order.

    Parameters
    ----------
    batch_size
        Images of the step.
    gpu
        Of `kernels.xray.gpus`.

    Raises
    ------
    ValueError
        A batch of none, or no emulator here.
    NvrtcMissingError, KernelCompileError
        As for `kernels.xray.static.of_recording`.
    """
    from lenet.choice import choose_kernels
    from lenet.device import CPU
    from lenet.model import IMAGE, build_model
    from lenet.step_graph import DeviceSteps
    from lenet.steps import TrainingSet
    from lenet.trainer import Trainer

    if batch_size < 1:
        raise ValueError(f"--batch-size is {batch_size}; expected at least 1")
    if problem := emulator.problem():
        raise ValueError(str(problem))
    rng = np.random.default_rng(0)
    images = rng.standard_normal((2 * batch_size, 1, IMAGE, IMAGE), dtype=np.float32)
    data = TrainingSet(images, rng.integers(0, CLASSES, len(images)), batch_size)
    choice = choose_kernels("auto", "auto", CPU, block="fused")
    steps = DeviceSteps(Trainer(build_model(CLASSES, choice)), data, graph=False)
    nothing = np.empty(0)
    steps.begin(0, np.full(data.steps, 0.01), nothing, nothing)
    steps.launches(batch_size)  # what is allocated once is there after it
    with xray.recording(most_blocks=TRACED_BLOCKS) as recordings:
        aside = _Aside(recordings)
        steps.launches(batch_size, aside)
    return [
        Launch(
            static.of_recording(recording, gpu), recording.blocks, number in aside.numbers,
            len(recording.findings),
        )
        for number, recording in enumerate(recordings)
    ]  # fmt: skip


def _sums(launches: list[Launch]) -> tuple[float, float]:
    """Return the bounds of the launches that wait for each other, and of all, added up."""
    each = [(launch.bound_s, launch.is_aside) for launch in launches]
    return sum(s for s, is_aside in each if not is_aside), sum(s for s, _ in each)


def _record(batch_size: int, gpu: gpus.Gpu, launches: list[Launch]) -> dict[str, Any]:
    in_a_row, all_s = _sums(launches)
    return {
        "gpu": gpu.name,
        "batch_size": batch_size,
        "launches": [
            {
                "kernel": launch.report.kernel.usage.function,
                "blocks": launch.blocks,
                "aside": launch.is_aside,
                "bound_s": launch.bound_s,
                "binds": launch.report.bound.binds if launch.report.bound else None,
                "registers": launch.report.kernel.usage.registers,
                "spills": launch.report.kernel.usage.spill_stores,
                "resident_blocks": launch.report.occupancy.blocks,
                "findings": launch.findings,
            }
            for launch in launches
        ],
        "in_a_row_s": in_a_row,
        "all_s": all_s,
    }


def _show(batch_size: int, gpu: gpus.Gpu, launches: list[Launch]) -> None:
    from rich.console import Console
    from rich.table import Table

    from kernels.xray import wording

    table = Table("launch", "", "blocks", "resident", "registers", "bound", "binds", box=None)
    for column in table.columns[2:6]:
        column.justify = "right"
    table.columns[0].no_wrap = True
    for launch in launches:
        usage, bound = launch.report.kernel.usage, launch.report.bound
        table.add_row(
            usage.function, "aside" if launch.is_aside else "", f"{launch.blocks:,}",
            str(launch.report.occupancy.blocks), str(usage.registers),
            units.seconds(launch.bound_s), bound.binds if bound else "",
        )  # fmt: skip
    in_a_row, all_s = _sums(launches)
    count = sum(not launch.is_aside for launch in launches)
    console = Console(highlight=False, soft_wrap=True, width=100)  # so that names fit a pipe
    console.print(f"a step of LeNet, {batch_size:,} images, {gpu.name}")
    console.print(table)
    console.print(
        f"{count} launches that wait for each other: {units.seconds(in_a_row)} at least; all "
        f"{len(launches)}: {units.seconds(all_s)}. Bounds for each launch alone, not times"
    )
    for launch in launches:
        if launch.findings:
            what = wording.counted(launch.findings, "finding")
            console.print(f"{launch.report.kernel.usage.function}: {what} of the sanitiser")
