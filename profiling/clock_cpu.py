"""Samples on the CPU: the host's clock around a launch."""

from __future__ import annotations

import time
from pathlib import Path

from profiling.timing import State, Subject

# A sample lasts this long at least, so that reading the clock is nothing beside it.
SHORTEST_SAMPLE = 20e-6
WARM_UP_SECONDS = 0.05
WARM_UP_LAUNCHES = 3
# The threads of one library spin for some milliseconds after its last parallel loop, on the cores
# that the next library's threads want: they are let fall asleep before every turn.
PAUSE_SECONDS = 0.01
# A turn lasts about this long, so that the pause costs no more than the measurement.
TURN_SECONDS = 0.02
MOST_A_TURN = 20


class CpuClock:
    """Takes samples by ``time.perf_counter``.

    A cold sample takes the buffer set that was touched longest ago: with enough sets to fill the
    last cache twice over, none of it is there any more. Hot samples take the same set again. A turn
    begins with a pause and with a launch that is not timed, which wakes the subject's own threads.
    """

    def __init__(self) -> None:
        self._launches: dict[Subject, int] = {}
        self._turn: dict[Subject, int] = {}
        self._next_set: dict[Subject, int] = {}

    def prepare(self, subject: Subject) -> None:
        """Launch until compiled code, threads and clocks are awake; choose the launches a sample.

        An estimate from a few launches is enough for that.
        """
        began = time.perf_counter()
        fastest = float("inf")
        count = 0
        while count < WARM_UP_LAUNCHES or time.perf_counter() - began < WARM_UP_SECONDS:
            fastest = min(fastest, _time(subject, [0]))
            count += 1
        self._launches[subject] = max(1, round(SHORTEST_SAMPLE / max(fastest, 1e-9)))
        a_sample = max(fastest, SHORTEST_SAMPLE)
        self._turn[subject] = min(max(1, round(TURN_SECONDS / a_sample)), MOST_A_TURN)

    def method(self, subject: Subject, state: State) -> tuple[str, int]:
        """Return ``"perf_counter"`` and the launches a sample averages over."""
        del state
        return "perf_counter", self._launches[subject]

    def samples(self, subject: Subject, state: State) -> list[float]:
        """Return one turn's samples, each the seconds of one launch."""
        time.sleep(PAUSE_SECONDS)
        launches = self._launches[subject]
        subject.launch(0 if state == "hot" else self._sets(subject, 1)[0])
        return [
            _time(subject, [0] * launches if state == "hot" else self._sets(subject, launches))
            / launches
            for _ in range(self._turn[subject])
        ]

    def _sets(self, subject: Subject, count: int) -> list[int]:
        """Return the buffer sets that were touched longest ago."""
        first = self._next_set.get(subject, 0)
        self._next_set[subject] = (first + count) % subject.sets
        return [(first + i) % subject.sets for i in range(count)]


def last_cache_bytes() -> int:
    """Return the size of the last cache before memory; 32 MiB where the system does not say."""
    sizes = []
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = index.read_text().strip()
        unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(text[-1:], 1)
        sizes.append(int(text.rstrip("KMG")) * unit)
    return max(sizes, default=32 << 20)


def _time(subject: Subject, sets: list[int]) -> float:
    launch = subject.launch
    began = time.perf_counter()
    for number in sets:
        launch(number)
    return time.perf_counter() - began
