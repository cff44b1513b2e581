"""``python -m lenet speedrun``: its options, and what it prints."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lenet.errors import OptionError

if TYPE_CHECKING:
    from lenet.speedrun import Outcome, Summary

DESCRIPTION = (
    "Train LeNet on MNIST by a fixed recipe, anew for each seed, and report mean accuracy and "
    "seconds of training. The clock runs from before the first step to after the last: the data is "
    "on the device and the kernels are compiled before it, the evaluation comes after it. The "
    "recipe was judged by the last 10,000 training images, after training on the 50,000 before "
    "them (--held-out); README.md says of the one that was tried before it."
)


KIND = "conv-kernel-lab speedrun 1"  # of the JSON record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options that are this command's alone."""
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="a folder with MNIST's four IDX files (MNIST, fetched once)",
    )
    parser.add_argument("--seeds", type=int, default=30, metavar="N", help="runs (30)")
    parser.add_argument(
        "--target",
        default="0.99",
        metavar="X",
        help="exit with 1 if the mean accuracy is below X: 0 to 1, or per cent (0.99)",
    )
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="judge by the last 10,000 training images, and train on those before them",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(options: argparse.Namespace, target: float, kernels: Mapping[str, Any]) -> bool | None:
    """Make the runs, a line each, and sum them up.

    Parameters
    ----------
    options
        Of the command line.
    target
        Mean accuracy to be reached, 0 to 1.
    kernels
        Of ``conv``, ``pool``, ``block`` and ``device`` those that were given.

    Returns
    -------
    bool or None
        Whether the mean reached the target; None after Ctrl-C.
    """
    if options.seeds < 1:
        raise OptionError(f"--seeds is {options.seeds}; expected at least 1")
    from lenet import speedrun
    from lenet.data import load_data
    from lenet.device import describe
    from lenet.interrupt import CtrlC, Stopped
    from lenet.settings import Settings
    from lenet.step_graph import check_graph

    settings = Settings(**kernels)
    device, choice = settings.check()
    check_graph(options.graph, device)
    dataset = load_data("mnist", options.data_dir)
    if options.held_out:
        dataset = speedrun.held_out(dataset)
    outcomes: list[Outcome] = []
    stopped = False
    with CtrlC() as ctrl_c:
        try:
            for outcome in speedrun.runs(
                dataset, device, choice, range(options.seeds), speedrun.RECIPE, graph=options.graph,
                between=ctrl_c.check, note=_note,
            ):  # fmt: skip
                outcomes.append(outcome)
                if not options.json:
                    print(line(outcome), flush=True)
        except Stopped:
            stopped = True
            print("lenet: interrupted; the run in hand is left out", file=sys.stderr)
    found = speedrun.summary(outcomes, target) if outcomes else None
    if options.json:
        record = {
            "kind": KIND,
            "device": device.name,
            "data": dataset.name,
            "held_out": options.held_out,
            "machine": describe(device),
            "kernels": str(choice),
            "recipe": speedrun.RECIPE._asdict(),
            "target": target,
            "runs": [outcome._asdict() for outcome in outcomes],
            "summary": found and found._asdict(),
        }
        print(json.dumps(record))
    elif found is not None:
        print(text(found, target, "held-out" if options.held_out else "test"))
    if stopped or found is None:
        return None
    return found.accuracy >= target


def line(outcome: Outcome) -> str:
    """Return a run's line for a person."""
    return (
        f"seed {outcome.seed:2}  accuracy {outcome.accuracy:.2%}  {outcome.seconds:.3f} s  "
        f"{outcome.steps:,} steps"
    )


def text(found: Summary, target: float, images: str) -> str:
    """Return the last line for a person; `images` says of which the accuracy is."""
    spread = ""
    if found.deviation is not None and found.error is not None:
        spread = f" (standard error {found.error:.3%}, deviation of a run {found.deviation:.3%})"
    return (
        f"mean {images} accuracy {found.accuracy:.3%}{spread}, mean training time "
        f"{found.seconds:.3f} s, {found.reached} of {found.runs} runs reached {target:.2%}"
    )


def _note(text: str) -> None:
    print(f"lenet: {text}", file=sys.stderr)
