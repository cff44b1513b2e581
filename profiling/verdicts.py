"""Whether times changed between runs: ratios, their intervals, and a verdict on every row.

Four things make two runs of the same code differ, and each has its part in the interval:

- within a run the samples scatter and depend on one another: `profiling.intervals`;
- two runs differ by more than that: another place in memory, another clock, another neighbour on
  the machine. Of several runs a side this is seen in the row itself. Of one run a side it is taken
  from how much the ratios of the other rows scatter, as far as their own samples do not explain it;
- a row that did not settle may end as far from itself in another run as its quarters are from one
  another;
- of many rows some differ by chance: the share of false ones among the verdicts is held down over
  all rows together (Benjamini and Hochberg, 1995).

What moves all rows of a single run alike cannot be told from a change of all kernels.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from profiling import intervals

CONFIDENCE = 0.95
FALSE_DISCOVERIES = 0.05
# Of one other row there is no scatter to see.
LEAST_OTHERS = 2
# A scatter of the others that the samples alone would show so often is taken for theirs.
BY_CHANCE = 0.05
# The smallest and the largest of fewer samples hold the median less than 95 times in 100.
LEAST_SAMPLES = 6
# A within-run interval rests on six blocks at least, and mostly on more.
WITHIN_FREEDOM = 10
QUARTERS = 4
QUARTERS_FREEDOM = 2 * (QUARTERS - 1)  # of both sides together


class Measured(NamedTuple):
    """One row's samples.

    Attributes
    ----------
    before, after
        Seconds, in the order taken, one array for every run of the side.
    unstable
        Whether the benchmark could not settle one of them.
    """

    before: list[np.ndarray]
    after: list[np.ndarray]
    unstable: bool = False


class Change(NamedTuple):
    """What became of a row.

    Attributes
    ----------
    before_s, after_s
        Medians; of several runs their geometric mean.
    ratio, low, high
        After over before, and its 95 % interval.
    p
        How often chance alone would show such a ratio if the true one were within `smallest`.
    verdict
        ``"same"`` unless the interval lies beyond the smallest difference that matters, and goes
        on doing so when all rows are judged together.
    few
        Too few samples for a verdict.
    """

    before_s: float
    after_s: float
    ratio: float
    low: float
    high: float
    p: float
    verdict: Literal["faster", "slower", "same"]
    few: bool


def judge(rows: list[Measured], smallest: float) -> list[Change]:
    """Return what became of each row.

    Parameters
    ----------
    rows
        Every row that is compared: they are judged together.
    smallest
        Relative differences up to this one do not matter, 0.005 for half a per cent.

    Raises
    ------
    ValueError
        Samples that are no times.
    """
    ratios = np.array([_log_ratio(row) for row in rows])
    within = np.array([_within(row) for row in rows]).reshape(-1, 2)
    margin = math.log1p(smallest)
    found = []
    for i, (row, ratio) in enumerate(zip(rows, ratios, strict=True)):
        if len(row.before) + len(row.after) > 2:
            between, freedom = _between_runs(row)
            down, up = np.maximum(within[i], between)  # the runs' scatter has the samples' in it
        else:
            between, freedom = _between_rows(np.delete(ratios, i), np.delete(within, i, axis=0))
            down, up = np.hypot(within[i], between)
        if row.unstable and (quarters := _between_quarters(row)) > min(down, up):
            down, up = max(down, quarters), max(up, quarters)
            between, freedom = quarters, QUARTERS_FREEDOM
        few = min(map(len, row.before + row.after)) < LEAST_SAMPLES
        p = _chance(abs(ratio) - margin, down if ratio > 0 else up, between, freedom)
        levels = _level(row.before), _level(row.after)
        ends = math.exp(ratio), math.exp(ratio - down), math.exp(ratio + up)
        found.append(Change(*levels, *ends, 1.0 if few else p, "same", few))
    limit = _discovery_limit([change.p for change in found])
    return [
        change._replace(verdict="slower" if change.ratio > 1 else "faster")
        if change.p <= limit
        else change
        for change in found
    ]


def geometric_mean(rows: list[Measured], changes: list[Change]) -> tuple[float, float, float]:
    """Return the geometric mean of some rows' ratios and its 95 % interval.

    The rows are what they are, no sample of all shapes: the interval is of their mean alone. Of
    several runs a side it comes from the runs' own means, and knows what moves all rows of a run.

    Parameters
    ----------
    rows, changes
        What `judge` took and gave.
    """
    mean = float(np.mean([math.log(change.ratio) for change in changes]))
    sides = [[row.before for row in rows], [row.after for row in rows]]
    runs = [{len(side) for side in both} for both in sides]
    if all(len(count) == 1 for count in runs) and sum(count.pop() for count in runs) > 2:
        half = _of_runs(*(_run_levels(side) for side in sides))[0]
        return math.exp(mean), math.exp(mean - half), math.exp(mean + half)
    down = math.hypot(*(math.log(c.ratio / c.low) for c in changes)) / len(changes)
    up = math.hypot(*(math.log(c.high / c.ratio) for c in changes)) / len(changes)
    return math.exp(mean), math.exp(mean - down), math.exp(mean + up)


def _level(runs: list[np.ndarray]) -> float:
    return math.exp(float(np.mean([math.log(np.median(run)) for run in runs])))


def _log_ratio(row: Measured) -> float:
    return math.log(_level(row.after) / _level(row.before))


def _run_levels(side: list[list[np.ndarray]]) -> np.ndarray:
    """Return the mean log median of each run over some rows."""
    return np.log([[np.median(run) for run in runs] for runs in side]).mean(axis=0)


def _within(row: Measured) -> tuple[float, float]:
    """Return how far the interval of the log ratio goes down and up by the samples alone."""
    ends = []
    for runs in (row.before, row.after):
        found = np.log([intervals.median_interval(run, CONFIDENCE) for run in runs])
        apart = np.abs(found[:, 1:] - found[:, :1])
        ends.append(np.sqrt((apart**2).sum(axis=0)) / len(runs))
    before, after = ends
    return math.hypot(after[0], before[1]), math.hypot(after[1], before[0])


def _between_runs(row: Measured) -> tuple[float, int]:
    """Return half the interval by the scatter of the row's runs, and its degrees of freedom."""
    return _of_runs(*(np.log([np.median(run) for run in runs]) for runs in (row.before, row.after)))


