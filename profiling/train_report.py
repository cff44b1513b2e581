"""Where a training run's time went: LeNet's step by layer and pass, beside the loss curve.

For each part: seconds a step, its share, and what speeding it up would buy (Amdahl's law): with the
part twice as fast the step is so many times as fast, and no speed-up of this part alone does better
than the last column. The times are those that `python -m lenet train` kept in the run's
timing.json, of every session.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from kernels import table
from kernels.one_line import one_line
from lenet import LenetError, Run
from lenet.run_files import Session


class Part(NamedTuple):
    """A part of the training step.

    Attributes
    ----------
    layer
        Its name: ``"conv1"``, or ``"data"``, ``"loss"``, ``"update"``.
    kernel
        What it runs on.
    direction
        ``"forward"``, ``"backward"``, or empty.
    seconds
        Of a step.
    share
        Of the step, 0 to 1.
    """

    layer: str
    kernel: str
    direction: str
    seconds: float
    share: float

    def speed_up(self, factor: float) -> float:
        """Return how many times as fast the step is with this part `factor` times as fast."""
        return amdahl(self.share, factor)


class TrainReport(NamedTuple):
    """What is known of a run's time.

    Attributes
    ----------
    folder
        The run's.
    config
        Its config.json.
    parts
        In network order, forward before backward.
    step_s
        Seconds of a step: the parts' sum.
    steps, sampled
        How many steps were made, and how many of them were timed.
    outside
        Seconds in all of what is no part of a step, by name.
    clock_step_s
        Seconds of a whole batch's step by the epochs' own clock; None before the first epoch's end.
    machines
        On which it ran, each once.
    sessions
        In how many processes.
    history
        The lines of metrics.jsonl.
    notes
        What the reader must know of these times, a sentence each.
    """

    folder: Path
    config: dict[str, Any]
    parts: list[Part]
    step_s: float
    steps: int
    sampled: int
    outside: dict[str, float]
    clock_step_s: float | None
    machines: list[str]
    sessions: int
    history: list[dict[str, Any]]
    notes: list[str]

    def together(self, group: str) -> list[Part]:
        """Return the parts added up by an attribute, ``"layer"`` or ``"kernel"``, in order."""
        sums: dict[str, list[Part]] = {}
        for part in self.parts:
            sums.setdefault(getattr(part, group), []).append(part)
        return [
            Part(
                parts[0].layer if group == "layer" else "all",
                parts[0].kernel,
                "",
                sum(part.seconds for part in parts),
                sum(part.share for part in parts),
            )
            for parts in sums.values()
        ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run's folder, runs/NAME")
    parser.add_argument("-o", "--output", type=Path, metavar="PAGE", help="write an HTML page too")
    parser.add_argument(
        "--sort", choices=("network", "time"), default="network", help="order of the table"
    )
    parser.add_argument("--json", action="store_true", help="for a program to read")


def run(args: argparse.Namespace) -> int:
    """Print the report, write the page, and return the exit code."""
    try:
        report = load(args.folder)
        if args.output is not None:
            _write_page(report, args.output)
    except (LenetError, OSError) as error:
        text = f"{args.output}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"train-report: {text}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(_record(report), indent=2))
    else:
        from profiling import train_table  # rich takes a while

        train_table.show(report, by_time=args.sort == "time")
        if args.output is not None:
            print(f"The page is {args.output}")
    return 0


def load(folder: Path) -> TrainReport:
    """Read a run's times.

    Parameters
    ----------
    folder
        The run's.

    Raises
    ------
    LenetError
        A folder that is no run, or a run that has no times or damaged ones.
    """
    kept = Run(folder)
    config, history = kept.config(), kept.metrics()
    sessions = msgspec.convert(kept.timing(), list[Session])
    timed = [session for session in sessions if session.sampled]
    if not any(phase.seconds for session in timed for phase in session.phases if phase.in_steps):
        raise LenetError(
            f"{folder}: no times were kept: the run is older than timing.json, or stopped before "
            "its first step was saved; train again: python -m lenet train"
        )
    steps = sum(session.steps for session in timed)
    sums: dict[tuple[str, str, str], float] = {}
    outside: dict[str, float] = {}
    for session in timed:
        for phase in session.phases:
            if phase.in_steps:
                key = (phase.name, phase.kind, phase.direction)
                scaled = phase.seconds * session.steps / session.sampled
                sums[key] = sums.get(key, 0.0) + scaled
            else:
                outside[phase.name] = outside.get(phase.name, 0.0) + phase.seconds
    step_s = sum(sums.values()) / steps
    layers = list(dict.fromkeys(name for name, _, _ in sums))
    order = sorted(sums, key=lambda key: (layers.index(key[0]), key[2] == "backward"))
    return TrainReport(
        folder,
        config,
        [
            Part(name, _kernel(kind, config), way, sums[name, kind, way] / steps,
                 sums[name, kind, way] / steps / step_s)
            for name, kind, way in order
        ],
        step_s,
        steps,
        sum(session.sampled for session in timed),
        outside,
        _clock_step(history, config),
        list(dict.fromkeys(_machine(session.machine) for session in timed)),
        len(timed),
        history,
        _notes(config, timed),
    )  # fmt: skip


def amdahl(share: float, factor: float) -> float:
    """Return the whole's speed-up when a part of it is sped up.

    Parameters
    ----------
    share
        The part's share of the time, 0 to 1.
    factor
        How many times as fast the part becomes; may be infinite.
    """
    rest = 1 - share + share / factor
    return 1 / rest if rest > 0 else math.inf


def _kernel(kind: str, config: dict[str, Any]) -> str:
    if kind == "block":
        return f"block {config['block']}"
    if kind == "convolution":
        return f"conv {config['conv']}"
    if kind == "pooling":
        return f"pool {config['pool']}"
    if kind == "communication":
        return "NCCL" if config["device"] == "gpu" else "MPI"
    if config.get("block") == "fused" and kind in ("linear", "update"):
        return "CUDA C"  # `lenet.learning_layers`
    if config["device"] == "gpu":
        return {"activation": "CuPy", "reshape": "CuPy", "linear": "cuBLAS"}.get(kind, "CUDA C")
    # Moves and distortions are NumPy's: `kernels.training.batch`.
    moved = config.get("augment") or config.get("distort")
    by_cores = ("linear", "loss", "update") + ("data",) * (not moved)
    return "Numba" if kind in by_cores else "NumPy"


def kernels_of(config: dict[str, Any]) -> str:
    """Return what a run's model ran on, for a person."""
    if config.get("block", "none") != "none":
        return f"block {config['block']}"
    return f"conv {config['conv']}, pool {config['pool']}"


