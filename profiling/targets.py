"""What the lab wants to reach, beside what result files of a GPU say.

Each goal is a ratio of times or a share of a ceiling from one run: peers by the fastest of their
layouts, in fp32 with TF32 off, cold. A goal whose kernel, peer or ceiling no file has is said to be
unmeasured, never met.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from profiling.result_file import ResultFileError, Results, load

GRADIENTS = ("backward_data", "backward_filter")


class Goal(NamedTuple):
    """One thing to reach.

    Attributes
    ----------
    about
        For a person.
    wanted
        What the figure must be at least.
    figure
        Computes it from the rows of one model of device; None where something is missing.
    """

    about: str
    wanted: float
    figure: Callable[[Results], float | None]


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
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "files", type=Path, nargs="+", metavar="FILE",
        help="of python -m profiling bench; of several the first that has a goal's figure counts",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(args: argparse.Namespace) -> int:
    """Print the table and return the exit code: 1 where a goal was measured and missed."""
    try:
        results = [load(path) for path in args.files]
    except ResultFileError as error:
        print(f"targets: {error}", file=sys.stderr)
        return 2
    for result in results:
        if result.header.place == "cpu":
            print(
                f"targets: {result.path} was measured on a CPU, the goals are a GPU's; on a CPU "
                "see make compare-torch",
                file=sys.stderr,
            )
            return 2
    return _report(results, as_json=args.json)


def _report(results: Sequence[Results], *, as_json: bool) -> int:
    found = []
    for goal in GOALS:
        figures = (goal.figure(part) for result in results for part in result.by_model())
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
        for result in results:
            note = ", the tests' double of a GPU: no figure of it means anything"
            names = " and ".join(part.header.machine["name"] for part in result.by_model())
            name = names + (note if result.header.place != "gpu" else "")
            console.print(f"{result.path}: {name}", markup=False, soft_wrap=True)
        console.print(table)
        console.print(
            "fastest peer's time over ours, or a share of the measured product; cold",
            style="dim", soft_wrap=True,
        )  # fmt: skip
    return 1 if any(met is False for _, _, met in found) else 0
