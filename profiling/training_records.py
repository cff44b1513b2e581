"""What `compare-torch --json` and `lenet speedrun --json` print, read back for `targets`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from kernels.one_line import one_line
from lenet.speedrun_command import KIND as SPEEDRUN
from profiling.compare_torch import KIND as STEP
from profiling.compare_torch_side import GRAPH
from profiling.result_file import ResultFileError


class Ratio(msgspec.Struct):
    """A peer's step over ours: `of` is its name."""

    of: str
    ratio: float


class Step(msgspec.Struct, tag_field="kind", tag=STEP):
    """LeNet's step beside PyTorch's."""

    device: Literal["cpu", "gpu"]
    machine: dict[str, Any]
    batch_size: int
    ratios: list[Ratio]

    def over(self, *, graph: bool) -> float | None:
        """Return the step of PyTorch launched from Python, or as a CUDA graph, over ours."""
        return min((one.ratio for one in self.ratios if (GRAPH in one.of) == graph), default=None)


class Summary(msgspec.Struct):
    """Of the runs: how many, and mean accuracy and seconds of training."""

    runs: int
    accuracy: float
    seconds: float


class Speedrun(msgspec.Struct, tag_field="kind", tag=SPEEDRUN):
    """MNIST, anew for each of several seeds."""

    device: Literal["cpu", "gpu"]
    machine: dict[str, Any]
    held_out: bool
    summary: Summary | None


Record = Step | Speedrun


def read(path: Path) -> Record | None:
    """Return a training's record, or None for a file of another kind.

    Raises
    ------
    ResultFileError
        A record that is damaged; the message says where.
    """
    try:
        data = path.read_bytes()
        kind = msgspec.json.decode(data, type=dict)["kind"]
    except (OSError, KeyError, msgspec.DecodeError):
        return None
    if kind not in (STEP, SPEEDRUN):
        return None
    try:
        return msgspec.json.decode(data, type=Record)
    except msgspec.DecodeError as error:
        raise ResultFileError(f"{one_line(str(path))}: damaged: {error}") from error


def device_name(record: Record) -> str:
    """Return what a record was measured on, for a person."""
    about = record.machine
    return one_line(str(about.get("gpu") or about.get("name") or about.get("processor")))
