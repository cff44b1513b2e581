"""Intervals for medians and their ratios, from samples that depend on one another.

Neighbouring samples of a time share the clock, the temperature and whatever else the machine does,
so that a hundred of them say less than a hundred independent ones. An interval that does not know
this is too narrow, and calls a change what is none. Here the interval of a median lies between two
of the sorted samples, whatever their distribution. Which two follows from how much the count of
samples below the median varies over blocks of the series: the blocks grow until they no longer
depend on one another. The ratio's interval is put together from the two medians' by Zou's and
Donner's rule (Statistics in Medicine 27, 2008), in logarithms.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import special

# Blocks grow until there are this many: fewer would say little about how they vary.
LEAST_BLOCKS = 6
ONE_STANDARD_ERROR = 0.6827
# For why_unstable: the halves' medians are so many of their standard errors apart,
DRIFT_ERRORS = 3.0
# two levels each have this share of the samples and are so many times their own scatter apart,
LEVEL_SHARE = 0.1
SEPARATION = 3.0
# and this share of the samples is so many times the scatter above the median.
OUTLIER_SHARE = 0.1
OUTLIER_SCATTERS = 4.0


class _Dependence(NamedTuple):
    """How the samples' signs about the median vary: `inflation` times what independent ones do."""

    inflation: float
    blocks: int
    length: int


def median_interval(samples: np.ndarray, confidence: float = 0.95) -> tuple[float, float, float]:
    """Return a median and an interval for the median of what the samples were drawn from.

    Parameters
    ----------
    samples
        Times above 0, one-dimensional, in the order they were taken.
    confidence
        How often such an interval holds the median, above 0 and below 1.

    Returns
    -------
    median, low, high
        In the samples' unit. Of fewer than about six independent samples no interval has 95 %:
        then it goes from the smallest to the largest.

    Raises
    ------
    ValueError
        No samples, or one that is not a number above 0.
    """
    series = _checked(samples)
    return _median_interval(series, _dependence(series), confidence)


def relative_standard_error(samples: np.ndarray) -> float:
    """Return the standard error of the median over the median; infinite below three samples.

    Half the width of the interval that would be one standard error to either side, were the
    median's error normal. Some 0.1 ms for 1000 samples.

    Raises
    ------
    ValueError
        As for `median_interval`.
    """
    series = _checked(samples)
    if len(series) < 3:
        return math.inf
    median, low, high = median_interval(series, ONE_STANDARD_ERROR)
    return (high - low) / 2 / median


