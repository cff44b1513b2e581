"""cupy.cuda of the double: one device that is none."""

from __future__ import annotations

import time
import types
from collections.abc import Callable
from typing import Any

from cupy.cuda import compiler, runtime

__all__ = ["Device", "Event", "Graph", "Stream", "compiler", "get_current_stream", "runtime"]


class Device:
    """Device 0."""

    compute_capability = "90"

    def __init__(self, device: int = 0) -> None:
        self.id = device
        self.mem_info = (1 << 30, 1 << 30)
        self.attributes: dict[str, int] = {}

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __int__(self) -> int:
        return self.id

    def use(self) -> None:
        """Do nothing: there is one device."""

    def synchronize(self) -> None:
        """Do nothing: a launch has ended when it returns."""


captured: list[Callable[[], None]] | None = None  # while a stream is being captured

# A test may say how many seconds a launch takes, by the function's name and its options: events
# then tell those, and not the host's time.
pace: Callable[[str, tuple[str, ...]], float] | None = None
_paced = 0.0


def launched(name: str, options: tuple[str, ...] = ()) -> None:
    """Let the time of a launch pass, where a test has said it."""
    global _paced
    if pace is not None:
        _paced += pace(name, options)


def refuse_capture(what: str) -> None:
    """Raise while a stream is captured: what a graph must not hold, or the double cannot record."""
    if captured is not None:
        raise NotImplementedError(f"{what} during stream capture is currently unsupported")


class Graph:
    """Launches that were captured; they happen when the graph is launched, and not before."""

    def __init__(self, launches: list[Callable[[], None]]) -> None:
        self._launches = launches

    def launch(self, stream: Stream | None = None) -> None:
        """Run them all."""
        refuse_capture("launching a graph")
        for launch in self._launches:
            launch()

    def upload(self, stream: Stream | None = None) -> None:
        """Do nothing."""


class Stream:
    """A stream on which everything has happened already."""

    ptr = 0

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        pass

    def __enter__(self) -> Stream:
        _current.append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        _current.pop()

    def synchronize(self) -> None:
        """Do nothing."""

    def is_capturing(self) -> bool:
        """Tell whether it is; CUDA refuses to say so of the default stream during a capture."""
        if captured is not None and self is Stream.null:
            raise runtime.CUDARuntimeError("cudaErrorStreamCaptureImplicit")
        return captured is not None and self is _current[-1]

    def record(self, event: Event | None = None) -> Event:
        """Record an event."""
        event = event or Event()
        event.record()
        return event

    def begin_capture(self, mode: int | None = None) -> None:
        """Record launches from here on instead of running them."""
        global captured
        if self is Stream.null:
            raise RuntimeError("cannot capture on the default stream")
        refuse_capture("a second capture")
        captured = []

    def end_capture(self) -> Graph:
        """Return what was recorded."""
        global captured
        if captured is None:
            raise RuntimeError("end_capture without begin_capture")
        captured, launches = None, captured
        return Graph(launches)


Stream.null = Stream()
_current = [Stream.null]


class Event:
    """An event of the host's clock."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.at: float | None = None

    @property
    def done(self) -> bool:
        """True: what came before it has happened."""
        return True

    def record(self, stream: Any = None) -> None:
        """Keep the time."""
        refuse_capture("recording an event of the double")
        self.at = time.perf_counter() if pace is None else _paced

    def synchronize(self) -> None:
        """Do nothing."""


def get_elapsed_time(start: Event, end: Event) -> float:
    """Return milliseconds."""
    if start.at is None or end.at is None:
        raise runtime.CUDARuntimeError("cudaErrorInvalidResourceHandle: an event is not recorded")
    return (end.at - start.at) * 1e3


def get_current_stream() -> Stream:
    """Return the one that a ``with`` block made current, or else the default one."""
    return _current[-1]


nvtx = types.SimpleNamespace(RangePush=lambda *_: None, RangePop=lambda: None)
device = types.SimpleNamespace(get_cublas_handle=lambda: 1)
