"""Time several launches side by side, until each is known well enough.

Subjects (kernels and their peers) take turns: what the machine does meanwhile meets all
of them alike, and ratios come from samples of the same rounds. Each is timed cold (the caches hold
other data) and hot (they hold what its last launch left). How one sample is taken is the clock's
business: `profiling.clock_cpu`, `profiling.clock_gpu`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from profiling import intervals
from profiling.result_file import Timing

State = Literal["cold", "hot"]
STATES: tuple[State, ...] = ("cold", "hot")


@dataclasses.dataclass(frozen=True)
class Subject:
    """Something to time.

    Attributes
    ----------
    name
        For messages.
    launch
        Runs it once on one of its buffer sets, given by its number. Allocates nothing, waits for
        nothing.
    sets
        How many buffer sets there are.
    eager
        Whether the host's part of each call counts too, as its callers see it.
    capturable
        Whether a CUDA graph may record it.
    record
        Records launches on the given sets in a graph of its own and returns what replays it; None
        where capturing the stream is enough.
    """

    name: str
    launch: Callable[[int], Any]
    sets: int = 1
    eager: bool = False
    capturable: bool = True
    record: Callable[[list[int]], Callable[[], Any]] | None = None


class Policy(NamedTuple):
    """When a subject has been measured enough.

    Attributes
    ----------
    min_samples, min_seconds
        At least so many samples, and so many seconds inside them.
    target
        Relative standard error of the median to be reached.
    max_seconds
        Wall seconds after which it is given up, and called unstable.
    max_samples
        Kept in a file; reached by very short launches only.
    """

    min_samples: int = 10
    min_seconds: float = 0.5
    target: float = 0.005
    max_seconds: float = 15.0
    max_samples: int = 10_000


STANDARD = Policy()


class Clock(Protocol):
    """Takes samples."""

    def prepare(self, subject: Subject) -> None:
        """Warm a subject up, and choose how to time it."""

    def method(self, subject: Subject, state: State) -> tuple[str, int]:
        """Return the name of the method, and the launches that one sample averages over."""

    def samples(self, subject: Subject, state: State) -> list[float]:
        """Return one turn's samples, each the seconds of one launch."""


def measure(
    subjects: Sequence[Subject],
    clock: Clock,
    policy: Policy = STANDARD,
    states: Sequence[State] = STATES,
    between: Callable[[float], None] = lambda share: None,
) -> list[dict[State, Timing]]:
    """Time subjects in turns.

    Parameters
    ----------
    subjects
        Each has a turn a round until it has enough.
    clock
        Of the place where they run.
    policy
        When that is.
    states
        Cold, hot, or both.
    between
        Called after every round with the share of the time limit that is spent, 0 to 1.

    Returns
    -------
    list of dict
        For every subject, a `Timing` for each state.
    """
    for subject in subjects:
        clock.prepare(subject)
    tracks = [
        {state: _Track(subject, state, clock, policy) for state in states} for subject in subjects
    ]
    open_tracks = [track for by_state in tracks for track in by_state.values()]
    limit = policy.max_seconds * max(1, len(open_tracks))
    began = time.perf_counter()
    while open_tracks:
        for track in open_tracks:
            track.take()
        open_tracks = [track for track in open_tracks if not track.done]
        between(min((time.perf_counter() - began) / limit, 1.0))
    return [{state: track.timing() for state, track in by_state.items()} for by_state in tracks]


def ratio(numerator: Timing, denominator: Timing) -> tuple[float, float, float]:
    """Return the ratio of two medians and its 95 % interval, from the rounds both took part in."""
    rounds = min(len(numerator.samples_s), len(denominator.samples_s))
    return intervals.ratio_interval(
        np.array(numerator.samples_s[:rounds]),
        np.array(denominator.samples_s[:rounds]),
        paired=True,
    )


class _Track:
    """The samples of one subject in one state."""

    def __init__(self, subject: Subject, state: State, clock: Clock, policy: Policy) -> None:
        self.subject, self.state, self.clock, self.policy = subject, state, clock, policy
        self.samples: list[float] = []
        self.launches = clock.method(subject, state)[1]
        self.wall = 0.0
        self.inside = 0.0
        self.done = False
        self._next_look = policy.min_samples

    def take(self) -> None:
        """Take a turn and decide whether it was the last."""
        began = time.perf_counter()
        taken = self.clock.samples(self.subject, self.state)
        self.wall += time.perf_counter() - began
        self.inside += sum(taken) * self.launches
        self.samples += taken
        self.done = len(self.samples) >= self.policy.min_samples and (
            self.wall >= self.policy.max_seconds
            or len(self.samples) >= self.policy.max_samples
            or (self.inside >= self.policy.min_seconds and self._settled())
        )

    def _settled(self) -> bool:
        # The standard error is looked at now and then: asked after every sample, a run of luck
        # would end it too soon.
        if len(self.samples) < self._next_look:
            return False
        self._next_look = int(len(self.samples) * 1.2) + 1
        return intervals.relative_standard_error(np.array(self.samples)) <= self.policy.target

    def timing(self) -> Timing:
        """Return what was measured."""
        samples = np.array(self.samples)
        median, low, high = intervals.median_interval(samples)
        reason = intervals.why_unstable(samples, self.policy.target)
        method, launches = self.clock.method(self.subject, self.state)
        kept = [float(f"{sample:.6g}") for sample in self.samples]
        return Timing(median, low, high, kept, launches, method, not reason, reason)
