"""Intervals are judged by how often they hold the truth, which a simulation knows."""

import re
import time

import numpy as np
import pytest
from scipy.signal import lfilter

from profiling import intervals

TRIALS = 400
# A true 95 % falls below this in 400 trials less than once in 10,000.
HELD = 0.905


def autoregressive(rng, count, rho):
    """Unit variance, each sample `rho` times the one before and something new."""
    new = rng.standard_normal(count + 100) * np.sqrt(1 - rho * rho)
    return lfilter([1.0], [1.0, -rho], new)[100:]


SERIES = {  # what draws the samples, and the median of what they are drawn from
    "normal": (lambda rng, n: 1 + 0.05 * rng.standard_normal(n), 1.0),
    "lognormal": (lambda rng, n: np.exp(0.5 * rng.standard_normal(n)), 1.0),
    "exponential": (lambda rng, n: 1 + rng.exponential(size=n), 1 + np.log(2)),
    "neighbours depend": (lambda rng, n: 1 + 0.03 * autoregressive(rng, n, 0.6), 1.0),
    "neighbours depend, and a drift": (
        lambda rng, n: 1 + 0.03 * autoregressive(rng, n, 0.6) + np.linspace(-0.02, 0.02, n),
        1.0,
    ),
}


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("count", [80, 400])
def test_the_interval_of_the_median_holds_it(name, count):
    draw, true = SERIES[name]
    rng = np.random.default_rng(count)
    found = [intervals.median_interval(draw(rng, count)) for _ in range(TRIALS)]
    assert np.mean([low <= true <= high for _, low, high in found]) >= HELD


@pytest.mark.parametrize("name", SERIES)
def test_the_interval_of_the_ratio_holds_it(name):
    draw, _ = SERIES[name]
    rng = np.random.default_rng(2)
    found = [
        intervals.ratio_interval(1.1 * draw(rng, 150), draw(rng, 200), paired=False)
        for _ in range(TRIALS)
    ]
    assert np.mean([low <= 1.1 <= high for _, low, high in found]) >= HELD


def test_intervals_are_not_wide_for_nothing():
    rng = np.random.default_rng(3)
    widths = []
    for _ in range(200):
        _, low, high = intervals.median_interval(1 + 0.05 * rng.standard_normal(200))
        widths.append(high - low)
    ideal = 2 * 1.96 * 0.05 * np.sqrt(np.pi / 2 / 200)  # were the distribution known
    assert np.median(widths) < 1.4 * ideal


def test_one_that_takes_the_samples_for_independent_fails_the_same_simulation():
    """The simulation can tell: the usual order-statistics interval is too narrow for it."""
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(TRIALS):
        ordered = np.sort(1 + 0.03 * autoregressive(rng, 400, 0.6))
        half = int(np.ceil(1.96 * np.sqrt(400) / 2))
        held += ordered[199 - half] <= 1 <= ordered[200 + half]
    assert held / TRIALS < HELD


@pytest.mark.parametrize("shared", ["a drift", "a wandering clock"])
def test_what_strikes_both_of_a_pair_cancels(shared):
    rng = np.random.default_rng(5)
    trials, held, narrower = 200, 0, 0
    for _ in range(trials):
        if shared == "a drift":
            both = np.linspace(0.8, 1.2, 200)
        else:
            both = np.exp(0.1 * autoregressive(rng, 200, 0.9))
        one, other = (both * (1 + 0.005 * rng.standard_normal(200)) for _ in range(2))
        ratio, low, high = intervals.ratio_interval(1.02 * one, other, paired=True)
        _, far_low, far_high = intervals.ratio_interval(1.02 * one, other, paired=False)
        held += low <= 1.02 <= high
        narrower += (high - low) < (far_high - far_low) / 2
        assert low <= ratio <= high
    assert held / trials >= 0.88
    assert narrower == trials


def test_the_standard_error_is_the_medians():
    rng = np.random.default_rng(6)
    runs = 3 * np.exp(0.2 * rng.standard_normal((600, 300)))
    true = np.std(np.median(runs, axis=1)) / 3
    said = np.median([intervals.relative_standard_error(run) for run in runs])
    assert true < said < 1.5 * true


def test_the_standard_error_is_cheap():
    samples = np.exp(np.random.default_rng(7).standard_normal(2000))
    times = []
    for _ in range(50):
        begin = time.perf_counter()
        intervals.relative_standard_error(samples)
        times.append(time.perf_counter() - begin)
    assert min(times) < 1e-3


def test_few_samples():
    assert intervals.relative_standard_error(np.array([1.0, 2.0])) == np.inf
    assert intervals.median_interval(np.array([3.0, 1.0, 2.0])) == (2.0, 1.0, 3.0)
    assert intervals.median_interval(np.array([2.0])) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("samples", [[], [[1.0]], [1.0, 0.0], [1.0, -1.0], [np.nan], [np.inf]])
def test_what_is_no_time_is_refused(samples):
    with pytest.raises(ValueError, match="expected"):
        intervals.median_interval(np.array(samples))


def test_pairs_must_be_as_many():
    with pytest.raises(ValueError, match="3 samples and 2: expected pairs"):
        intervals.ratio_interval(np.ones(3), np.ones(2), paired=True)


NOISE = 1 + 0.01 * np.random.default_rng(8).standard_normal(200)


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (NOISE, ""),
        (NOISE[:9] ** 20, "only 9 samples"),
        (NOISE**20, "the samples scatter by 2"),
        (NOISE * np.linspace(0.9, 1.1, 200), r"a drift, the second half is \+1[01].\d% against"),
        (NOISE * np.where(np.arange(200) % 2, 1.0, 1.4), "two levels, the upper 1.40 times"),
        (
            1 + 0.1 * autoregressive(np.random.default_rng(9), 400, 0.9),
            r"it wanders, \d.\d times as much",
        ),
        (
            NOISE**20 * np.where(np.arange(200) % 5, 1.0, np.linspace(1, 9, 200)[::-1]),
            r"outliers, 1\d% of the samples",
        ),
    ],
)
def test_why_unstable(samples, reason):
    said = intervals.why_unstable(samples, 0.002)
    if not reason:
        assert said == ""
        return
    assert re.search(reason, said), said
    assert "wanted 0.2%" in said
