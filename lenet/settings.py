"""What a training run is told, checked; and what its config.json says."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lenet import classic
from lenet import device as devices
from lenet.checkpoint import FORMAT
from lenet.choice import LENET5, NO_BLOCK, Choice, choose_kernels
from lenet.data import Dataset, load_data
from lenet.device import Device
from lenet.errors import CheckpointError, OptionError
from lenet.model import ACTIVATIONS, IMAGE, MODELS

MAX_DISTORT = 0.5  # what is scaled and squeezed by more could come out upside down


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of ``python -m lenet train`` that decide its numbers.

    Attributes
    ----------
    data, data_dir
        What `lenet.data.load_data` takes: a name, or a folder of IDX files in its place.
    epochs, batch_size
        Whole passes over the training images, and images a step.
    lr, momentum, weight_decay
        Of Nesterov's gradient descent; `lr` is the peak of the one-cycle schedule.
    seed
        Of the initial weights, the shuffles and the moves.
    augment
        How many pixels each training image is moved at most, each way and anew every epoch.
    distort
        By what share each is at most scaled, squeezed and sheared, likewise.
    model
        ``"lenet5"`` or ``"lenet5-1998"``.
    block, conv, pool, activation, device
        What the model runs on, as `lenet.choice.choose_kernels` takes them.
    """

    data: str = "digits"
    data_dir: str | None = None
    epochs: int = 12
    batch_size: int = 16
    lr: float = 0.015
    momentum: float = 0.9
    weight_decay: float = 0.005
    seed: int = 0
    augment: int = 0
    distort: float = 0.0
    model: str = LENET5
    block: str = "auto"  # before the two that it decides: --resume names the first that differs
    conv: str = "auto"
    pool: str = "auto"
    activation: str = "auto"
    device: str = "auto"

    def check(self) -> tuple[Device, Choice]:
        """Return the device and the kernels the settings mean.

        Raises
        ------
        OptionError
            A value that cannot be used; the message names the option.
        """
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise OptionError(f"{_option(name)} is {getattr(self, name)}; expected at least 1")
        if not 0 <= self.seed < 2**63:
            raise OptionError(f"--seed is {self.seed}; expected 0 to 2**63 - 1")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise OptionError(f"--lr is {self.lr}; expected a number above 0")
        if not 0 <= self.momentum < 1:
            raise OptionError(f"--momentum is {self.momentum}; expected 0 <= momentum < 1")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise OptionError(f"--weight-decay is {self.weight_decay}; expected 0 or more")
        if not 0 <= self.augment < IMAGE:
            raise OptionError(
                f"--augment is {self.augment}; expected 0 to {IMAGE - 1} pixels, such as 2"
            )
        if not 0 <= self.distort <= MAX_DISTORT:
            raise OptionError(
                f"--distort is {self.distort}; expected a share, 0 to {MAX_DISTORT}, such as 0.15"
            )
        if self.model not in MODELS:
            raise OptionError(f"--model is {self.model!r}; expected one of {', '.join(MODELS)}")
        if self.activation not in ("auto", *ACTIVATIONS):
            raise OptionError(
                f"--activation is {self.activation!r}; expected one of {', '.join(ACTIVATIONS)}"
            )
        if self.model == classic.NAME and self.activation == "relu":
            raise OptionError(f"--activation relu: --model {self.model} has tanh; leave it out")
        device = devices.choose(self.device)
        return device, choose_kernels(
            self.conv,
            self.pool,
            device,
            block=self.block,
            activation=self._activation,
            model=self.model,
        )

    @property
    def _activation(self) -> str:
        default = "tanh" if self.model == classic.NAME else "relu"
        return default if self.activation == "auto" else self.activation

    def data_set(self) -> Dataset:
        """Return the data, with the pixels scaled as the model wants them.

        Raises
        ------
        DataError
            As for `load_data`.
        """
        scale = (classic.MEAN, classic.STD) if self.model == classic.NAME else None
        return load_data(self.data, self.data_dir, scale=scale)

    def resolved(self, device: Device, choice: Choice) -> Settings:
        """Return the settings with "auto" decided, and with the data folder's absolute path.

        Beside a block, conv and pool stay "auto": no kernel of theirs runs.
        """
        fused = choice.block != NO_BLOCK
        return dataclasses.replace(
            self,
            data_dir=str(Path(self.data_dir).resolve()) if self.data_dir is not None else None,
            activation=self._activation,
            device=device.name,
            conv="auto" if fused else choice.conv,
            pool=f"{choice.pool_operation[:3]}:{'auto' if fused else choice.pool}",
            block=choice.block,
        )

    @property
    def kernels(self) -> str:
        """What the model runs on, for a person; of resolved settings."""
        if self.block != NO_BLOCK:
            return f"block {self.block}"
        return f"conv {self.conv}, pool {self.pool}"

    def config(self, dataset: Dataset) -> dict[str, Any]:
        """Return config.json's content: the settings, and what a later command needs to know."""
        return {
            "format": FORMAT,
            **dataclasses.asdict(self),
            "classes": dataset.classes,
            "mean": dataset.mean,
            "std": dataset.std,
            "fingerprint": dataset.fingerprint,
            "names": dataset.names,
        }


def from_config(config: Mapping[str, Any], folder: Path) -> Settings:
    """Return the settings a run was started with."""
    # Older runs do not mention what came later.
    known = {"block": NO_BLOCK, "augment": 0, "distort": 0.0, "model": LENET5, **config}
    try:
        return Settings(**{f.name: known[f.name] for f in dataclasses.fields(Settings)})
    except KeyError as error:
        raise CheckpointError(f"{folder}: its config.json has no {error}; start anew") from None


def resumed(config: Mapping[str, Any], given: Mapping[str, Any], folder: Path) -> Settings:
    """Return a run's settings for going on, if the options given beside --resume agree with them.

    Only the data may be elsewhere than before: that they are the same is checked by content.

    Raises
    ------
    OptionError
        An option that would change the numbers.
    """
    if "augment" not in config:
        raise OptionError(
            f"{folder}: a version that shuffled otherwise began it, and going on would not be the "
            f"same run; start a new one. python -m lenet evaluate {folder} works as before"
        )
    before = from_config(config, folder)
    if given.get("data") and before.data_dir is not None:
        raise OptionError(f"--data {given['data']}: {folder} trains on {before.data_dir}")
    if given.get("data_dir") is not None and before.data_dir is None:
        raise OptionError(f"--data-dir {given['data_dir']}: {folder} trains on {before.data}")
    wanted = dataclasses.replace(before, **given)
    after = wanted.resolved(*wanted.check())
    for field in dataclasses.fields(Settings):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old != new and field.name != "data_dir":
            raise OptionError(
                f"{_option(field.name)} {new}: {folder} was started with {old}, and --resume goes "
                "on exactly as it began; leave the option out, or start a new run"
            )
    return after


def _option(field: str) -> str:
    return "--" + field.replace("_", "-")
