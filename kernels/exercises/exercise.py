"""What an exercise is: its launches with the values that NumPy expects, and its limits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kernels.compare import UNIT_ROUNDOFF

if TYPE_CHECKING:
    from kernels.exercises.limits import Limit

FOLDER = Path(__file__).parent
COMMAND = "python -m kernels exercise"
LANGUAGES = {"cuda_c": "CUDA C", "numba": "Numba"}
BOTH = tuple(LANGUAGES)
THREADS = 256  # of a block, where a case says nothing else
_SUFFIXES = {"cuda_c": ".cu", "numba": "_numba.py"}


class ExerciseError(ValueError):
    """What was asked for, or what a file declares, cannot be graded; the message says why."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One launch of the participant's kernel, and what has to come out.

    Attributes
    ----------
    label
        ``"1,000 elements"``.
    grid, block
        Blocks, and threads a block.
    args
        By the names in the task's text, in the kernel's order: arrays, NumPy scalars, a shape.
    want
        The outputs' values by NumPy in float64.
    bound
        The error allowed in each, as `kernels.compare` derives it; 0 for exact.
    scratch
        Arrays that hold nothing before, and need not hold anything after.
    """

    label: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    args: Mapping[str, Any]
    want: Mapping[str, np.ndarray]
    bound: Mapping[str, Any]
    scratch: tuple[str, ...] = ()

    def fresh_args(self) -> dict[str, Any]:
        """Return the arguments with copies of the arrays, for a kernel to write to."""
        return {
            name: value.copy() if isinstance(value, np.ndarray) else value
            for name, value in self.args.items()
        }

    def is_empty(self, name: str) -> bool:
        """Whether an array holds nothing before the launch: it is filled with NaN."""
        return bool(np.isnan(self.args[name]).all())


@dataclasses.dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes
    ----------
    number
        Its place in the order of difficulty, from 1.
    name
        Its folder's.
    title, idea
        For the list.
    kernel
        The name the participant's kernel must have.
    cases
        Makes the launches, from the text of the participant's file (which may set the tile).
    start_fails
        The criteria that the starting file does not meet.
    limits
        On the counts of the first case.
    languages
        Of the starting files.
    """

    number: int
    name: str
    title: str
    idea: str
    kernel: str
    cases: Callable[[str], Sequence[Case]]
    start_fails: tuple[str, ...]
    limits: tuple[Limit, ...] = ()
    languages: tuple[str, ...] = ("cuda_c",)

    def file_name(self, language: str) -> str:
        """Return what the participant's file is called: ``02_guard_the_edge.cu``."""
        return f"{self.number:02}_{self.name}{_SUFFIXES[language]}"

    @property
    def text_name(self) -> str:
        """What the participant's copy of the text is called."""
        return f"{self.number:02}_{self.name}.md"

    def start(self, language: str) -> Path:
        """Return the lab's own starting file."""
        return FOLDER / self.name / f"start{_SUFFIXES[language]}"

    def solution(self, language: str) -> Path:
        """Return one file that passes."""
        return FOLDER / self.name / f"solution{_SUFFIXES[language]}"

    def text(self) -> str:
        """Return the task, and the commands that go with it."""
        task = (FOLDER / self.name / "task.md").read_text(encoding="utf-8")
        check, hint = (f"`{COMMAND} {action} {self.number}`" for action in ("check", "hint"))
        languages = " (`--numba` for Numba)" if "numba" in self.languages else ""
        return f"{task}\nTo grade your file: {check}{languages}. For a hint: {hint}.\n"

    def hints(self) -> list[str]:
        """Return the hints, in the order in which they help more."""
        text = (FOLDER / self.name / "hints.md").read_text(encoding="utf-8")
        return [part.strip() for part in text.split("\n---\n")]


def vector(rng: np.random.Generator, *dims: int) -> np.ndarray:
    """Return random float32 numbers."""
    return rng.standard_normal(dims).astype(np.float32)


def empty(*dims: int) -> np.ndarray:
    """Return an array that holds nothing yet."""
    return np.full(dims, np.nan, np.float32)


def rounding(terms: int, magnitude: np.ndarray) -> np.ndarray:
    """Return the error allowed in sums of float32 products; see `kernels.compare`.

    Parameters
    ----------
    terms
        Of each sum.
    magnitude
        The same sums of the products' magnitudes, float64.
    """
    return np.asarray((terms + 1) * UNIT_ROUNDOFF["float32"] * magnitude)


def taps_of(x: np.ndarray, rows: int, cols: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (r, s, what tap (r, s) reads) of a VALID convolution over the last two dimensions."""
    height, width = x.shape[-2] - rows + 1, x.shape[-1] - cols + 1
    for r in range(rows):
        for s in range(cols):
            yield r, s, x[..., r : r + height, s : s + width]


def exact_and_size(*arrays: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return arrays in float64, and their magnitudes: for the values, and for the error allowed."""
    exact = [array.astype(np.float64) for array in arrays]
    return exact, [np.abs(array) for array in exact]
