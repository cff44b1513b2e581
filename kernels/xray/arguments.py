"""A kernel's arguments as a command line gives them: ``--arg x=random:float32:1024``.

An argument is ``[NAME=]VALUE``. For a pointer VALUE is an initialiser, an element type that may be
left out where the kernel says it, and a shape (``random:32x32``), a ``.npy`` file, or ``null``. For
a number it is the number, with or without its type before it (``int32:1024``).
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kernels.emulator.arguments import Expected

INITIALISERS: dict[str, Callable[[np.random.Generator, tuple[int, ...], Any], np.ndarray]] = {
    "random": lambda rng, dims, dtype: _random(rng, dims, dtype),
    "zeros": lambda rng, dims, dtype: np.zeros(dims, dtype),
    "ones": lambda rng, dims, dtype: np.ones(dims, dtype),
    "arange": lambda rng, dims, dtype: np.arange(math.prod(dims)).astype(dtype).reshape(dims),
    "empty": lambda rng, dims, dtype: np.zeros(dims, dtype),
}
ARRAY_WANTED = "INIT:TYPE:SHAPE such as random:float32:1024 or empty:float32:32x32, a .npy file"
TYPES = ("float32", "float64", *(f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)))
MOST_BYTES = 4 << 30
RANDOM_INTEGERS = 100  # random integers are 0 to 99


class ArgumentsError(ValueError):
    """Arguments that a kernel does not take; the message says what it takes."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel: its name in the source, and what fits it."""

    name: str
    expected: Expected

    @property
    def dtype(self) -> str | None:
        """The type of its elements or of the number; None for a struct or ``void``."""
        bits = self.expected.scalar_size * 8
        name = {"f": "float", "i": "int", "u": "uint", "b": "bool"}.get(self.expected.kind)
        return name if name in (None, "bool") else f"{name}{bits}"

    @property
    def is_number(self) -> bool:
        """Whether it is a plain number, given by value."""
        expected = self.expected
        plain = expected.kind in "fiub" and expected.scalar_size == expected.size
        return plain and not expected.is_pointer

    def __str__(self) -> str:
        return f"{self.expected.type} {self.name}"


@dataclass(frozen=True)
class Arguments:
    """What to launch a kernel with.

    Attributes
    ----------
    values
        In the order of the parameters; None for a null pointer.
    outputs
        The arrays that hold nothing and that the kernel may write: each element has to be written.
    inputs
        The arrays that hold something.
    """

    values: tuple[Any, ...]
    outputs: tuple[np.ndarray, ...]
    inputs: tuple[np.ndarray, ...]


def parse(
    kernel: str, parameters: Sequence[Parameter], texts: Sequence[str], seed: int = 0
) -> Arguments:
    """Return the arguments that some texts describe.

    Parameters
    ----------
    kernel
        For messages.
    parameters
        Of the kernel.
    texts
        ``NAME=VALUE``; those without a name are taken in the order of the parameters not named.
    seed
        Of what is random: standard normal numbers, or integers from 0 to 99.

    Raises
    ------
    ArgumentsError
        An unknown name, one given twice, a value that does not fit, or a parameter without one.
    """
    given = _assigned(kernel, parameters, texts)
    rng = np.random.default_rng(seed)
    values, outputs, inputs = [], [], []
    for parameter in parameters:
        text = given[parameter.name]
        try:
            value = (
                _number(parameter, text) if parameter.is_number else _array(parameter, text, rng)
            )
        except ArgumentsError as error:
            raise ArgumentsError(f"--arg {parameter.name}={text}: {error}") from None
        values.append(value)
        if isinstance(value, np.ndarray):
            if not text.startswith("empty:"):
                inputs.append(value)
            elif not parameter.expected.is_const:
                outputs.append(value)
    return Arguments(tuple(values), tuple(outputs), tuple(inputs))


def example(parameter: Parameter, extent: int) -> str:
    """Return an argument to start from: ``"x=random:float32:1024"``.

    Parameters
    ----------
    parameter
        Of a kernel; a pointer or a number.
    extent
        Of integers; an array gets 1,024 elements.
    """
    dtype = parameter.dtype
    if parameter.is_number:
        value = {"f": "1.0", "b": "true"}.get(parameter.expected.kind, str(extent))
        return f"{parameter.name}={value if dtype == 'bool' else f'{dtype}:{value}'}"
    how = "random" if parameter.expected.is_const and dtype != "bool" else "empty"
    return f"{parameter.name}={how}:{dtype or 'float32'}:1024"


def _assigned(kernel: str, parameters: Sequence[Parameter], texts: Sequence[str]) -> dict[str, str]:
    takes = f"{kernel} takes {', '.join(map(str, parameters)) or 'no arguments'}"
    names = [parameter.name for parameter in parameters]
    named: dict[str, str] = {}
    unnamed = []
    for text in texts:
        match = re.fullmatch(r"([A-Za-z_]\w*)=(.*)", text, re.DOTALL)
        if not match:
            unnamed.append(text)
        elif match[1] not in names:
            raise ArgumentsError(f"--arg {text}: no parameter is called {match[1]!r}; {takes}")
        elif match[1] in named:
            raise ArgumentsError(f"--arg {text}: {match[1]} is given twice")
        else:
            named[match[1]] = match[2]
    free = [name for name in names if name not in named]
    if len(unnamed) > len(free):
        raise ArgumentsError(f"--arg {unnamed[len(free)]}: one argument too many; {takes}")
    named |= dict(zip(free, unnamed, strict=False))
    missing = [parameter for parameter in parameters if parameter.name not in named]
    if missing:
        wanted = " ".join(f"--arg {example(parameter, 1024)}" for parameter in missing)
        raise ArgumentsError(
            f"no --arg for {', '.join(map(str, missing))} of {kernel}; give for example {wanted}"
        )
    return named


