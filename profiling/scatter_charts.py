"""Charts over a quantity: the roofline over intensity, and an image's time over the batch."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from plotly import graph_objects as go

from profiling import looks, units
from profiling.result_file import Ceilings, Row
from profiling.series import Pass, Series, Sweep, ladder_order, main_timing, timings

LARGEST_PX, SMALLER_PX = 12, 7


def roofline(file: Series, which: Pass) -> go.Figure:
    """Return the measured roof of a file's device, or of each, and the rows under it."""
    roofs = [device.ceilings for device, _ in file.devices] or [file.header.ceilings]
    rows = [row for row in file.timed(which) if row.flops and row.least_bytes]  # not empty ones
    intensities = [*(roof.gemm / roof.copy for roof in roofs), *(_intensity(row) for row in rows)]
    span = [min(intensities) / 3, max(intensities) * 3]
    fig = go.Figure(_roof(roofs, span))
    peers = _peers([file], which)
    largest: dict[str, int] = {}
    for row in rows:
        largest[row.group] = max(largest.get(row.group, 0), row.least_bytes)
    marked = []
    hot: list[dict[str, Any]] = []
    for name in _names(rows):
        mine = [row for row in rows if row.name == name]
        look = looks.look(mine[0], peers)["marker"]
        points = [
            {
                "x": _intensity(row), "y": row.flops / timing.median_s, "state": state, "row": row,
                "size": LARGEST_PX if row.least_bytes == largest[row.group] else SMALLER_PX,
                "color": look["color"], "symbol": look["symbol"],
                "text": looks.says([file], file, row, state),
            }
            for row in mine
            for state, timing in timings(row)
        ]  # fmt: skip
        main = [p for p in points if p["state"] == main_timing(p["row"])[0]]
        hot += [p for p in points if p not in main]
        marked += [(p["x"], p["y"], file, p["row"], p["state"]) for p in main]
        fig.add_trace(_points(main, escape(name)))
    if hot:
        fig.add_trace(_points(hot, "all, hot").update(visible="legendonly"))
    fig.add_traces(looks.warnings(marked))
    heights = [y for _, y, *_ in marked] + [roof.peak or roof.gemm for roof in roofs]
    fig.update_xaxes(title="FLOP a byte", **looks.log_axis(span, "{:g}".format, margin=1))
    fig.update_yaxes(
        title="FLOP/s", **looks.log_axis([min(heights) / 2, max(heights) * 1.5], units.tick, most=7)
    )
    fig.update_layout(height=_height(fig))
    return fig


def against_batch(files: Sequence[Series], which: Pass, sweep: Sweep) -> go.Figure | None:
    """Return the time an image against the batch; None where there is one batch alone."""
    rows = {file.name: sweep.rows(file, which) for file in files}
    batches = sorted({row.shape["n"] for mine in rows.values() for row in mine})
    if len(batches) < 2:
        return None
    fig = go.Figure()
    peers = _peers(files, which)
    marked: list[tuple[Any, ...]] = []
    for i, file in enumerate(files):
        for name in _names(rows[file.name]):
            mine = [row for row in rows[file.name] if row.name == name]
            times = []
            for row in mine:
                state, timing = main_timing(row)
                n = row.shape["n"]
                times.append((timing.median_s / n, timing.low_s / n, timing.high_s / n))
                marked.append((n, timing.median_s / n, file, row, state))
            fig.add_scatter(
                x=[row.shape["n"] for row in mine], y=[middle for middle, *_ in times],
                error_y=looks.interval(times), mode="lines+markers",
                name=looks.named(files, name, file), **_thinner(looks.look(mine[0], peers), i),
                hovertext=[looks.says(files, file, r, main_timing(r)[0]) for r in mine],
                hoverinfo="text",
            )  # fmt: skip
    fig.add_traces(looks.warnings(marked))
    times_an_image = [y for _, y, *_ in marked]
    fig.update_xaxes(title="images in a batch, N", **looks.log_axis(batches, str))
    fig.update_xaxes(tickvals=batches, ticktext=[*map(str, batches)])
    fig.update_yaxes(
        title="time an image", **looks.log_axis(times_an_image, lambda t: units.tick(t, "s"))
    )
    fig.update_layout(height=_height(fig))
    return fig


def _roof(roofs: Sequence[Ceilings], span: list[float]) -> list[go.Scatter]:
    """Return a line for each device, of one model; the legend has one entry for all of them."""
    copy = units.rates([roof.copy for roof in roofs], "B/s")
    gemm = units.rates([roof.gemm for roof in roofs], "FLOP/s")
    of = f", {len(roofs)} devices" if len(roofs) > 1 else ""
    lines = [
        go.Scatter(
            x=[span[0], roof.gemm / roof.copy, span[1]],
            y=[roof.copy * span[0], roof.gemm, roof.gemm],
            mode="lines", line={"color": looks.GREY, "width": 3}, hoverinfo="skip",
            name=f"{copy}, {gemm} measured{of}", legendgroup="roofs", showlegend=i == 0,
        )
        for i, roof in enumerate(roofs)
    ]  # fmt: skip
    limit = max((roof.peak for roof in roofs if roof.peak is not None), default=None)
    if limit is None:
        return lines
    peak = go.Scatter(
        x=span, y=[limit] * 2, mode="lines", hoverinfo="skip",
        line={"color": looks.GREY, "width": 2, "dash": "dot"},
        name=f"{units.rate(limit, 'FLOP/s')} hardware limit",
    )  # fmt: skip
    return [*lines, peak]


def _points(points: list[dict[str, Any]], name: str) -> go.Scatter:
    def column(key: str) -> list[Any]:
        return [point[key] for point in points]

    # Plotly outlines points of unlike sizes in white, and makes them pale, unless told.
    marker: dict[str, Any] = {name: column(name) for name in ("size", "color", "symbol")}
    marker |= {"opacity": 1, "line": {"width": 1, "color": column("color")}}
    return go.Scatter(
        x=column("x"), y=column("y"), mode="markers", name=name, marker=marker,
        hovertext=column("text"), hoverinfo="text",
    )  # fmt: skip


def _thinner(look: dict[str, Any], file: int) -> dict[str, Any]:
    """Return the look of a file after the first: thin lines, small and pale points."""
    if file == 0:
        return look
    marker, line = {**look["marker"], "size": 6}, {**look["line"], "width": 1}
    return {"marker": marker, "line": line, "opacity": 0.7}


def _height(fig: go.Figure) -> int:
    """Return a height that leaves room for the legend, which is a column on a phone."""
    return 380 + 18 * len(fig.data)


def _intensity(row: Row) -> float:
    return row.flops / row.least_bytes


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.name for row in sorted(rows, key=ladder_order)))


def _peers(files: Sequence[Series], which: Pass) -> list[str]:
    return sorted({r.name for file in files for r in file.timed(which) if r.kind == "peer"})
