"""The GPU's own time of what is launched: CUDA events behind a kernel that spins.

A launch takes the host longer than many a kernel takes the GPU. So the host first queues a kernel
that spins, then an event, the launches and another event: when the spin ends, all are there, and
what lies between the events is the GPU's time alone.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kernels.source import CudaSource

source = CudaSource("spin.cu")

Launch = Callable[[], Any]

# A sample of `race` lasts about SAMPLE seconds of the GPU, and waits for the host no longer than
# LONGEST_SPIN.
SAMPLES = 7
SAMPLE = 1e-3
MOST_LAUNCHES = 50
LONGEST_SPIN = 20e-3
# What takes this many times as long as the fastest in a first look is not looked at again.
HOPELESS = 2.0


class EventClock:
    """Times launches on a stream of the current GPU.

    Parameters
    ----------
    stream
        CuPy's: the one that the launches go to.
    """

    def __init__(self, stream: Any) -> None:
        import cupy

        self._cupy, self._stream = cupy, stream
        self._begin, self._end = cupy.cuda.Event(), cupy.cuda.Event()
        with stream:
            self._spin = source.kernel("spin", like=cupy.empty(1, np.float32))

    def seconds(self, launch: Launch, spin_seconds: float) -> float:
        """Return the seconds between two events around what `launch` puts into the stream.

        Parameters
        ----------
        launch
            Puts work into the stream, and does not wait for it.
        spin_seconds
            The host's time for that, at least; 0 where the host's part is to count.
        """
        with self._stream:
            if spin_seconds:
                self._spin((1,), (1,), (np.uint64(spin_seconds * 1e9),))
            self._begin.record(self._stream)
            launch()
            self._end.record(self._stream)
        self._end.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(self._begin, self._end)) / 1e3


def race(clock: EventClock, launches: Mapping[str, Launch]) -> dict[str, float]:
    """Return the seconds that each of several launches takes a GPU, its operands in the cache.

    Parameters
    ----------
    clock
        Of the stream they go to.
    launches
        By name; each has been launched before, so that its code is compiled and loaded.

    Returns
    -------
    dict
        By name: the median of `SAMPLES` samples, which are taken in turns, so that a clock that
        rises or falls does so for all; of what is hopelessly slow, one sample.
    """
    hosts: dict[str, float] = {}
    first: dict[str, float] = {}
    for name, launch in launches.items():
        began = time.perf_counter()
        launch()
        hosts[name] = 2 * (time.perf_counter() - began)
        first[name] = clock.seconds(launch, min(hosts[name], LONGEST_SPIN))
    limit = HOPELESS * min(first.values())
    samples: dict[str, list[float]] = {name: [] for name in launches if first[name] <= limit}
    for _ in range(SAMPLES):
        for name, taken in samples.items():
            fill, queue = SAMPLE / max(first[name], 1e-7), LONGEST_SPIN / max(hosts[name], 1e-7)
            count = max(1, min(int(fill), int(queue), MOST_LAUNCHES))
            spin_seconds = min(hosts[name] * count, LONGEST_SPIN)
            taken.append(clock.seconds(_repeated(launches[name], count), spin_seconds) / count)
    return first | {name: statistics.median(taken) for name, taken in samples.items()}


def _repeated(launch: Launch, count: int) -> Launch:
    def launch_all() -> None:
        for _ in range(count):
            launch()

    return launch_all
