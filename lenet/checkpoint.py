"""The run folder: config.json, metrics.jsonl, checkpoint.safetensors and timing.json, crash-safe.

A checkpoint is written beside the old one, flushed to the disk, then renamed over it: at any moment
the folder holds one whole checkpoint. An epoch's line is added to metrics.jsonl before the
checkpoint that counts the epoch; `Run.trim_metrics` drops the lines a checkpoint does not count.

A checkpoint holds the weights, the momentum, and how far the run is: whole epochs, and the losses
and hits of each step since. Shuffles are a pure function of seed and epoch, the learning rate of
the step, so there is no generator state to keep.

timing.json holds the seconds by phase of every process that worked on the run, to be added up. It
is written after each checkpoint, and no number of the training depends on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lenet import run_files, timing
from lenet.errors import CheckpointError

CONFIG, METRICS, CHECKPOINT = "config.json", "metrics.jsonl", "checkpoint.safetensors"
TIMING = "timing.json"
FORMAT = "conv-kernel-lab lenet 1"
VELOCITY = "velocity."
EPOCH = re.compile("[0-9]{1,9}")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Where a run is.

    Attributes
    ----------
    weights, velocity
        The parameters and their momentum, by name.
    epoch
        Whole epochs behind it, evaluated and in metrics.jsonl.
    losses, hits
        Of each step since then, float64: mean loss of the batch, and right answers in it.
    """

    weights: dict[str, np.ndarray]
    velocity: dict[str, np.ndarray]
    epoch: int
    losses: np.ndarray
    hits: np.ndarray

    @classmethod
    def none(cls) -> Checkpoint:
        """Return what stands for the beginning: no weights, epoch 0."""
        return cls({}, {}, 0, np.empty(0), np.empty(0))


