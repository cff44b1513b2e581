"""What the JSON files of a run's folder hold, checked: they may come from anybody."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

# Words are printed, so they hold nothing that a terminal would act on.
Word = Annotated[str, Meta(pattern=r"^[ -~]{0,200}\Z")]
Whole = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Amount = Annotated[float, Meta(ge=0, le=1e12)]
Share = Annotated[float, Meta(ge=0, le=1)]

T = TypeVar("T")


class Config(msgspec.Struct):
    """config.json: `lenet.settings.Settings`, and what is known of the data."""

    data: Word
    data_dir: str | None
    epochs: Positive
    batch_size: Positive
    lr: float
    momentum: float
    weight_decay: float
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    conv: Word
    pool: Annotated[str, Meta(pattern=r"^(max|avg):[ -~]{1,100}\Z")]
    activation: Literal["relu", "tanh"]
    device: Literal["cpu", "gpu"]
    classes: Annotated[int, Meta(ge=2, le=256)]
    mean: Share
    std: Annotated[float, Meta(ge=1e-9, le=1)]
    fingerprint: int | str  # compared, and nothing else
    augment: Whole = 0
    distort: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    model: Word = "lenet5"
    block: Word = "none"
    names: list[Word] = []

    def __post_init__(self) -> None:
        if self.names and len(self.names) < self.classes:
            raise ValueError(f"{len(self.names)} names of {self.classes} classes")


class Epoch(msgspec.Struct):
    """A line of metrics.jsonl."""

    epoch: Positive
    loss: float
    accuracy: Share
    test_loss: float
    test_accuracy: Share
    seconds: Amount
    images_per_second: Amount  # 0 of an epoch that was resumed behind its last step


class Phase(msgspec.Struct):
    """A part of a step, or of what is outside the steps."""

    name: Word
    kind: Word
    direction: Literal["forward", "backward", ""]
    in_steps: bool
    seconds: Amount


class Session(msgspec.Struct):
    """What one process added to timing.json."""

    machine: dict[Word, Any]
    steps: Whole
    sampled: Whole
    phases: list[Phase]
    graph: bool = False

    def __post_init__(self) -> None:
        if self.sampled > self.steps:
            raise ValueError(f"{self.sampled} of {self.steps} steps sampled")


def parse(text: bytes) -> Any:
    """Return what JSON text says.

    Raises
    ------
    ValueError
        No JSON.
    """
    try:
        return msgspec.json.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def checked(value: Any, kind: type[T]) -> T:
    """Return a parsed value as one of the above.

    Raises
    ------
    ValueError
        It is none; the message says where it differs.
    """
    return msgspec.convert(value, kind)
