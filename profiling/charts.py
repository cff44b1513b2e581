"""The report's charts: Plotly figures out of result files, one pass at a time."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from plotly import graph_objects as go
from plotly.subplots import make_subplots

from profiling import looks, roofline, units
from profiling.result_file import Row
from profiling.series import (
    FIRST_RUNG,
    Block,
    Pass,
    Series,
    both_ends,
    ladder_order,
    largest,
    main_timing,
    timings,
)

ROW_PX = 26


def ladder(files: Sequence[Series], which: Pass) -> tuple[go.Figure, list[str]]:
    """Return each kernel's ratio to the peers, and its share of the floor.

    Returns
    -------
    figure, labels
        The shapes where no peer was timed: there the ratio is to the first rung or the slowest.
    """
    blocks = [_kernels_alone(block) for block in largest(files, which)]
    places, heads = _lines(blocks)
    fig = make_subplots(1, 2, shared_yaxes=True, column_widths=[0.64, 0.36], horizontal_spacing=0.04)
    ratios: dict[str, list[tuple[Any, ...]]] = {}
    alone = []
    for block in blocks:
        timed = [(file, row) for file, row in block.entries if row.status == "timed"]
        for file, row in timed:
            state, timing = main_timing(row)
            found = [ratio for ratio in row.ratios if ratio.state == state]
            for ratio in found:
                point = ratio.median, ratio.low, ratio.high
                ratios.setdefault(ratio.peer, []).append((*point, file, row))
            if not found:
                base = _base(file, timed)
                r = main_timing(base)[1].median_s / timing.median_s
                ratios.setdefault(f"{base.name} (no peer)", []).append((r, r, r, file, row))
                alone.append(block.label)
    for i, (peer, points) in enumerate(ratios.items()):
        fig.add_trace(_ratio_trace(files, peer, points, i, places))
    for trace in looks.warnings(
        [(r, places[id(row)], file, row, main_timing(row)[0])
         for points in ratios.values() for r, _, _, file, row in points]
    ):  # fmt: skip
        fig.add_trace(trace)
    fig.add_trace(_floor_bars(files, blocks, places), 1, 2)
    ends = [end for points in ratios.values() for point in points for end in point[:3]]
    fig.update_xaxes(title="the other's time / ours", **looks.log_axis([*ends, 1], 6), col=1)
    fig.update_xaxes(title="floor / time", tickformat=".0%", rangemode="tozero", nticks=4, col=2)
    fig.add_vline(1, line={"color": looks.GREY, "width": 2}, col=1)
    _label_lines(fig, blocks, places, heads, files)
    return fig, list(dict.fromkeys(alone))


def cold_and_hot(files: Sequence[Series], which: Pass) -> go.Figure:
    """Return each row's cold and hot time, joined by a line."""
    blocks = both_ends(files, which)
    places, heads = _lines(blocks)
    entries = [e for block in blocks for e in block.entries if e[1].status == "timed"]
    fig = go.Figure()
    joined: dict[str, list[Any]] = {"x": [], "y": []}
    for _, row in entries:
        joined["x"] += [timing.median_s for _, timing in timings(row)] + [None]
        joined["y"] += [places[id(row)]] * len(timings(row)) + [None]
    line = {"color": looks.GREY, "width": 2}
    fig.add_scatter(**joined, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    marked = []
    for i, state in enumerate(("cold", "hot")):
        points = [(dict(timings(r))[state], f, r) for f, r in entries if state in dict(timings(r))]
        fig.add_scatter(
            x=[timing.median_s for timing, _, _ in points],
            y=[places[id(row)] for _, _, row in points],
            mode="markers", name=state,
            marker={"color": looks.COLOURS[i], "symbol": looks.SYMBOLS[i], "size": 10},
            hovertext=[_says(files, f, r, state) for _, f, r in points], hoverinfo="text",
        )  # fmt: skip
        marked += [(t.median_s, places[id(row)], f, row, state) for t, f, row in points]
    fig.add_traces(looks.warnings(marked))
    fig.update_xaxes(
        title="time of a launch", ticksuffix="s", tickformat="~s",
        **looks.log_axis([x for x, *_ in marked]),
    )  # fmt: skip
    _label_lines(fig, blocks, places, heads, files)
    return fig


def roofline_of(file: Series, which: Pass) -> go.Figure:
    """Return the measured roof of a file's device, and the rows under it."""
    ceilings, rows = file.header.ceilings, file.timed(which)
    intensities = [row.flops / row.least_bytes for row in rows]
    ridge = ceilings.gemm / ceilings.copy
    span = [min([*intensities, ridge]) / 3, max([*intensities, ridge]) * 3]
    fig = go.Figure()
    fig.add_scatter(
        x=[span[0], ridge, span[1]], y=[ceilings.copy * span[0], ceilings.gemm, ceilings.gemm],
        mode="lines", line={"color": looks.GREY, "width": 3}, hoverinfo="skip",
        name=f"measured: copy {units.rate(ceilings.copy, 'B/s')}, "
        f"GEMM {units.rate(ceilings.gemm, 'FLOP/s')}",
    )  # fmt: skip
    if ceilings.peak:
        fig.add_scatter(
            x=span, y=[ceilings.peak] * 2, mode="lines", hoverinfo="skip",
            line={"color": looks.GREY, "width": 2, "dash": "dot"},
            name=f"data sheet: {units.rate(ceilings.peak, 'FLOP/s')}",
        )  # fmt: skip
    peers = _peers([file], which)
    marked = []
    for name in _names([file], which):
        for state in ("cold", "hot"):
            mine = [r for r in rows if r.name == name and state in dict(timings(r))]
            if not mine:
                continue
            points = [
                (row.flops / row.least_bytes, row.flops / dict(timings(row))[state].median_s)
                for row in mine
            ]
            main = state == main_timing(mine[0])[0]
            fig.add_scatter(
                x=[x for x, _ in points], y=[y for _, y in points], mode="markers",
                name=f"{escape(name)}{'' if main else ', ' + state}",
                marker=looks.look(mine[0], peers)["marker"],
                hovertext=[_says([file], file, row, state) for row in mine], hoverinfo="text",
                visible=True if main else "legendonly",
            )  # fmt: skip
            if main:
                marked += [
                    (x, y, file, row, state) for (x, y), row in zip(points, mine, strict=True)
                ]
    fig.add_traces(looks.warnings(marked))
    heights = [y for _, y, *_ in marked] + [ceilings.peak or ceilings.gemm]
    fig.update_xaxes(title="FLOP a byte that must move", **looks.log_axis(span))
    fig.update_yaxes(
        title="FLOP/s", tickformat="~s", **looks.log_axis([min(heights) / 2, max(heights) * 1.5])
    )
    fig.update_layout(height=540)
    return fig


def against_batch(files: Sequence[Series], which: Pass, group: str) -> go.Figure | None:
    """Return the time an image against the batch; None for a group with one batch alone."""
    rows = {
        file.name: [row for row in file.timed(which) if row.group == group and "n" in row.shape]
        for file in files
    }
    batches = sorted({row.shape["n"] for mine in rows.values() for row in mine if row.shape["n"]})
    if len(batches) < 2:
        return None
    fig = go.Figure()
    peers = _peers(files, which)
    marked = []
    for i, file in enumerate(files):
        for name in _names([file], which):
            mine = sorted(
                (row for row in rows[file.name] if row.name == name), key=lambda r: r.shape["n"]
            )
            if not mine:
                continue
            points = []
            for row in mine:
                state, timing = main_timing(row)
                n = row.shape["n"]
                points.append((n, timing.median_s / n, timing.low_s / n, timing.high_s / n))
                marked.append((n, timing.median_s / n, file, row, state))
            appearance = looks.look(mine[0], peers)
            if i:  # a second file's points are fainter
                appearance = {**appearance, "opacity": 0.55}
            fig.add_scatter(
                x=[p[0] for p in points], y=[p[1] for p in points], mode="lines+markers",
                error_y=_error(points), name=_named(files, name, file), **appearance,
                hovertext=[_says(files, file, r, main_timing(r)[0]) for r in mine],
                hoverinfo="text",
            )  # fmt: skip
    fig.add_traces(looks.warnings(marked))
    fig.update_xaxes(title="images in a batch, N", **looks.log_axis([*batches]))
    fig.update_xaxes(tickvals=batches)
    fig.update_yaxes(
        title="time an image", ticksuffix="s", tickformat="~s",
        **looks.log_axis([y for _, y, *_ in marked]),
    )  # fmt: skip
    fig.update_layout(height=480)
    return fig


def _ratio_trace(
    files: Sequence[Series], peer: str, points: list[tuple[Any, ...]], i: int, places: dict[int, int]
) -> go.Scatter:
    says = [
        f"<b>{units.digits(r)} times</b> as fast as {escape(peer)}"
        f"{f' (95 %: {units.digits(low)} to {units.digits(high)})' if low != high else ''}<br>"
        + _says(files, file, row, main_timing(row)[0])
        for r, low, high, file, row in points
    ]
    return go.Scatter(
        x=[r for r, *_ in points], y=[places[id(row)] for *_, row in points],
        error_x=_error([(0, *point[:3]) for point in points]),
        mode="markers", name=f"to {escape(peer)}", hovertext=says, hoverinfo="text",
        marker={"color": looks.COLOURS[i % 6], "symbol": looks.SYMBOLS[i % 7], "size": 10},
    )  # fmt: skip


def _floor_bars(files: Sequence[Series], blocks: list[Block], places: dict[int, int]) -> go.Bar:
    entries = [e for block in blocks for e in block.entries if e[1].status == "timed"]
    shares = []
    for file, row in entries:
        state, timing = main_timing(row)
        at = roofline.standing(row, timing, file.header.ceilings, cold=state == "cold")
        shares.append(at.floor_s / timing.median_s)
    return go.Bar(
        x=shares, y=[places[id(row)] for _, row in entries], orientation="h", width=0.55,
        text=[units.share(s) for s in shares], textposition="auto", textangle=0,
        marker={"color": looks.GREY}, showlegend=False, name="share of the floor",
        hovertext=[_says(files, f, r, main_timing(r)[0]) for f, r in entries], hoverinfo="text",
    )  # fmt: skip


def _base(file: Series, entries: list[tuple[Series, Row]]) -> Row:
    """Return what a file's kernels are held against where there is no peer."""
    mine = [row for owner, row in entries if owner is file]
    first = [row for row in mine if row.name == FIRST_RUNG]
    return first[0] if first else max(mine, key=lambda row: main_timing(row)[1].median_s)


def _kernels_alone(block: Block) -> Block:
    return Block(block.label, [entry for entry in block.entries if entry[1].kind == "kernel"])


def _lines(blocks: list[Block]) -> tuple[dict[int, int], list[int]]:
    """Return the line of every row (by its id) and of every block's head, from the top."""
    places: dict[int, int] = {}
    heads = []
    line = 0
    for block in blocks:
        heads.append(line)
        for _, row in block.entries:
            line += 1
            places[id(row)] = line
        line += 1
    return places, heads


def _label_lines(
    fig: go.Figure, blocks: list[Block], places: dict[int, int], heads: list[int],
    files: Sequence[Series],
) -> None:  # fmt: skip
    entries = [entry for block in blocks for entry in block.entries]
    texts = [
        _named(files, row.name, file) + ("" if row.status == "timed" else f" ({row.status})")
        for file, row in entries
    ]
    last = max(places.values(), default=0)
    fig.update_yaxes(
        tickvals=[places[id(row)] for _, row in entries], ticktext=texts,
        range=[last + 0.7, -0.7], showgrid=False, ticks="",
    )  # fmt: skip
    for block, head in zip(blocks, heads, strict=True):
        fig.add_annotation(
            text=f"<b>{escape(block.label)}</b>", x=0, xref="paper", xanchor="left", y=head,
            yref="y", showarrow=False,
        )  # fmt: skip
    fig.update_layout(height=ROW_PX * (last + 1) + 130)


def _named(files: Sequence[Series], name: str, file: Series) -> str:
    return escape(f"{name}, {file.name}" if len(files) > 1 else name)


def _says(files: Sequence[Series], file: Series, row: Row, state: str) -> str:
    return looks.says(file, row, state, with_file=len(files) > 1)


def _error(points: Sequence[tuple[Any, ...]]) -> dict[str, Any]:
    """Return error bars from (x, middle, low, high)."""
    return {
        "type": "data", "symmetric": False, "thickness": 1.5, "width": 3,
        "array": [high - middle for _, middle, _, high in points],
        "arrayminus": [middle - low for _, middle, low, _ in points],
    }  # fmt: skip


def _names(files: Sequence[Series], which: Pass) -> list[str]:
    rows = sorted((row for file in files for row in file.timed(which)), key=ladder_order)
    return list(dict.fromkeys(row.name for row in rows))


def _peers(files: Sequence[Series], which: Pass) -> list[str]:
    return sorted({r.name for file in files for r in file.timed(which) if r.kind == "peer"})