def _clock_step(history: list[dict[str, Any]], config: dict[str, Any]) -> float | None:
    """Return seconds of a whole batch in the mean of the epochs, whose clock runs through."""
    rates = [line["images_per_second"] for line in history]  # 0 of no steps
    each = [config["batch_size"] / rate for rate in rates if rate]
    return sum(each) / len(each) if each else None


def _machine(about: dict[str, Any]) -> str:
    cores = f"{about.get('cores', '?')} cores"
    name = about.get("gpu") or about.get("processor", "unknown processor")
    return one_line(f"{name}, {cores}")


def _notes(config: dict[str, Any], sessions: list[Session]) -> list[str]:
    notes = []
    if config["device"] == "cpu":
        operation, _, pool = config["pool"].partition(":")
        used = {
            ("conv2d", config["conv"]),
            (f"{operation}_pool2d", pool),
            ("conv2d_relu_pool", config.get("block")),
        }
        rows = [row for row in table.rows() if (row.operation, row.name) in used]
        places = {place for row in rows for place in row.places} & {"emulator", "simulator"}
        if places:
            whose = " and ".join(f"the {place}'s" for place in sorted(places))
            notes.append(
                f"These times are {whose}, on the CPU: they say where this training spends its "
                "time, and nothing about a GPU."
            )
    rate = max(round(session.steps / session.sampled) for session in sessions)
    if rate > 1:
        notes.append(
            f"One step in about {rate} was timed, with a wait for the GPU around every part: a "
            "timed step takes longer than the others, small parts the most."
        )
    if any(session.graph for session in sessions):
        notes.append(
            "The other steps ran as a CUDA graph, without the host's part in every launch: how "
            "long they took is the epochs' clock's to say, not the sum of these parts."
        )
    if len({_machine(session.machine) for session in sessions}) > 1:
        notes.append("The run went on on another machine: its times are a mixture.")
    return notes


def _write_page(report: TrainReport, path: Path) -> None:
    from kernels import page
    from profiling import train_page

    if path.is_file() and not page.is_ours(path):
        raise LenetError(f"{path} is there and is no page of this lab; name another with -o")
    path.write_text(train_page.build(report), encoding="utf-8")


def _record(report: TrainReport) -> dict[str, Any]:
    """Return what --json prints; an infinite speed-up is null."""

    def speed_up(part: Part, factor: float) -> dict[str, float | None]:
        by = part.speed_up(factor)
        return {
            "saves_s": part.seconds * (1 - 1 / factor),
            "step_s": report.step_s / by,
            "speed_up": by if math.isfinite(by) else None,
        }

    return {
        "run": str(report.folder),
        "notes": report.notes,
        "machines": report.machines,
        "sessions": report.sessions,
        "steps": report.steps,
        "sampled": report.sampled,
        "step_s": report.step_s,
        "clock_step_s": report.clock_step_s,
        "parts": [
            part._asdict()
            | {"twice_as_fast": speed_up(part, 2), "infinitely_fast": speed_up(part, math.inf)}
            for part in report.parts
        ],
        "outside_s": report.outside,
        "history": report.history,
    }