def ratio_interval(
    numerator: np.ndarray, denominator: np.ndarray, paired: bool, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Return the ratio of two medians and its interval.

    Parameters
    ----------
    numerator, denominator
        Times above 0, each in the order taken.
    paired
        The samples were taken in turns, as many of the one as of the other: what struck both is no
        difference between them, and the interval is so much narrower.
    confidence
        As for `median_interval`.

    Raises
    ------
    ValueError
        As for `median_interval`, and pairs that are not as many.
    """
    above, below = _checked(numerator), _checked(denominator)
    correlation = _correlation(above, below) if paired else 0.0
    ends = []
    for series in (above, below):
        ends.append(np.log(_median_interval(series, _dependence(series), confidence)))
    (top, top_low, top_high), (base, base_low, base_high) = ends
    ratio = top - base
    low = ratio - _apart(top - top_low, base_high - base, correlation)
    high = ratio + _apart(top_high - top, base - base_low, correlation)
    return math.exp(ratio), math.exp(low), math.exp(high)


def why_unstable(samples: np.ndarray, target: float) -> str:
    """Return why the standard error is above `target`, with figures; empty where it is not.

    Parameters
    ----------
    samples
        Times above 0, in the order taken.
    target
        The relative standard error that was wanted, 0.005 for half a per cent.

    Raises
    ------
    ValueError
        As for `median_interval`.
    """
    series = _checked(samples)
    error = relative_standard_error(series)
    if error <= target:
        return ""
    said = f"standard error {error:.1%} of the median, wanted {target:.1%}"
    if len(series) < 2 * LEAST_BLOCKS:
        return f"{said}: only {len(series)} samples"
    for cause in (_drift, _two_levels, _outliers):
        if found := cause(series):
            return f"{said}: {found}"
    dependence = _dependence(series)
    if dependence.inflation > 2:
        times = math.sqrt(dependence.inflation)
        return f"{said}: it wanders, {times:.1f} times as much as independent samples would"
    return f"{said}: the samples scatter by {_spread(series) / np.median(series):.1%}"


def _checked(samples: np.ndarray) -> np.ndarray:
    series = np.asarray(samples, np.float64)
    if series.ndim != 1 or not len(series):
        raise ValueError(f"samples have shape {series.shape}; expected one or more in a row")
    if not (series.min() > 0 and math.isfinite(series.max())):
        raise ValueError("a sample is not a number above 0; expected seconds")
    return series


def _signs(series: np.ndarray) -> np.ndarray:
    return np.sign(series - np.median(series))


def _dependence(series: np.ndarray) -> _Dependence:
    """Return how dependent the samples are, by the block length that shows it most.

    The largest of several estimates is a little too large for independent samples, and the interval
    so much too wide. What a clock or a scheduler does lasts longer than the samples did, and would
    still be missed by any estimate without this bias.
    """
    sums = np.concatenate(([0.0], np.cumsum(_signs(series))))
    count = len(series)
    found = _Dependence(1.0, count, 1)
    length = 2
    while count // length >= LEAST_BLOCKS:
        blocks = count // length
        of_blocks = np.diff(sums[: blocks * length + 1 : length])
        # About zero, where the signs add up to it; one degree of freedom went into the median.
        inflation = float(of_blocks @ of_blocks) / length / (blocks - 1)
        if inflation > found.inflation:
            found = _Dependence(inflation, blocks, length)
        length *= 2
    return found


def _median_interval(
    series: np.ndarray, dependence: _Dependence, confidence: float
) -> tuple[float, float, float]:
    ordered = np.sort(series)
    count = len(ordered)
    # The number of samples below the true median has this standard deviation.
    deviation = math.sqrt(count * dependence.inflation) / 2
    half = _quantile(dependence.blocks - 1, confidence) * deviation
    middle = (count - 1) / 2
    ranks = np.clip([middle, middle - half, middle + half], 0, count - 1)
    median, low, high = np.interp(ranks, np.arange(count), ordered)
    return float(median), float(low), float(high)


def _correlation(above: np.ndarray, below: np.ndarray) -> float:
    """Return the correlation of two medians' errors, from pairs taken in turns."""
    if len(above) != len(below):
        raise ValueError(f"{len(above)} samples and {len(below)}: expected pairs, as many of each")
    length = max(_dependence(above).length, _dependence(below).length)
    blocks = len(above) // length
    one, other = (
        _signs(series)[: blocks * length].reshape(blocks, length).sum(axis=1)
        for series in (above, below)
    )
    scale = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / scale if scale else 0.0


def _apart(one: float, other: float, correlation: float) -> float:
    return math.sqrt(max(0.0, one * one + other * other - 2 * correlation * one * other))


@lru_cache(maxsize=4096)  # a stopping rule asks for the same ones over and over
def _quantile(freedom: int, confidence: float) -> float:
    return float(special.stdtrit(max(freedom, 1), (1 + confidence) / 2))


def _spread(series: np.ndarray) -> float:
    """Return what the standard deviation of a normal distribution with these quartiles would be."""
    low, high = np.percentile(series, [25, 75])
    return float(high - low) / 1.349


def _drift(series: np.ndarray) -> str:
    """Compare the halves, with the errors that remain when the trend is taken out."""
    half = len(series) // 2
    logs, at = np.log(series), np.arange(len(series))
    level = np.exp(logs - np.polynomial.Polynomial.fit(at, logs, 1)(at))
    error = math.hypot(relative_standard_error(level[:half]), relative_standard_error(level[half:]))
    change = float(np.median(logs[half:]) - np.median(logs[:half]))
    if abs(change) > DRIFT_ERRORS * error:
        return f"a drift, the second half is {math.expm1(change):+.1%} against the first"
    return ""


def _two_levels(series: np.ndarray) -> str:
    """Split the sorted logarithms in two by Otsu's rule, and say so if there is a gap between."""
    ordered = np.log(np.sort(series))
    count = len(ordered)
    sums, sizes = np.cumsum(ordered)[:-1], np.arange(1, count)
    # Where the two parts scatter least, their means lie furthest apart, weighted by their sizes.
    between = (sums - sizes * ordered.mean()) ** 2 / (sizes * (count - sizes))
    least = math.ceil(LEVEL_SHARE * count)
    at = least + int(np.argmax(between[least - 1 : count - least]))
    below, above = ordered[:at], ordered[at:]
    gap = float(np.median(above) - np.median(below))
    empty = above[0] - below[-1] > gap / 4
    if empty and gap > SEPARATION * max(_spread(below), _spread(above)):
        return (
            f"two levels, the upper {math.exp(gap):.2f} times the lower, with "
            f"{1 - at / count:.0%} of the samples"
        )
    return ""


def _outliers(series: np.ndarray) -> str:
    far = series > np.median(series) + OUTLIER_SCATTERS * _spread(series)
    if np.mean(far) > OUTLIER_SHARE:
        return f"outliers, {np.mean(far):.0%} of the samples are far above the rest"
    return ""
