"""How a kernel or a peer looks in every chart, and what its point says when pointed at.

Colours are told apart with every kind of colour vision, and symbols repeat what they say. One
colour is kept for warnings: a ring for what is not stable, a cross for what is impossible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from plotly import graph_objects as go

from kernels import table
from profiling import roofline, units
from profiling.result_file import Row, Timing
from profiling.series import Series, timings

# Okabe and Ito's colours but black, yellow (pale on white) and vermilion, which warns.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8F6B2F")
GREY = "#7A8087"
WARNING = "#D55E00"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "star", "hexagon")
DASHES = ("dash", "dot", "dashdot", "longdash")


def look(row: Row, peers: Sequence[str]) -> dict[str, Any]:
    """Return the marker and line of a row: a technique's colour, a peer's grey.

    A translation (``tiled_numba``) has the colour of what it translates, with open symbols.

    Parameters
    ----------
    row
        The row.
    peers
        Names of all peers of the chart.
    """
    if row.kind == "peer":
        i = peers.index(row.name)
        return {
            "marker": {"color": GREY, "symbol": SYMBOLS[i % len(SYMBOLS)] + "-open", "size": 8},
            "line": {"color": GREY, "dash": DASHES[i % len(DASHES)], "width": 2},
        }
    technique = row.name.removesuffix("_numba")
    names = [name for name in table.names(row.operation) if not name.endswith("_numba")]
    names = [name for name in names if name != "reference"]
    i = names.index(technique) if technique in names else sum(map(ord, technique))
    colour, symbol = COLOURS[i % len(COLOURS)], SYMBOLS[i % len(SYMBOLS)]
    translated = technique != row.name
    return {
        "marker": {"color": colour, "symbol": symbol + "-open" * translated, "size": 9},
        "line": {"color": colour, "dash": "dot" if translated else "solid", "width": 2},
    }


def named(files: Sequence[Series], name: str, file: Series) -> str:
    """Return a kernel's name, with its file's where there are several, in Plotly's HTML."""
    return escape(f"{name}, {file.name}" if len(files) > 1 else name)


def interval(points: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return Plotly's error bars for (middle, low, high)."""
    return {
        "type": "data", "symmetric": False, "thickness": 1.5, "width": 3,
        "array": [high - middle for middle, _, high in points],
        "arrayminus": [middle - low for middle, low, _ in points],
    }  # fmt: skip


def says(files: Sequence[Series], file: Series, row: Row, state: str) -> str:
    """Return what a point says when pointed at, in Plotly's HTML."""
    timing = dict(timings(row))[state]
    at = roofline.standing(row, timing, file.results.ceilings(row), cold=state == "cold")
    lines = [
        f"<b>{escape(row.name)}</b> {escape(row.label)}",
        f"{row.direction}, {state}, {escape(row.precision)}",
        f"<b>{units.seconds(timing.median_s)}</b> (95 %: {units.interval(timing)})",
        f"{units.rate(at.flops_per_s, 'FLOP/s')}, {units.share(at.of_gemm)} of the GEMM ceiling",
        f"{units.rate(at.bytes_per_s, 'B/s')}, {units.share(at.of_copy)} of the copy ceiling",
        verdict(row, at, timing),
    ]
    if "n" in row.shape and row.shape["n"] > 1:
        lines.insert(3, f"{units.seconds(timing.median_s / row.shape['n'])} an image")
    if len(files) > 1:
        lines.append(escape(file.name))
    if device := file.results.device(row):
        lines.append(escape(device.name))
    if not timing.stable:
        lines.append(f"<b>not stable</b>: {_wrapped(timing.unstable_because)}")
    if at.impossible:
        lines.append(f"<b>impossible</b>: {_wrapped(at.impossible)}")
    return "<br>".join(line for line in lines if line)


def verdict(row: Row, at: roofline.Standing, timing: Timing) -> str:
    """Return what bounds a row, and how near its floor it is; of a peer only a launch is known."""
    if row.kind == "peer":
        return "launch-bound" if at.bound == "launch" else ""
    return f"{at.bound}-bound, the floor is {units.share(at.floor_s / timing.median_s)}"


def warnings(
    points: Sequence[tuple[Any, Any, Series, Row, str]],
) -> list[go.Scatter]:
    """Return the rings and crosses over a chart's doubtful points; one trace of each, if any.

    Parameters
    ----------
    points
        x, y, and whose: the file, the row and the state.
    """
    ring = {"symbol": "circle-open", "size": 17, "color": WARNING, "line": {"width": 2.5}}
    cross = {"symbol": "x-thin", "size": 17, "line": {"width": 4, "color": WARNING}}
    unstable = [(x, y) for x, y, _, row, state in points if not is_stable(row, state)]
    impossible = [(x, y) for x, y, file, row, state in points if is_impossible(file, row, state)]
    return [
        go.Scatter(
            x=[x for x, _ in marked], y=[y for _, y in marked], mode="markers", name=name,
            marker=marker, hoverinfo="skip",
        )
        for name, marker, marked in (
            ("not stable", ring, unstable), ("impossible", cross, impossible),
        )
        if marked
    ]  # fmt: skip


def is_stable(row: Row, state: str) -> bool:
    """Tell whether one of a row's timings met its stopping rule."""
    return dict(timings(row))[state].stable


def is_impossible(file: Series, row: Row, state: str) -> bool:
    """Tell whether one of a row's timings is below what the hardware can do."""
    timing = dict(timings(row))[state]
    return bool(
        roofline.standing(row, timing, file.results.ceilings(row), cold=state == "cold").impossible
    )


def log_axis(
    values: Sequence[float], write: Callable[[float], str], *, margin: float = 1.25, most: int = 5
) -> dict[str, Any]:
    """Return a logarithmic axis around some values, with few ticks.

    Parameters
    ----------
    values
        What is drawn.
    write
        Writes a tick.
    margin
        Factor that is left free at both ends.
    most
        Ticks at most.
    """
    low, high = min(values) / margin, max(values) * margin
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    fine = (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.7, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9)
    for steps in (fine, (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        ticks = [float(f"{step}e{d}") for d in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    ticks = ticks[:: -(-len(ticks) // most) or 1]
    return {
        "type": "log", "range": [math.log10(low), math.log10(high)],
        "tickvals": ticks, "ticktext": [write(tick) for tick in ticks],
    }  # fmt: skip


def _wrapped(text: str, width: int = 45) -> str:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return "<br>".join(map(escape, lines))