class Run:
    """A run's folder.

    Parameters
    ----------
    folder
        ``runs/<name>``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def create(cls, folder: Path, config: Mapping[str, Any]) -> Run:
        """Make a new run folder and write its config.

        A folder that is empty, or in which a process was killed before it had a config, is as good
        as a new one.

        Raises
        ------
        CheckpointError
            A folder that is there already, or cannot be written.
        """
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            if not folder.is_dir() or {path.name for path in folder.iterdir()} - {_new(CONFIG)}:
                raise CheckpointError(
                    f"{folder} is there already; choose another --name, or continue it with "
                    f"--resume {folder}"
                ) from None
        except OSError as error:
            raise CheckpointError(
                f"cannot make the run folder {folder}: {error.strerror}; choose a folder that can "
                "be written with --runs-dir"
            ) from None
        run = cls(folder)
        with run._saving("a new run"):
            _write_atomically(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
        return run

    def config(self) -> dict[str, Any]:
        """Return what the run was started with."""
        path = self.folder / CONFIG
        try:
            config = run_files.parse(path.read_bytes())
        except OSError as error:
            raise CheckpointError(
                f"{self.folder} is not a run: {CONFIG}: {error.strerror}; expected a folder that "
                "`python -m lenet train` made, such as runs/NAME"
            ) from None
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged: {error}") from None
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise CheckpointError(f"{path}: not of a LeNet run (no format {FORMAT!r})")
        try:
            run_files.checked(config, run_files.Config)
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged: {error}; start the run anew") from None
        return config

    def begun(self) -> bool:
        """Tell whether there was a checkpoint ever; a run stopped before its first can go on."""
        return (self.folder / CHECKPOINT).exists() or bool(self.metrics())

    def save(self, checkpoint: Checkpoint) -> None:
        """Replace the run's checkpoint.

        Raises
        ------
        CheckpointError
            A full disk or a folder that cannot be written; the checkpoint before stays as it was.
        """
        from safetensors.numpy import save

        tensors = {
            **checkpoint.weights,
            **{VELOCITY + name: array for name, array in checkpoint.velocity.items()},
            "epoch.losses": checkpoint.losses,
            "epoch.hits": checkpoint.hits,
        }
        content = save(tensors, {"format": FORMAT, "epoch": str(checkpoint.epoch)})
        with self._saving(f"epoch {checkpoint.epoch}"):
            _write_atomically(self.folder / CHECKPOINT, content)

    def load(self, expected: Mapping[str, np.ndarray]) -> Checkpoint:
        """Return the run's checkpoint.

        Parameters
        ----------
        expected
            The model's parameters: the names, shapes and dtypes that the tensors must have.

        Raises
        ------
        CheckpointError
            A checkpoint that is missing, damaged or another model's.
        """
        path = self.folder / CHECKPOINT
        tensors, metadata = _read(path)
        if metadata.get("format") != FORMAT or not EPOCH.fullmatch(metadata.get("epoch", "")):
            raise CheckpointError(f"{path}: not a checkpoint of ours (no format {FORMAT!r})")
        extra = {name: tensors.pop(name, np.empty(0)) for name in ("epoch.losses", "epoch.hits")}
        losses, hits = extra.values()
        if not losses.shape == hits.shape == (losses.size,) or {losses.dtype, hits.dtype} != {
            np.dtype(float)
        }:
            raise CheckpointError(
                f"{path}: damaged: epoch.losses is {losses.dtype} {losses.shape} and epoch.hits "
                f"{hits.dtype} {hits.shape}; expected a float64 for each step; start the run anew"
            )
        wanted = {p + name: array for name, array in expected.items() for p in ("", VELOCITY)}
        if missing := sorted(wanted.keys() - tensors.keys()):
            raise CheckpointError(f"{path}: another model's: it has no {', '.join(missing)}")
        if unknown := sorted(tensors.keys() - wanted.keys()):
            raise CheckpointError(f"{path}: another model's: it also has {', '.join(unknown)}")
        for name, array in wanted.items():
            got = tensors[name]
            if got.shape != array.shape or got.dtype != array.dtype:
                raise CheckpointError(
                    f"{path}: another model's: {name} is {got.dtype} {got.shape}; "
                    f"expected {array.dtype} {array.shape}"
                )
        return Checkpoint(
            {name: tensors[name] for name in expected},
            {name: tensors[VELOCITY + name] for name in expected},
            int(metadata["epoch"]),
            losses,
            hits,
        )

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Append one epoch's line to metrics.jsonl."""
        with self._saving(f"epoch {line['epoch']}"), (self.folder / METRICS).open("ab") as file:
            file.write((json.dumps(line) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())

    def metrics(self) -> list[dict[str, Any]]:
        """Return the lines of metrics.jsonl; a last one that a crash cut off is left out.

        Raises
        ------
        CheckpointError
            A file that cannot be read, or a line that no run writes.
        """
        path = self.folder / METRICS
        try:
            *whole, _ = path.read_bytes().split(b"\n")
            lines = [run_files.parse(line) for line in whole]
            run_files.checked(lines, list[run_files.Epoch])
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{path}: damaged: {error}; without the file the run goes on with no history"
            ) from None
        return lines

    def trim_metrics(self, epoch: int) -> None:
        """Drop what the checkpoint of whole epoch `epoch` does not count.

        The lines past it will be written again; files half-written belong to a process that was
        killed.
        """
        kept = [line for line in self.metrics() if line["epoch"] <= epoch]
        with self._saving(f"epoch {epoch}"):
            for name in (CONFIG, CHECKPOINT, TIMING):
                (self.folder / _new(name)).unlink(missing_ok=True)
            _write_atomically(
                self.folder / METRICS, "".join(json.dumps(line) + "\n" for line in kept).encode()
            )

    def save_timing(self, sessions: list[dict[str, Any]]) -> None:
        """Replace timing.json; a session is a process's part, as `train` records it."""
        content = json.dumps({"format": timing.FORMAT, "sessions": sessions}, indent=1) + "\n"
        with self._saving("the times"):
            _write_atomically(self.folder / TIMING, content.encode())

    def timing(self) -> list[dict[str, Any]]:
        """Return the sessions in timing.json; none where an older version trained the run.

        Raises
        ------
        CheckpointError
            A file that is damaged or of another format.
        """
        path = self.folder / TIMING
        try:
            content = run_files.parse(path.read_bytes())
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: damaged: {error}; delete it to do without") from None
        if not isinstance(content, dict) or content.get("format") != timing.FORMAT:
            raise CheckpointError(
                f"{path}: not of this version (format {timing.FORMAT!r}); delete it to do without"
            )
        sessions = content.get("sessions", [])
        try:
            run_files.checked(sessions, list[run_files.Session])
        except ValueError as error:
            raise CheckpointError(f"{path}: damaged: {error}; delete it to do without") from None
        return list(sessions)

    @contextlib.contextmanager
    def _saving(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if (self.folder / CHECKPOINT).exists():
                out = f"the checkpoint before is intact: continue with --resume {self.folder}"
            else:
                out = "choose another folder with --runs-dir"
            raise CheckpointError(
                f"cannot save {what} in {self.folder}: {error.strerror}; {out}"
            ) from error


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: there is no checkpoint; the run was stopped before its first: start it anew"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None
    except (SafetensorError, ValueError, TypeError, AttributeError, KeyError) as error:
        # The last three where an element type is none of NumPy's.
        raise CheckpointError(
            f"{path}: damaged or no safetensors file ({error}); start the run anew"
        ) from None


def _new(name: str) -> str:
    """Return the name of a file that is being written: one, so that a crash leaves one at most."""
    return f".{name}.new"


def _write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that, whenever the machine stops, `path` is the old one or the new one."""
    temporary = path.with_name(_new(path.name))
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
