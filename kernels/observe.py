"""Who watches the launches: the module that CONV_KERNEL_LAB_OBSERVER names, else nobody.

`python -m profiling trace` sets the variable for the command that it runs. An observer is a
module's ``observer()``; without one a launch pays for a look at one variable.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

VARIABLE = "CONV_KERNEL_LAB_OBSERVER"


class Launch(NamedTuple):
    """A launch that is about to happen.

    Attributes
    ----------
    function
        The kernel's name, or ``"matmul"``.
    place
        ``"gpu"``, ``"emulator"``, ``"simulator"``, or ``"cpu"`` for a product by NumPy's BLAS.
    args
        What the function is called with.
    grid, block
        Blocks, and threads a block; empty for a product.
    shared_bytes
        Dynamic shared memory.
    defines
        Tile sizes.
    """

    function: str
    place: str
    args: tuple[Any, ...]
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    shared_bytes: int = 0
    defines: Mapping[str, Any] = {}


class Observer(Protocol):
    """What an observer module's ``observer()`` returns."""

    def launch(self, launch: Launch) -> AbstractContextManager[Any]:
        """Return a context in which the launch happens (on a GPU: is handed to the stream)."""

    def span(self, name: str) -> AbstractContextManager[Any] | None:
        """Return a context for a range, in NVTX's stead; None leaves the range to NVTX."""


def _named() -> Observer | None:
    name = os.environ.get(VARIABLE)
    if not name:
        return None
    try:
        found: Observer = importlib.import_module(name).observer()
    except Exception as error:  # the program runs unwatched rather than not at all
        print(f"{VARIABLE}={name}: nobody watches the launches: {error}", file=sys.stderr)
        return None
    return found


current = _named()


def kernel(
    launch: Callable[..., None], function: str, place: str, defines: Mapping[str, Any]
) -> Callable[..., None]:
    """Return a kernel's `launch`, watched where there is an observer; the calling form stays."""
    if current is None:
        return launch
    return functools.partial(_launch, current, launch, function, place, defines)


def product(matmul: Callable[..., Any], place: str) -> Callable[..., Any]:
    """Return `matmul`, watched where there is an observer."""
    if current is None:
        return matmul
    return functools.partial(_multiply, current, matmul, place)


def _launch(
    observer: Observer,
    launch: Callable[..., None],
    function: str,
    place: str,
    defines: Mapping[str, Any],
    grid: tuple[int, ...],
    block: tuple[int, ...],
    args: tuple[Any, ...],
    shared_mem: int = 0,
) -> None:
    with observer.launch(Launch(function, place, args, grid, block, shared_mem, defines)):
        launch(grid, block, args, shared_mem=shared_mem)


def _multiply(
    observer: Observer, matmul: Callable[..., Any], place: str, a: Any, b: Any, *, out: Any
) -> Any:
    with observer.launch(Launch("matmul", place, (a, b, out))):
        return matmul(a, b, out=out)