def _number(parameter: Parameter, text: str) -> np.generic:
    kind, dtype = parameter.expected.kind, parameter.dtype
    named, colon, value = text.rpartition(":")
    if colon and named != dtype:
        raise ArgumentsError(f"got type {named!r}; the kernel takes {parameter} ({dtype})")
    if kind == "b":
        if value.lower() not in ("true", "false", "1", "0"):
            raise ArgumentsError(f"{value!r} is no truth value; expected true or false")
        return np.bool_(value.lower() in ("true", "1"))
    if kind == "f":
        try:
            return np.dtype(dtype).type(float(value))
        except ValueError:
            raise ArgumentsError(f"{value!r} is no number; expected {dtype}, such as 1.5") from None
    limits = np.iinfo(str(dtype))
    if not re.fullmatch(r"[+-]?\d{1,20}", value) or not limits.min <= int(value) <= limits.max:
        raise ArgumentsError(
            f"{value!r} is no {dtype}; expected a whole number from {limits.min} to {limits.max}"
        )
    return np.dtype(dtype).type(int(value))


def _array(parameter: Parameter, text: str, rng: np.random.Generator) -> np.ndarray | None:
    expected = parameter.expected
    if not expected.is_pointer:
        raise ArgumentsError(
            f"{parameter} is a struct by value, which no command line can give; X-ray a kernel "
            "that takes its members as numbers, or record the launch from Python"
        )
    if text == "null":
        return None
    array = _loaded(text) if text.endswith(".npy") else _made(parameter, text, rng)
    element = parameter.dtype
    if element is not None and array.dtype != element:
        raise ArgumentsError(f"got {array.dtype}; the kernel takes {parameter} ({element})")
    if array.nbytes % expected.size:
        raise ArgumentsError(
            f"got {array.nbytes} bytes, which are no multiple of the {expected.size} of an element "
            f"of {parameter}"
        )
    if array.size == 0:
        raise ArgumentsError("got an array without elements; expected at least one")
    return array


def _loaded(text: str) -> np.ndarray:
    try:
        # Mapped, so that a header's sizes are held against the file's before anything is allocated;
        # and no pickle in the file can be reached this way.
        with warnings.catch_warnings(action="ignore"):
            _check_header(Path(text))
            mapped = np.lib.format.open_memmap(Path(text), mode="r")
    except OSError as error:
        raise ArgumentsError(f"cannot be read: {error.strerror or error}") from None
    except Exception as error:  # NumPy's readers trip over a damaged header in many ways
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise ArgumentsError(
            f"cannot be read: no .npy file of numbers, written by numpy.save: {first[:200]!a}"
        ) from None
    return np.array(mapped, order="C", subok=False)


def _check_header(path: Path) -> None:
    """Raise ValueError where numpy.memmap would divide by zero and take the process with it."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    if dtype.itemsize == 0 or min(shape, default=0) < 0:
        raise ValueError(f"elements of {dtype.itemsize} bytes, shape {shape}")


def _made(parameter: Parameter, text: str, rng: np.random.Generator) -> np.ndarray:
    parts = text.split(":")
    dtype = parts[1] if len(parts) == 3 else parameter.dtype
    if parts[0] not in INITIALISERS:
        raise ArgumentsError(
            f"{parts[0]!r} is no initialiser; expected {ARRAY_WANTED}, or null; the initialisers "
            f"are {', '.join(INITIALISERS)}"
        )
    if not 2 <= len(parts) <= 3 or not re.fullmatch(r"\d{1,12}(x\d{1,12})*", parts[-1]):
        raise ArgumentsError(f"expected {ARRAY_WANTED}")
    if parameter.expected.kind == "S":
        if len(parts) == 3 or parts[0] not in ("zeros", "empty"):
            raise ArgumentsError(f"{parameter} points to structs: expected zeros:N or empty:N")
        dtype = f"V{parameter.expected.size}"
    elif dtype not in (*TYPES, "bool"):
        raise ArgumentsError(f"{dtype!r} is no element type; expected one of {', '.join(TYPES)}")
    dims = tuple(map(int, parts[-1].split("x")))
    nbytes = math.prod(dims) * np.dtype(dtype).itemsize
    if nbytes > MOST_BYTES:
        raise ArgumentsError(f"takes {nbytes:,} bytes; expected at most {MOST_BYTES:,}")
    return INITIALISERS[parts[0]](rng, dims, dtype)


def _random(rng: np.random.Generator, dims: tuple[int, ...], dtype: Any) -> np.ndarray:
    kind = np.dtype(dtype).kind
    if kind == "f":
        return rng.standard_normal(dims).astype(dtype)
    return rng.integers(2 if kind == "b" else RANDOM_INTEGERS, size=dims).astype(dtype)
