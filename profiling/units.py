"""Quantities as a person reads them: three digits and the unit that fits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from profiling.result_file import Timing

_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
_RATES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))


def digits(value: float) -> str:
    """Return a number with three significant digits, never as a power of ten."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    rounded = float(f"{value:.2e}")
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(abs(rounded))))}f}"


def seconds(value: float) -> str:
    """Return a time: 0.0000123 is ``"12.3 µs"``."""
    return _scaled(value, _TIMES, "")


def interval(timing: Timing) -> str:
    """Return the 95 % interval of a timing, in the unit of its median: ``"12.1 to 12.6 µs"``."""
    scale, unit = _fitting(timing.median_s, _TIMES)
    return f"{digits(timing.low_s / scale)} to {digits(timing.high_s / scale)} {unit}"


def rate(value: float, unit: str) -> str:
    """Return a rate or a size with an SI prefix: 1.23e12, ``"FLOP/s"`` is ``"1.23 TFLOP/s"``."""
    return _scaled(value, _RATES, unit)


def rates(values: Sequence[float], unit: str) -> str:
    """Return what several devices reach, from the least to the most, if they can be told apart."""
    low, high = rate(min(values), unit), rate(max(values), unit)
    return low if low == high else f"{low} to {high}"


def share(value: float) -> str:
    """Return a share in per cent: 0.382 is ``"38 %"``, 0.0041 is ``"0.41 %"``."""
    per_cent = 100 * value
    return f"{per_cent:.0f} %" if per_cent >= 10 or per_cent == 0 else f"{per_cent:.2g} %"


def tick(value: float, unit: str = "") -> str:
    """Return a round number for an axis, with its SI prefix: 3e-5, ``"s"`` is ``"30 µs"``."""
    scale, prefix = _fitting(value, _TIMES if unit == "s" else _RATES)
    prefix = prefix if unit == "s" else prefix + unit
    return f"{value / scale:.12g} {prefix}".rstrip()


def _fitting(value: float, scales: tuple[tuple[float, str], ...]) -> tuple[float, str]:
    rounded = float(f"{value:.2e}")
    return next((pair for pair in scales if rounded >= pair[0]), scales[-1])


def _scaled(value: float, scales: tuple[tuple[float, str], ...], unit: str) -> str:
    scale, prefix = _fitting(value, scales)
    return f"{digits(value / scale)} {prefix}{unit}"
