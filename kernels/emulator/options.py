"""How launches run: the order of threads, the number of workers, the time limit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

ORDERS = ("forward", "reverse", "random")


@dataclass(frozen=True)
class Settings:
    """
    How launches run.

    Attributes
    ----------
    order : {"forward", "reverse", "random"}
        In which order the threads of a block start and go on after a barrier, and in which order
        blocks start. A result that depends on it is a race.
    seed : int
        Of the random order.
    workers : int or None
        OS threads that run blocks; None for as many as this process may use.
    time_limit : float or None
        Seconds a launch may take; None for no limit.
    """

    order: str = "forward"
    seed: int = 0
    workers: int | None = None
    time_limit: float | None = 60.0

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ValueError(f"order is {self.order!r}; expected one of {', '.join(ORDERS)}")
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"workers is {self.workers}; expected at least 1, or None")
        if self.time_limit is not None and not self.time_limit > 0:
            raise ValueError(f"time_limit is {self.time_limit}; expected seconds above 0, or None")

    @property
    def worker_count(self) -> int:
        """How many OS threads that is on this machine."""
        return self.workers or len(os.sched_getaffinity(0))


# Called in place of a launch with the function, grid, block, arguments and shared_mem.
Interceptor = Callable[[Any, tuple[int, int, int], tuple[int, int, int], Sequence[Any], int], None]
interceptor: ContextVar[Interceptor | None] = ContextVar("emulator_interceptor", default=None)

_current: ContextVar[Settings] = ContextVar("emulator_settings", default=Settings())  # noqa: B039


def current() -> Settings:
    """Return the settings of this context."""
    return _current.get()


@contextmanager
def settings(**overrides: Any) -> Iterator[Settings]:
    """
    Change how launches run inside a ``with`` block; what is not named stays as it is.

    Parameters
    ----------
    **overrides
        ``order``, ``seed``, ``workers`` and ``time_limit`` of `Settings`.

    Yields
    ------
    Settings
        As they are inside the block.

    Raises
    ------
    ValueError
        For a value that a setting cannot have.
    TypeError
        For a setting that there is not.
    """
    token = _current.set(replace(_current.get(), **overrides))
    try:
        yield _current.get()
    finally:
        _current.reset(token)
