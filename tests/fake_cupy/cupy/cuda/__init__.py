"""cupy.cuda of the double: one device that is none."""

from __future__ import annotations

import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np

from cupy.cuda import compiler, memory, nvrtc, runtime
from cupy.cuda.memory import MemoryPool, using_allocator

__all__ = [
    "Device", "Event", "Graph", "MemoryPool", "Stream", "compiler", "get_current_stream",
    "memory", "nvrtc", "runtime", "using_allocator",
]  # fmt: skip


class Device:
    """A device, by default the first."""

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
        """Make it the current one; memory is the host's, whichever it is."""
        if not 0 <= self.id < runtime.getDeviceCount():
            raise runtime.CUDARuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        runtime.current = self.id

    def synchronize(self) -> None:
        """Do nothing: a launch has ended when it returns."""
        refuse_wait()


# While a stream is being captured: it and the streams that wait for its events, the first being
# the one that began, each with its work. Instead of work there may be an event to wait for.
captured: dict[Stream, list[Any]] | None = None
_capturing: Stream | None = None


def _is_captured(stream: Stream) -> bool:
    """Tell whether a stream's work is recorded; also where the capture was called off since."""
    return stream is _capturing or (captured is not None and stream in captured)


def run(work: Callable[..., Any], *arrays: Any) -> None:
    """Call `work` on host arrays: now, or while the current stream is captured, at each replay.

    A recorded call has the arrays' addresses alone, as a graph on a GPU.
    """
    stream = get_current_stream()
    if not _is_captured(stream):
        work(*arrays)
        return
    if captured is None:
        raise runtime.CUDARuntimeError("cudaErrorStreamCaptureInvalidated: it was called off")
    views = [memory.address_of(a) if isinstance(a, np.ndarray) else a for a in arrays]
    chunks = [memory.chunk_of(a) for a in arrays if isinstance(a, np.ndarray)]

    def again() -> None:
        if any(chunk.released for chunk in chunks):
            raise runtime.CUDARuntimeError("cudaErrorIllegalAddress: memory was given back")
        work(*views)

    captured[stream].append(again)


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
    """Raise while a stream is captured: what CuPy refuses then, or the double cannot record."""
    if captured is not None:
        raise NotImplementedError(f"{what} during stream capture is currently unsupported")


def refuse_wait() -> None:
    """Raise while the current stream is captured, as CuPy does where it would have to wait."""
    if captured is not None and _is_captured(get_current_stream()):
        raise RuntimeError(
            "the current stream is capturing, so synchronous API calls are disallowed"
        )


class Graph:
    """Work that was captured; it happens when the graph is launched, and not before.

    What one stream does beside another happens as late as their events allow.
    """

    def __init__(self, work: list[list[Any]]) -> None:
        self._work = work

    def launch(self, stream: Stream | None = None) -> None:
        """Do it all."""
        refuse_capture("launching a graph")
        done = [0] * len(self._work)

        def go_on(branch: int, end: int) -> None:
            while done[branch] < end:
                step = self._work[branch][done[branch]]
                done[branch] += 1
                if isinstance(step, tuple):
                    go_on(*step)
                else:
                    step()

        go_on(0, len(self._work[0]))

    def upload(self, stream: Stream | None = None) -> None:
        """Do nothing."""


class Stream:
    """A stream on which everything has happened already."""

    _count = 0

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.ptr = 0
        if not null:
            Stream._count += 1
            self.ptr = Stream._count

    def __enter__(self) -> Stream:
        _current.append(self)
        return self

    def __exit__(self, *_: Any) -> None:
        _current.pop()

    def synchronize(self) -> None:
        """Do nothing, or call a capture off."""
        global captured, _capturing
        if captured is not None and self is _capturing:
            captured = None
            raise runtime.CUDARuntimeError(
                "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is "
                "capturing"
            )

    def is_capturing(self) -> bool:
        """Tell whether it is; CUDA refuses to say so of the default stream during a capture."""
        if captured is not None and self is Stream.null:
            raise runtime.CUDARuntimeError("cudaErrorStreamCaptureImplicit")
        return captured is not None and _is_captured(self)

    def record(self, event: Event | None = None) -> Event:
        """Record an event."""
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        """Wait for what an event's stream had been given before it."""
        if event.branch is None and not _is_captured(self):
            return  # it has happened
        if captured is None or event.branch is None or event.branch[0] not in captured:
            raise runtime.CUDARuntimeError("cudaErrorStreamCaptureIsolation")
        captured.setdefault(self, []).append(event.branch)

    def begin_capture(self, mode: int | None = None) -> None:
        """Record work on this stream from here on instead of doing it."""
        global captured, _capturing
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        refuse_capture("a second capture")
        captured, _capturing = {self: []}, self

    def end_capture(self) -> Graph:
        """Return what was recorded."""
        global captured, _capturing
        if self is not _capturing:
            raise runtime.CUDARuntimeError("cudaErrorIllegalState: the stream is not capturing")
        streams, captured, _capturing = captured, None, None
        if streams is None:
            raise runtime.CUDARuntimeError("cudaErrorStreamCaptureInvalidated: it was called off")
        number = {stream: i for i, stream in enumerate(streams)}
        work = [
            [(number[step[0]], step[1]) if isinstance(step, tuple) else step for step in steps]
            for steps in streams.values()
        ]
        joined = {step for step in work[0] if isinstance(step, tuple)}
        if any((i, len(steps)) not in joined for i, steps in enumerate(work[1:], 1)):
            raise runtime.CUDARuntimeError("cudaErrorStreamCaptureUnjoined")
        return Graph(work)


Stream.null = Stream(null=True)
_current = [Stream.null]


class Event:
    """An event of the host's clock."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self.at: float | None = None
        self.branch: tuple[Stream, int] | None = None  # of a capture, and its work so far
        self._timed = not disable_timing

    @property
    def done(self) -> bool:
        """True: what came before it has happened."""
        return True

    def record(self, stream: Any = None) -> None:
        """Keep the time, or in a capture the place."""
        stream = stream or get_current_stream()
        if captured is not None and stream in captured and not self._timed:
            self.branch = stream, len(captured[stream])
            return
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
