"""Charts with a line for each kernel: the ladder, and cold against hot."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from plotly import graph_objects as go

from profiling import looks, roofline, units
from profiling.result_file import Row
from profiling.series import (
    FIRST_RUNG,
    Block,
    Pass,
    Series,
    both_ends,
    largest,
    main_timing,
    timings,
)

LINE_PX = 26


class Point(NamedTuple):
    """A kernel's ratio to a peer, its 95 % interval (or thrice the same), and whose it is."""

    ratio: float
    low: float
    high: float
    file: Series
    row: Row


def ladder(files: Sequence[Series], which: Pass) -> tuple[go.Figure, list[str]]:
    """Return each kernel's ratio to the peers, and its share of the floor.

    Returns
    -------
    figure, labels
        The shapes where no peer was timed: there the ratio is to the first rung or the slowest.
    """
    blocks = [
        Block(block.label, [entry for entry in block.entries if entry[1].kind == "kernel"])
        for block in largest(files, which)
    ]
    places, heads = _lines(blocks)
    to: dict[str, list[Point]] = {}
    alone = []
    for block in blocks:
        for file, row in _timed(block):
            state, timing = main_timing(row)
            found = [ratio for ratio in row.ratios if ratio.state == state]
            for r in found:
                to.setdefault(r.peer, []).append(Point(r.median, r.low, r.high, file, row))
            if not found:
                base = _base(file, block)
                ratio = main_timing(base)[1].median_s / timing.median_s
                to.setdefault(base.name, []).append(Point(ratio, ratio, ratio, file, row))
                alone.append(block.label)
    fig = go.Figure()
    for i, (peer, points) in enumerate(to.items()):
        fig.add_trace(_ratios(files, peer, points, i, places))
    every = [point for points in to.values() for point in points]
    fig.add_traces(
        looks.warnings(
            [(p.ratio, places[id(p.row)], p.file, p.row, main_timing(p.row)[0]) for p in every]
        )
    )
    fig.add_vline(1, line={"color": looks.GREY, "width": 2}, layer="below")
    ends = [end for point in every for end in point[:3]]
    fig.update_xaxes(
        title="peer's time / kernel's", **looks.log_axis([*ends, 1], "{:g}".format, most=6)
    )
    _label_lines(fig, files, blocks, places, heads)
    _write_floors(fig, blocks, places)
    return fig, list(dict.fromkeys(alone))


def cold_and_hot(files: Sequence[Series], which: Pass) -> go.Figure:
    """Return each row's cold and hot time, joined by a line."""
    blocks = both_ends(files, which)
    places, heads = _lines(blocks)
    entries = [entry for block in blocks for entry in _timed(block)]
    joined: dict[str, list[Any]] = {"x": [], "y": []}
    for _, row in entries:
        joined["x"] += [timing.median_s for _, timing in timings(row)] + [None]
        joined["y"] += [places[id(row)]] * len(timings(row)) + [None]
    line = {"color": looks.GREY, "width": 2}
    fig = go.Figure(
        go.Scatter(**joined, mode="lines", line=line, hoverinfo="skip", showlegend=False)
    )
    marked = []
    for i, state in enumerate(("cold", "hot")):
        points = [
            (timing.median_s, places[id(row)], file, row, state)
            for file, row in entries
            for its, timing in timings(row)
            if its == state
        ]
        marked += points
        fig.add_scatter(
            x=[x for x, *_ in points], y=[y for _, y, *_ in points], mode="markers", name=state,
            marker={"color": looks.COLOURS[i], "symbol": looks.SYMBOLS[i], "size": 10},
            hovertext=[looks.says(files, file, row, state) for _, _, file, row, _ in points],
            hoverinfo="text",
        )  # fmt: skip
    fig.add_traces(looks.warnings(marked))
    times = [x for x, *_ in marked]
    fig.update_xaxes(
        title="time of a launch", **looks.log_axis(times, lambda t: units.tick(t, "s"))
    )
    _label_lines(fig, files, blocks, places, heads)
    return fig


def _ratios(
    files: Sequence[Series], peer: str, points: list[Point], i: int, places: dict[int, int]
) -> go.Scatter:
    says = []
    for p in points:
        between = f" (95 %: {units.digits(p.low)} to {units.digits(p.high)})"
        says.append(
            f"<b>{units.digits(p.ratio)} times</b> as fast as {escape(peer)}"
            f"{between if p.low != p.high else ''}<br>"
            + looks.says(files, p.file, p.row, main_timing(p.row)[0])
        )
    return go.Scatter(
        x=[p.ratio for p in points], y=[places[id(p.row)] for p in points],
        error_x=looks.interval([p[:3] for p in points]),
        mode="markers", name=f"to {escape(peer)}", hovertext=says, hoverinfo="text",
        marker={
            "color": looks.COLOURS[i % len(looks.COLOURS)],
            "symbol": looks.SYMBOLS[i % len(looks.SYMBOLS)],
            "size": 10,
        },
    )  # fmt: skip


def _base(file: Series, block: Block) -> Row:
    """Return what a file's kernels are held against where there is no peer."""
    mine = [row for owner, row in _timed(block) if owner is file]
    first = [row for row in mine if row.name == FIRST_RUNG]
    return first[0] if first else max(mine, key=lambda row: main_timing(row)[1].median_s)


def _timed(block: Block) -> list[tuple[Series, Row]]:
    return [entry for entry in block.entries if entry[1].status == "timed"]


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
    fig: go.Figure,
    files: Sequence[Series],
    blocks: list[Block],
    places: dict[int, int],
    heads: list[int],
) -> None:
    entries = [entry for block in blocks for entry in block.entries]
    last = max(places.values(), default=0)
    fig.update_yaxes(
        tickvals=[places[id(row)] for _, row in entries],
        ticktext=[
            looks.named(files, row.name, file)
            + ("" if row.status == "timed" else f" ({row.status})")
            for file, row in entries
        ],
        range=[last + 0.7, -0.7], showgrid=False, ticks="",
    )  # fmt: skip
    for block, head in zip(blocks, heads, strict=True):
        fig.add_annotation(
            text=f"<b>{escape(block.label)}</b>", x=0, xref="paper", xanchor="left", y=head,
            showarrow=False,
        )  # fmt: skip
    fig.update_layout(height=LINE_PX * (last + 1) + 140)


def _write_floors(fig: go.Figure, blocks: list[Block], places: dict[int, int]) -> None:
    """Write the share of the floor at the right end of every kernel's line."""
    texts = [(0, "of floor")]
    for file, row in (entry for block in blocks for entry in _timed(block)):
        state, timing = main_timing(row)
        at = roofline.standing(row, timing, file.results.ceilings(row), cold=state == "cold")
        texts.append((places[id(row)], units.share(at.floor_s / timing.median_s)))
    for line, text in texts:
        fig.add_annotation(
            text=text, x=1, xref="paper", xanchor="left", xshift=6, y=line, showarrow=False
        )
    fig.update_layout(margin={"r": 64})
