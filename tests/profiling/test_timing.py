"""The harness measures itself: work of a known length, noise of a known size."""

from __future__ import annotations

import time

import numpy as np
import pytest

from profiling.clock_cpu import CpuClock
from profiling.timing import Policy, Subject, measure, ratio

QUICK = Policy(min_seconds=0.05, max_seconds=5.0)


def spin_until(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.parametrize("microseconds", [100, 300, 2000])
def test_a_spin_of_known_length_is_read_within_two_per_cent(microseconds: int):
    subject = Subject("spin", lambda _: spin_until(microseconds * 1e-6))
    (by_state,) = measure([subject], CpuClock(), QUICK)
    for timing in by_state.values():
        assert timing.median_s == pytest.approx(microseconds * 1e-6, rel=0.02)
        assert timing.low_s <= timing.median_s <= timing.high_s


@pytest.mark.gpu
@pytest.mark.parametrize("microseconds", [100, 300, 2000])
def test_a_spin_of_the_gpu_is_read_within_two_per_cent(microseconds: int):
    import cupy

    from kernels.event_clock import source
    from profiling.clock_gpu import GpuClock

    spin = source.kernel("spin", like=cupy.empty(1, np.float32))
    length = np.uint64(microseconds * 1000)
    subject = Subject("spin", lambda _: spin((1,), (1,), (length,)))
    (by_state,) = measure([subject], GpuClock(), QUICK)
    for timing in by_state.values():
        assert timing.median_s == pytest.approx(microseconds * 1e-6, rel=0.02)


class Recorded:
    """A clock that plays samples instead of taking them."""

    def __init__(self, samples: dict[str, np.ndarray], launches: int = 1) -> None:
        self.recorded, self.launches = samples, launches
        self.order: list[tuple[str, str]] = []
        self._at: dict[tuple[str, str], int] = {}

    def prepare(self, subject: Subject) -> None:
        pass

    def method(self, subject: Subject, state: str) -> tuple[str, int]:
        return "recorded", self.launches

    def samples(self, subject: Subject, state: str) -> list[float]:
        key = subject.name, state
        self.order.append(key)
        at = self._at.get(key, 0)
        self._at[key] = at + 1
        return [float(self.recorded[subject.name][at])]


def subjects(*names: str) -> list[Subject]:
    return [Subject(name, lambda _: None) for name in names]


def timed(samples: np.ndarray, policy: Policy):
    (by_state,) = measure(subjects("a"), Recorded({"a": samples}), policy, ("hot",))
    return by_state["hot"]


def noise(scatter: float, count: int = 2000) -> np.ndarray:
    rng = np.random.default_rng(5)
    return 1e-3 * np.exp(scatter * rng.standard_normal(count))


def test_steady_samples_settle_and_are_called_stable():
    timing = timed(noise(0.01), Policy(max_seconds=60))
    assert timing.stable
    assert timing.unstable_because == ""
    # Half a second inside samples of a millisecond, and no more than it takes.
    assert 500 <= len(timing.samples_s) <= 700


def test_noise_that_does_not_settle_is_reported_as_unstable():
    timing = timed(noise(0.8), Policy(max_seconds=60, max_samples=1000))
    assert not timing.stable
    assert "wanted 0.5%" in timing.unstable_because
    assert len(timing.samples_s) == 1000


def test_a_clock_that_drops_halfway_is_reported_with_its_two_levels():
    samples = noise(0.002)
    samples[::2] *= 1.3
    timing = timed(samples, Policy(max_seconds=60, max_samples=600))
    assert not timing.stable
    assert "two levels" in timing.unstable_because


def test_ten_samples_are_taken_even_of_what_takes_seconds():
    timing = timed(np.full(100, 2.0), Policy())
    assert len(timing.samples_s) == 10


def test_time_that_is_up_ends_it():
    class Slow(Recorded):
        def samples(self, subject: Subject, state: str) -> list[float]:
            spin_until(0.002)
            return super().samples(subject, state)

    clock = Slow({"a": noise(0.8)})
    (by_state,) = measure(subjects("a"), clock, Policy(max_seconds=0.1), ("hot",))
    assert 10 <= len(by_state["hot"].samples_s) <= 51
    assert not by_state["hot"].stable


def test_subjects_take_turns():
    clock = Recorded({"a": noise(0.01), "b": noise(0.01)})
    measure(subjects("a", "b"), clock, Policy(min_seconds=0.02))
    turn = [("a", "cold"), ("a", "hot"), ("b", "cold"), ("b", "hot")]
    assert clock.order[:8] == turn * 2


def test_a_ratio_comes_from_the_rounds_that_both_took_part_in():
    """The machine slows down in the end, when the one that settled early is no longer sampled."""
    rng = np.random.default_rng(1)
    slow = np.where(np.arange(2000) < 300, 1.0, 3.0)
    machine = slow * np.exp(0.02 * rng.standard_normal(2000))
    clock = Recorded({"a": 1e-3 * machine, "b": 2e-3 * machine})
    policy = Policy(min_samples=300, min_seconds=0.0, target=1.0)
    long = policy._replace(min_samples=900)
    (a,) = measure(subjects("a"), clock, policy, ("hot",))
    (b,) = measure(subjects("b"), clock, long, ("hot",))
    median, low, high = ratio(b["hot"], a["hot"])
    assert low <= 2.0 <= high
    assert median == pytest.approx(2.0, rel=0.01)
    assert b["hot"].median_s / a["hot"].median_s > 5


def test_cold_samples_rotate_the_buffer_sets_and_hot_ones_follow_a_launch_on_theirs():
    launched: list[int] = []

    def launch(number: int) -> None:
        launched.append(number)
        spin_until(5e-3)

    clock = CpuClock()
    subject = Subject("sets", launch, sets=3)
    clock.prepare(subject)
    launched.clear()
    taken = clock.samples(subject, "cold")
    assert launched[: len(taken) + 1] == [0, 1, 2, 0, 1, 2][: len(taken) + 1]
    assert len(taken) > 1  # the first launch of a turn wakes the threads and is not timed
    launched.clear()
    taken = clock.samples(subject, "hot")
    assert launched == [0] * (len(taken) + 1)


def test_a_turn_lets_the_threads_of_others_fall_asleep():
    """A neighbour that spins on for 5 ms after its launch must not meet the next one's samples."""
    busy_until = 0.0

    def neighbour(_: int) -> None:
        nonlocal busy_until
        busy_until = time.perf_counter() + 5e-3

    def sensitive(_: int) -> None:
        spin_until(3e-3 if time.perf_counter() < busy_until else 1e-3)

    pair = [Subject("neighbour", neighbour), Subject("sensitive", sensitive)]
    _, by_state = measure(pair, CpuClock(), Policy(min_seconds=0.02, max_seconds=2.0))
    for timing in by_state.values():
        assert timing.median_s == pytest.approx(1e-3, rel=0.05)


def test_short_launches_share_a_sample():
    clock = CpuClock()
    subject = Subject("nothing", lambda _: None)
    clock.prepare(subject)
    _, launches = clock.method(subject, "hot")
    assert launches > 10
