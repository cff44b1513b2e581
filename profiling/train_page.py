"""The page of `profiling train-report`: the table, the time by layer, Amdahl's law, the loss."""

from __future__ import annotations

import math
from html import escape

import numpy as np
from plotly import graph_objects as go

from kernels import page
from profiling import looks
from profiling.train_report import Part, TrainReport, amdahl
from profiling.train_table import headline, remarks, times

# Okabe and Ito's colours: told apart with every kind of colour vision.
FORWARD, BACKWARD, OTHER = "#0072B2", "#E69F00", "#7A8087"
LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8F6B2F")
DASHES = ("solid", "dash", "dot")
# A layer below this share of the step gains nothing worth a line.
LEAST_SHARE = 0.01
FASTEST = 100.0  # right end of Amdahl's chart
MOST_TICKS = 12
SIDE_BY_SIDE = "display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr))"


def build(report: TrainReport) -> str:
    """Return the page."""
    notes = "".join(page.paragraph(note, "warning") for note in report.notes)
    said = "".join(page.paragraph(line) for line in remarks(report))
    charts = page.figure(
        _amdahl(report), "amdahl", "How many times as fast the step would be, against how many "
        "times as fast one layer becomes, a line a layer.",
    ) + page.figure(_loss(report), "loss", "Training and test loss by epoch.")  # fmt: skip
    by_layer = page.figure(
        _by_layer(report),
        "layers",
        "Milliseconds of a step by layer, forward and backward stacked.",
    )
    return page.render(
        f"LeNet's step: {report.folder.name}",
        headline(report),
        [
            page.Section("time", "Where the step's time goes", notes + by_layer + said),
            page.Section(
                "amdahl-and-loss",
                "What a faster layer would buy, and the loss",
                f'<div style="{SIDE_BY_SIDE}">{charts}</div>',
            ),
            page.Section("table", "Every part", _table(report)),
        ],
    )


def _table(report: TrainReport) -> str:
    columns = (
        "layer", "kernel", "pass", "ms a step", "share", "twice as fast saves", "step then",
        "speed-up", "infinitely fast: step then", "speed-up at most",
    )  # fmt: skip
    whole = Part("step", "", "", report.step_s, 1.0)
    rows = [
        (
            part.layer, part.kernel, part.direction, f"{1e3 * part.seconds:.3f}",
            f"{part.share:.1%}", f"{1e3 * part.seconds / 2:.3f} ms",
            *(
                text
                for factor in (2.0, math.inf)
                for by in (part.speed_up(factor),)
                for text in (f"{1e3 * report.step_s / by:.3f} ms", times(by))
            ),
        )
        for part in [*report.parts, whole, *report.together("kernel")]
    ]  # fmt: skip
    return page.table(columns, rows, right=columns[3:])


def _by_layer(report: TrainReport) -> go.Figure:
    fig = go.Figure()
    layers = list(dict.fromkeys(part.layer for part in report.parts))
    for way, colour in (("forward", FORWARD), ("backward", BACKWARD), ("", OTHER)):
        parts = [part for part in report.parts if part.direction == way]
        fig.add_bar(
            x=[part.layer for part in parts],
            y=[1e3 * part.seconds for part in parts],
            name=way or "no direction",
            marker_color=colour,
            customdata=[
                (escape(part.kernel), f"{part.share:.1%}", times(part.speed_up(math.inf)))
                for part in parts
            ],
            hovertemplate="<b>%{x}</b> "
            + way
            + "<br>%{customdata[0]}<br>%{y:.3f} ms, %{customdata[1]} of the step"
            "<br>infinitely fast, the step is %{customdata[2]} as fast<extra></extra>",
        )
    fig.update_layout(
        barmode="stack",
        xaxis={"categoryorder": "array", "categoryarray": layers},
        yaxis_title="ms a step",
    )
    return fig


def _amdahl(report: TrainReport) -> go.Figure:
    factors = np.geomspace(1, FASTEST, 81)
    fig = go.Figure()
    layers = [part for part in report.together("layer") if part.share >= LEAST_SHARE]
    for i, part in enumerate(sorted(layers, key=lambda part: -part.share)):
        fig.add_scatter(
            x=factors,
            y=[amdahl(part.share, float(factor)) for factor in factors],
            name=f"{escape(part.layer)} ({part.share:.0%})",
            line={
                "color": LINES[i % len(LINES)],
                "dash": DASHES[i // len(LINES) % len(DASHES)],
                "width": 2,
            },
            hovertemplate=f"<b>{escape(part.layer)}</b>, {part.share:.1%} of the step<br>"
            "%{x:.3g} times as fast: the step %{y:.3f} times<br>"
            f"at most {times(part.speed_up(math.inf))}<extra></extra>",
        )
    fig.update_layout(
        xaxis={
            "type": "log",
            "title": "the layer's speed-up",
            "tickvals": [1, 2, 5, 10, 20, 50, 100],
        },
        yaxis_title="the step's speed-up",
    )
    return fig


def _loss(report: TrainReport) -> go.Figure:
    fig = go.Figure()
    epochs = [line["epoch"] for line in report.history]
    for key, name, colour in (("loss", "training", FORWARD), ("test_loss", "test", BACKWARD)):
        fig.add_scatter(
            x=epochs,
            y=[line[key] for line in report.history],
            name=name,
            mode="lines+markers",
            line={"color": colour, "width": 2},
            customdata=[line["test_accuracy"] for line in report.history],
            hovertemplate=f"epoch %{{x}}, {name} loss %{{y:.4f}}"
            "<br>test accuracy %{customdata:.2%}<extra></extra>",
        )
    whole = {"dtick": 1} if len(epochs) <= MOST_TICKS else {}
    losses = [v for line in report.history for v in (line["loss"], line["test_loss"]) if v > 0]
    axis = looks.log_axis(losses or [1.0], "{:g}".format)
    fig.update_layout(xaxis={"title": "epoch", **whole}, yaxis={"title": "loss", **axis})
    return fig