def _of_runs(before: np.ndarray, after: np.ndarray) -> tuple[float, int]:
    """Return half the interval of a difference of means of runs, scattering alike (Student)."""
    freedom = len(before) + len(after) - 2
    squares = sum(float(((side - side.mean()) ** 2).sum()) for side in (before, after))
    error = math.sqrt(squares / freedom * (1 / len(before) + 1 / len(after)))
    return _quantile(freedom) * error, freedom


def _between_rows(others: np.ndarray, within: np.ndarray) -> tuple[float, int]:
    """Return half the interval by what the other rows' ratios scatter beyond their own errors.

    The scatter is taken from the median of the distances to the median, so that a few rows that
    did change do not hide the next. Where the samples may well explain all of it, it is not used:
    Student's factor for so few rows would make much of nothing.
    """
    if len(others) < LEAST_OTHERS:
        return 0.0, WITHIN_FREEDOM
    freedom = len(others) - 1
    distances = np.abs(others - np.median(others))
    scatter = 1.4826 * float(np.median(distances)) * len(others) / (len(others) - 0.8)
    explained = float(np.median(within.mean(axis=1))) / _quantile(WITHIN_FREEDOM)
    if scatter**2 <= explained**2 * special.chdtri(freedom, BY_CHANCE) / freedom:
        return 0.0, WITHIN_FREEDOM
    return _quantile(freedom) * math.sqrt(scatter**2 - explained**2), freedom


def _between_quarters(row: Measured) -> float:
    """Return half the interval, were another run as unlike this one as its quarters are unlike."""
    variance = 0.0
    for runs in (row.before, row.after):
        of_run = [
            np.var(
                [math.log(np.median(q)) for q in np.array_split(run, QUARTERS) if len(q)], ddof=1
            )
            for run in runs
            if len(run) > 1
        ]
        variance += float(np.mean(of_run)) if of_run else 0.0
    return _quantile(QUARTERS_FREEDOM) * math.sqrt(variance)


def _chance(beyond: float, half: float, between: float, freedom: int) -> float:
    """Return the two-sided p-value of a log ratio that is `beyond` the margin."""
    if beyond <= 0:
        return 1.0
    if half == 0:
        return 0.0
    # Welch and Satterthwaite: the freedom of a sum of two variances, the runs' and the samples'.
    share = min(1.0, (between / half) ** 2)
    together = 1 / (share**2 / freedom + (1 - share) ** 2 / WITHIN_FREEDOM)
    return float(2 * special.stdtr(together, -beyond / half * _quantile(together)))


def _discovery_limit(p_values: list[float]) -> float:
    """Return up to which p-value a row is different (Benjamini and Hochberg); -1 for none."""
    limit = -1.0
    for rank, p in enumerate(sorted(p_values), 1):
        if p <= FALSE_DISCOVERIES * rank / len(p_values):
            limit = p
    return limit


def _quantile(freedom: float) -> float:
    return float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))
