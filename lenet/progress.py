"""What a run shows while it trains, and the table at its end."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lenet.steps import Steps
    from lenet.train import Result

REFRESH = 0.2  # seconds between two looks


class Silent:
    """Shows nothing; the others add what they show."""

    def begin(self, epochs: int, images: int, epoch: int) -> None:
        """Say how much work there is: `epochs` times `images`, `epoch` epochs of it done."""

    def step(self, steps: Steps, batch_size: int) -> None:
        """See one more step of the epoch that `steps` makes."""

    def epoch(self, line: dict[str, Any]) -> None:
        """See an epoch's end; `line` is that of metrics.jsonl."""

    def note(self, text: str) -> None:
        """See what the user should know, before the first step."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop showing."""


class Lines(Silent):
    """Prints one plain line an epoch."""

    def begin(self, epochs: int, images: int, epoch: int) -> None:
        """Keep the number of epochs."""
        self.epochs, self.images = epochs, images

    def note(self, text: str) -> None:
        """Print it beside the run's output."""
        print(f"lenet: {text}", file=sys.stderr)

    def text(self, line: dict[str, Any]) -> str:
        """Return an epoch's line for a person."""
        return (
            f"epoch {line['epoch']:{len(str(self.epochs))}}/{self.epochs}"
            f"  loss {line['loss']:.4f}  accuracy {line['accuracy']:7.2%}"
            f"  test loss {line['test_loss']:.4f}  test accuracy {line['test_accuracy']:7.2%}"
            f"  {line['images_per_second']:,.0f} images/s"
        )

    def epoch(self, line: dict[str, Any]) -> None:
        """Print the line at once, also into a pipe."""
        print(self.text(line), flush=True)


class Bar(Lines):
    """A line an epoch, and below them a bar with loss, accuracy and images a second."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.percentage:3.0f} %  {task.fields[figures]}"),
            TimeRemainingColumn(),
        )
        self.looked = time.perf_counter()

    def begin(self, epochs: int, images: int, epoch: int) -> None:
        """Set up the bar."""
        super().begin(epochs, images, epoch)
        self.done = self.first = epoch * images
        self.started = time.perf_counter()
        self.task = self.bar.add_task(
            "", total=epochs * images, completed=self.done, epoch=epoch + 1, figures=""
        )

    def step(self, steps: Steps, batch_size: int) -> None:
        """Move the bar, a few times a second."""
        now = time.perf_counter()
        if now - self.looked < REFRESH:
            return
        self.looked = now
        done = self.done + min(steps.done() * batch_size, self.images)
        figures = f"{(done - self.first) / (now - self.started):,.0f} images/s"
        # On a GPU the loss of an epoch under way is not to be had without waiting for a step.
        if steps.seen is not None:
            loss, hits = steps.seen[:, : steps.done()].mean(axis=1)
            figures = f"loss {loss:.4f}  accuracy {hits / batch_size:.2%}  {figures}"
        self.bar.update(self.task, completed=done, figures=figures)

    def epoch(self, line: dict[str, Any]) -> None:
        """Print the line above the bar."""
        self.done = line["epoch"] * self.images
        self.bar.console.print(self.text(line), highlight=False)
        self.bar.update(self.task, completed=self.done, epoch=min(line["epoch"] + 1, self.epochs))

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self.bar.stop()


def print_result(result: Result) -> None:
    """Print a run's accuracy and where its time went."""
    from rich.console import Console
    from rich.table import Table

    settings, last = result.settings, result.history[-1]
    epochs = f"{settings.epochs} epoch{'s' * (settings.epochs != 1)}"
    table = Table(
        title=f"LeNet on {settings.data_dir or settings.data}, {epochs}: {settings.kernels}, "
        f"{settings.device}",
        caption=f"test accuracy {last['test_accuracy']:.2%}, test loss {last['test_loss']:.4f}",
        caption_style="bold",
        min_width=60,
    )
    table.add_column("phase")
    for heading in ("forward s", "backward s", "total s", "share"):
        table.add_column(heading, justify="right")
    kinds: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    for phase, seconds in result.seconds.items():
        kinds[phase.kind][phase.direction] += seconds
    warm_up = sum(kinds.pop("warm-up", {}).values())
    total = sum(sum(by.values()) for by in kinds.values())
    for kind, by in kinds.items():
        both = sum(by.values())
        split = [f"{by[way]:.2f}" if way in by else "" for way in ("forward", "backward")]
        table.add_row(kind, *split, f"{both:.2f}", f"{both / total:.0%}")
    table.add_section()
    table.add_row("all", "", "", f"{total:.2f}", "")
    console = Console(highlight=False)
    console.print(table)
    sampled = " (steps on a GPU: from a timed sample)" if settings.device == "gpu" else ""
    if result.graph:
        sampled = " (steps: from a sample timed launch by launch, outside the CUDA graph)"
    console.print(f"Compiling and warming up took {warm_up:.2f} s more{sampled}.")
    console.print(f"The run is in {result.run.folder}", soft_wrap=True)
