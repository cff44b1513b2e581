"""What the lab wants to reach, beside what result files of a GPU say.

Each goal is a ratio of times or a share of a ceiling from one run: peers by the fastest of their
layouts, in fp32 with TF32 off, cold. The goals of the training are held against what compare-torch
and the speedrun print with --json. A goal whose kernel, peer or ceiling no file has is said to be
unmeasured, never met.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from profiling import training_records
from profiling.result_file import ResultFileError, Results, load
from profiling.training_records import Speedrun, Step

Source = Results | Step | Speedrun
Sources = Sequence[tuple[Path, Source]]


class Goal(NamedTuple):
    """One thing to reach.

    Attributes
    ----------
    about
        For a person.
    wanted
        What the figure must be at least.
    figure
        Computes it from the rows of one model of device, or a training's record; None where
        something is missing.
    of
        What it is computed from.
    """

    about: str
    wanted: float
    figure: Callable[[Any], float | None]
    of: type[Results] | type[Step] | type[Speedrun] = Results


def _over_peers(
    kernel: str, direction: str, labels: Sequence[str], peer: str = ""
) -> Callable[[Results], float | None]:
    """Return the fastest peer's time over a kernel's, layers added up."""

    def figure(results: Results) -> float | None:
        ours = theirs = 0.0
        for label in labels:
            found = [
                row for row in results.rows if (row.label, row.direction) == (label, direction)
            ]
            own = [row.cold.median_s for row in found if row.name == kernel and row.cold]
            others = [
                row.cold.median_s
                for row in found
                if row.kind == "peer" and row.cold and row.name.startswith(peer)
            ]
            if not own or not others:
                return None
            ours, theirs = ours + own[0], theirs + min(others)
        return theirs / ours

    return figure


def _of_product(
    kernels: Sequence[str], labels: Sequence[str]
) -> Callable[[Results], float | None]:  # fmt: skip
    """Return the best forward pass's FLOP/s as a share of the measured product's."""

    def figure(results: Results) -> float | None:
        shares = [
            row.flops / row.cold.median_s / results.ceilings(row).product(row.precision)
            for row in results.rows
            if row.name in kernels and row.direction == "forward" and row.label in labels
            if row.cold and row.precision in results.ceilings(row).tensor_gemm
        ]
        return max(shares, default=None)

    return figure


def _step_over(*, graph: bool) -> Callable[[Step], float | None]:
    """Return PyTorch's step over ours, launched from Python or as a CUDA graph."""
    return lambda step: step.over(graph=graph) if step.batch_size == STEP_IMAGES else None


def _in_time(speedrun: Speedrun) -> float | None:
    """Return the wanted seconds over a speedrun's mean; 0 where its mean accuracy is too low."""
    summary = speedrun.summary
    if speedrun.held_out or summary is None or summary.runs < SPEEDRUN_RUNS:
        return None
    return SPEEDRUN_SECONDS / summary.seconds if summary.accuracy >= SPEEDRUN_ACCURACY else 0.0


STEP_IMAGES = 256
SPEEDRUN_RUNS, SPEEDRUN_ACCURACY, SPEEDRUN_SECONDS = 30, 0.99, 0.05
BLOCKS = ("lenet block1 N=8192", "lenet block2 N=8192")
BF16 = ("implicit_gemm_bf16", "implicit_gemm_wgmma")
RESNET = tuple(f"resnet50-3x3 stage {stage} N=64" for stage in (1, 2, 3, 4))

GOALS = (
    Goal("fused LeNet forward, both blocks, N=8192", 4.0, _over_peers("fused", "forward", BLOCKS)),
    Goal("fused filter gradients, both blocks, N=8192", 4.0,
         _over_peers("fused", "backward_filter", BLOCKS)),
    # The first block's input is the data: nobody needs its gradient.
    Goal("fused data gradient, second block, N=8192", 4.0,
         _over_peers("fused", "backward_data", BLOCKS[1:])),
    Goal("implicit_gemm on ResNet's 64-channel 3x3, fp32", 0.9,
         _over_peers("implicit_gemm", "forward", RESNET[:1], "torch")),
    Goal("winograd on ResNet's 64-channel 3x3, fp32", 1.3,
         _over_peers("winograd", "forward", RESNET[:1], "torch")),
    Goal("the better bf16 rung there, as a share of the bf16 product", 0.75,
         _of_product(BF16, RESNET[:1])),
    Goal("the better bf16 rung on its best stage of ResNet, 3x3, likewise", 0.75,
         _of_product(BF16, RESNET)),
    Goal("LeNet's step, N=256, eager PyTorch's over it", 20.0, _step_over(graph=False), Step),
    Goal("LeNet's step, N=256, PyTorch's CUDA graph over it", 5.0, _step_over(graph=True), Step),
    Goal("MNIST to 99.0 %, mean of 30 seeds: 50 ms over the training", 1.0, _in_time, Speedrun),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE",
        help="of profiling bench, or what profiling compare-torch --json or lenet speedrun --json "
        "printed; of several the first that has a goal's figure counts",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(args: argparse.Namespace) -> int:
    """Print the table and return the exit code: 1 where a goal was measured and missed."""
    try:
        sources = [(path, training_records.read(path) or load(path)) for path in args.files]
    except ResultFileError as error:
        print(f"targets: {error}", file=sys.stderr)
        return 2
    for path, source in sources:
        place = source.header.place if isinstance(source, Results) else source.device
        if place == "cpu":
            print(
                f"targets: {path} was measured on a CPU, the goals are a GPU's; on a CPU see make "
                "compare-torch",
                file=sys.stderr,
            )
            return 2
    return _report(sources, as_json=args.json)


def _figures(goal: Goal, sources: Sources) -> Iterator[float | None]:
    """Yield what each source says of a goal."""
    for _, source in sources:
        if isinstance(source, goal.of):
            parts = source.by_model() if isinstance(source, Results) else [source]
            yield from map(goal.figure, parts)


def _report(sources: Sources, *, as_json: bool) -> int:
    found = []
    for goal in GOALS:
        figures = _figures(goal, sources)
        figure = next((figure for figure in figures if figure is not None), None)
        found.append((goal, figure, None if figure is None else figure >= goal.wanted))
    if as_json:
        print(
            json.dumps(
                [
                    {"goal": goal.about, "wanted": goal.wanted, "got": figure, "met": met}
                    for goal, figure, met in found
                ],
                indent=2,
            )
        )
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("goal", "wanted", "got", "", box=None)
        words = {None: "not measured", True: "met", False: "MISSED"}
        for goal, figure, met in found:
            got = "" if figure is None else f"{figure:.2f}"
            table.add_row(goal.about, f"{goal.wanted:.2f}", got, words[met])
        console = Console(highlight=False)
        for path, source in sources:
            console.print(f"{path}: {_measured_on(source)}", markup=False, soft_wrap=True)
        console.print(table)
        console.print(
            "fastest peer's time over ours, or a share of the measured product; kernels cold",
            style="dim", soft_wrap=True,
        )  # fmt: skip
    return 1 if any(met is False for _, _, met in found) else 0


def _measured_on(source: Source) -> str:
    if not isinstance(source, Results):
        return training_records.device_name(source)
    note = ", the tests' double of a GPU: no figure of it means anything"
    names = " and ".join(part.header.machine["name"] for part in source.by_model())
    return names + (note if source.header.place != "gpu" else "")
