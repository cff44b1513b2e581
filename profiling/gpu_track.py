"""Launches on a GPU's own tracks, timed by CUDA events (not yet run on a GPU).

Each launch stands between two events of its stream; they are read once they are done, so that the
program does not wait. An event before the first launch, waited for, ties the device's clock to the
host's. What an event pair brackets is the kernel and the gaps to its neighbours: a short kernel is
drawn longer than it is, and Nsight has its true length. Launches that a CUDA graph captures have no
time of their own and are drawn on the host only.
"""

from __future__ import annotations

import atexit
import collections
import sys
import threading
import time
from typing import Any, NamedTuple

from profiling.spool import Spool

# CUDA's own queue of launches is about as long; beyond it the oldest is waited for.
PENDING = 1024
ALIGNMENTS = 5
# Events give milliseconds in float32: after a second a new base keeps them to 0.1 us.
REBASE_MS = 1000.0
FIRST_TRACK = 1 << 30  # above every thread id that Linux gives


class Begun(NamedTuple):
    """A launch whose first event is recorded."""

    device: int
    stream: Any
    start: Any


class Pending(NamedTuple):
    """A launch between two events that may not be done."""

    clock: Clock
    track: int
    name: str
    start: Any
    stop: Any


class Clock:
    """Host time, ns of CLOCK_MONOTONIC, for the events of the current device."""

    def __init__(self) -> None:
        from cupy.cuda import Event

        tries = []
        for _ in range(ALIGNMENTS):
            event = Event()
            before = time.monotonic_ns()
            event.record()
            event.synchronize()
            after = time.monotonic_ns()
            tries.append((after - before, (before + after) // 2, event))
        self.doubt_ns, self.base_ns, self.base = min(tries, key=lambda each: each[0])

    def ns(self, event: Any) -> int:
        """Return when a finished event was reached."""
        from cupy.cuda import get_elapsed_time

        ms = get_elapsed_time(self.base, event)
        at = self.base_ns + round(ms * 1e6)
        if ms > REBASE_MS:
            self.base, self.base_ns = event, at
        return at


class GpuTracks:
    """A track for each stream that kernels are launched on."""

    def __init__(self, spool: Spool) -> None:
        import cupy  # registers its own exit handlers first, so that ours comes before them

        self.cuda = cupy.cuda
        # The tests' double of CuPy launches on no GPU, and must not seem to.
        double = getattr(cupy, "TEST_DOUBLE", False)
        self.category, self.device = ("double", "test double") if double else ("gpu", "GPU")
        self.spool = spool
        self.clocks: dict[int, Clock] = {}
        self.tracks: dict[tuple[int, int], int] = {}
        self.pending: collections.deque[Pending] = collections.deque()
        # Two threads on one stream: the second launch must not come between the first's events.
        self.one_launch = threading.Lock()
        atexit.register(self.finish)

    def begin(self) -> Begun | None:
        """Record the event before a launch on the current stream; None during stream capture."""
        stream = self.cuda.get_current_stream()
        if stream.is_capturing():
            return None
        device = self.cuda.runtime.getDevice()
        if device not in self.clocks:
            self.clocks[device] = Clock()
        start = self.cuda.Event()
        self.one_launch.acquire()
        try:
            start.record(stream)
        except BaseException:
            self.one_launch.release()
            raise
        return Begun(device, stream, start)

    def end(self, begun: Begun, name: str, launched: bool) -> None:
        """Record the event after a launch, and write those that are done."""
        try:
            if not launched:
                return
            stop = self.cuda.Event()
            stop.record(begun.stream)
            track = self._track(begun.device, begun.stream.ptr)
            clock = self.clocks[begun.device]
            self.pending.append(Pending(clock, track, name, begun.start, stop))
            if len(self.pending) > PENDING:
                self.pending[0].stop.synchronize()
            while self.pending and self.pending[0].stop.done:
                self._write(self.pending.popleft())
        finally:
            self.one_launch.release()

    def finish(self) -> None:
        """Wait for what is pending and write it."""
        try:
            while self.pending:
                self.pending[0].stop.synchronize()
                self._write(self.pending.popleft())
        except Exception as error:  # after a failed kernel no event can be read any more
            lost = len(self.pending)
            print(f"trace: the GPU times of {lost} launches are lost: {error}", file=sys.stderr)

    def _write(self, done: Pending) -> None:
        begin = done.clock.ns(done.start)
        ms = self.cuda.get_elapsed_time(done.start, done.stop)
        self.spool.put(
            "X", ns=begin, dur=round(ms * 1e6), tid=done.track, cat=self.category, name=done.name
        )

    def _track(self, device: int, stream: int) -> int:
        if (device, stream) not in self.tracks:
            track = self.tracks[device, stream] = FIRST_TRACK + len(self.tracks)
            number = sum(known == device for known, _ in self.tracks) - 1
            which = "default stream" if stream == 0 else f"stream {number} ({stream:#x})"
            doubt = self.clocks[device].doubt_ns / 2e3
            self.spool.put(
                "track",
                tid=track,
                name=f"{self.device} {device} {which}, host time +- {doubt:.0f} us",
            )
        return self.tracks[device, stream]
