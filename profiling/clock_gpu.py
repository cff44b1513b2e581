"""Samples on a GPU: CUDA events around launches that are already waiting in the stream.

A launch takes the host longer than many a kernel takes the GPU. So the host first queues a kernel
that spins, then the event, the launches and the other event: when the spin ends, all are there,
and what lies between the events is the GPU's time alone. Launches shorter than a millisecond are
recorded in a CUDA graph, many to a sample; where a graph is refused (CuPy does not let cuBLAS be
captured) they are queued one by one behind a longer spin. What is eager has no spin before it: the
host's part counts, as its callers see it. Nothing is subtracted: the time of an
empty launch, measured in the same way, stands beside the results.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np

from kernels.event_clock import EventClock
from kernels.source import CudaSource
from profiling.timing import STATES, State, Subject

source = CudaSource(Path(__file__).parent / "measuring.cu")

# Below this a launch is one of many in a sample, which lasts about SAMPLE seconds.
SHORT = 1e-3
SAMPLE = 2e-3
MOST_LAUNCHES = 256
# The host's time to submit a graph, at most; that of a launch, which may be several kernels, is
# measured. A spin lasts as long as the host needs for all that is behind it.
GRAPH_SUBMISSION = 100e-6
LONGEST_SPIN = 20e-3
# Twice the cache, so that nothing of it is left whatever its replacement policy.
FLUSH_FACTOR = 2
WARM_UP_SECONDS = 0.2
WARM_UP_LAUNCHES = 3


@dataclasses.dataclass
class _Plan:
    method: str
    launches: int
    host: float
    graphs: dict[State, Any]


class GpuClock:
    """Takes samples by CUDA events on a stream of its own.

    Attributes
    ----------
    stream
        Where everything is launched.
    """

    def __init__(self) -> None:
        import cupy

        self.stream = cupy.cuda.Stream(non_blocking=True)
        self._clock = EventClock(self.stream)
        self._flush = cupy.empty(FLUSH_FACTOR * l2_bytes() // 4, np.float32)
        self._plans: dict[Subject, _Plan] = {}

    def prepare(self, subject: Subject) -> None:
        """Launch until code is loaded and clocks are up; choose launches a sample; capture."""
        with self.stream:
            for _ in range(WARM_UP_LAUNCHES):
                subject.launch(0)
            self.stream.synchronize()
            host, some = _host_seconds(subject), [0] * WARM_UP_LAUNCHES
            seconds = self._between(subject, some, host) / WARM_UP_LAUNCHES
            for _ in range(min(1000, int(WARM_UP_SECONDS / max(seconds, 1e-6)))):
                subject.launch(0)
            self.stream.synchronize()
            host = _host_seconds(subject)
            seconds = self._between(subject, some, host) / WARM_UP_LAUNCHES
            launches = 1
            if seconds < SHORT:
                launches = min(max(1, int(SAMPLE / max(seconds, 1e-7))), MOST_LAUNCHES)
                launches = min(launches, subject.sets) if subject.sets > 1 else launches
            plan = _Plan("eager" if subject.eager else "events", launches, host, {})
            if seconds < SHORT and not subject.eager:
                plan.graphs = self._capture(subject, launches) if subject.capturable else {}
                plan.method = "graph" if plan.graphs else "queue"
                if not plan.graphs:
                    plan.launches = max(1, min(launches, int(LONGEST_SPIN / host) - 1))
            self._plans[subject] = plan

    def method(self, subject: Subject, state: State) -> tuple[str, int]:
        """Return the method's name and the launches a sample averages over."""
        del state
        plan = self._plans[subject]
        return plan.method, plan.launches

    def samples(self, subject: Subject, state: State) -> list[float]:
        """Return one sample: the seconds of one launch."""
        plan = self._plans[subject]
        with self.stream:
            if state == "cold":
                _reset_persisting_l2()
                self._flush.fill(0)
            else:
                subject.launch(0)
            graph = plan.graphs.get(state)
            if graph is not None:
                return [self._clock.seconds(graph, GRAPH_SUBMISSION) / plan.launches]
            sets = _sets(subject, state, plan.launches)
            return [self._between(subject, sets, plan.host) / plan.launches]

    def _capture(self, subject: Subject, launches: int) -> dict[State, Any]:
        """Return what replays a sample for each state, or nothing where capturing is refused."""
        record = subject.record or (lambda sets: self._record(subject, sets))
        try:
            return {state: record(_sets(subject, state, launches)) for state in STATES}
        except Exception:  # whatever cannot be captured is queued instead
            return {}

    def _record(self, subject: Subject, sets: list[int]) -> Any:
        self.stream.begin_capture()
        try:
            for number in sets:
                subject.launch(number)
        except Exception:
            with contextlib.suppress(Exception):  # what was begun must be ended, broken or not
                self.stream.end_capture()
            raise
        graph = self.stream.end_capture()
        graph.upload()
        return graph.launch

    def _between(self, subject: Subject, sets: list[int], host: float) -> float:
        def launch_all() -> None:
            for number in sets:
                subject.launch(number)

        wait = 0.0 if subject.eager else min(host * (len(sets) + 1), LONGEST_SPIN)
        return self._clock.seconds(launch_all, wait)


def _host_seconds(subject: Subject) -> float:
    """Return twice the time that the host took to submit a launch just now."""
    began = time.perf_counter()
    subject.launch(0)
    return 2 * (time.perf_counter() - began)


def l2_bytes() -> int:
    """Return the size of the current GPU's L2 cache."""
    import cupy

    runtime = cupy.cuda.runtime
    return int(runtime.getDeviceProperties(runtime.getDevice())["l2CacheSize"])


def _sets(subject: Subject, state: State, launches: int) -> list[int]:
    """Return the buffer sets of a sample: hot always the first, cold one after the other."""
    return [0] * launches if state == "hot" else [i % subject.sets for i in range(launches)]


def _reset_persisting_l2() -> None:
    """Let go of lines that an access policy keeps in L2; what has none, has nothing to let go."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libcuda.so.1").cuCtxResetPersistingL2Cache()
