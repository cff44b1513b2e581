"""What `profiling train-report` shows in a terminal."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from profiling.train_report import Part, TrainReport, kernels_of

PIPE_COLUMNS = 100  # where the output is no terminal


def show(report: TrainReport, *, by_time: bool) -> None:
    """Print a report; `by_time` puts the longest part first."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPE_COLUMNS
    for note in report.notes:
        console.print(note, style="yellow")
    console.print(headline(report), soft_wrap=True)
    parts = sorted(report.parts, key=lambda p: -p.seconds) if by_time else report.parts
    view = Table(box=None, pad_edge=False)
    for name in ("layer", "kernel", "pass"):
        view.add_column(f"\n{name}", overflow="fold")
    for name in (
        "\nms a step",
        "\nshare",
        "twice as\nfast saves",
        "\nstep",
        "infinitely\nfast: step",
    ):
        view.add_column(name, justify="right")
    for part in parts:
        view.add_row(part.layer, part.kernel, part.direction, *_figures(part))
    view.add_section()
    view.add_row("step", "", "", f"{1e3 * report.step_s:.3f}", "100%")
    view.add_row()
    for part in report.together("kernel"):
        view.add_row(part.layer, part.kernel, "", *_figures(part))
    console.print(view)
    for line in remarks(report):
        console.print(line)


def headline(report: TrainReport) -> str:
    """Return what was run, and where."""
    config = report.config
    return (
        f"{report.folder}: {kernels_of(config)}, batches of "
        f"{config['batch_size']}, {config['device']}; {' then '.join(report.machines)}"
    )


def remarks(report: TrainReport) -> list[str]:
    """Return what stands beside the steps: how many there were, and the time outside them."""
    timed = f", {report.sampled:,} of them timed" if report.sampled < report.steps else ""
    sessions = f" in {report.sessions} sessions" if report.sessions > 1 else ""
    said = [f"{report.steps:,} steps{sessions}{timed}."]
    if report.clock_step_s is not None:
        said.append(
            f"By the epochs' own clock a whole batch takes {1e3 * report.clock_step_s:.3f} ms."
        )
    outside = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in report.outside.items())
    said.append(f"Outside the steps: {outside or 'nothing'}.")
    if report.history:
        last = report.history[-1]
        said.append(
            f"Epoch {last['epoch']} of {report.config['epochs']}: loss {last['loss']:.4f}, test "
            f"loss {last['test_loss']:.4f}, test accuracy {last['test_accuracy']:.2%}."
        )
    return said


def times(factor: float) -> str:
    """Return a speed-up for a person."""
    return f"{factor:.2f}x" if math.isfinite(factor) else "no limit"


def _figures(part: Part) -> tuple[str, ...]:
    return (
        f"{1e3 * part.seconds:.3f}",
        f"{part.share:.1%}",
        f"{1e3 * part.seconds / 2:.3f} ms",
        times(part.speed_up(2)),
        times(part.speed_up(math.inf)),
    )
