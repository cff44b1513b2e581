"""The lab's pages: one HTML file each, which asks nothing of any network.

A page is a title, a lead and sections; a section is HTML made of `paragraph`, `table`, `figure` and
`choice`. Plotly comes with the page, once. The page's security policy lets only the scripts that
`render` put there run, so that nothing out of a result file ever does, and no request leave.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Collection, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_ASSETS = Path(__file__).parent
# What a fragment of `figure` begins with, so that `render` knows whether Plotly is wanted.
_FIGURE = '<figure class="figure">'
# Which pages are ours to overwrite.
GENERATOR = "conv-kernel-lab"


class Section(NamedTuple):
    """One part of a page.

    Attributes
    ----------
    anchor
        Its id, for links: letters, digits and hyphens.
    title
        Its heading, plain text.
    html
        What it holds, as HTML.
    """

    anchor: str
    title: str
    html: str


def paragraph(text: str, kind: str = "") -> str:
    """Return plain text as a paragraph; `kind` is its class, ``"warning"`` or ``"note"``."""
    return f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def figure(fig: Figure, name: str, description: str) -> str:
    """Return a Plotly figure as an HTML fragment; `render` adds the library and draws it.

    Parameters
    ----------
    fig
        The figure. Its template is replaced by the lab's; text in it is Plotly's own small HTML, so
        that what comes from a file must be escaped.
    name
        The id of the chart, one of its kind on the page: letters, digits and hyphens.
    description
        What the chart shows, for those who cannot see it.
    """
    spec = json.loads(fig.to_json())
    spec["layout"].pop("template", None)
    data = json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c")
    height = spec["layout"].get("height", 450)
    return (
        f'{_FIGURE}<div class="chart" id="{escape(name)}" role="img" '
        f'aria-label="{escape(description)}" style="height: {height:d}px"></div>'
        f'<script type="application/json" id="{escape(name)}-data">{data}</script></figure>'
    )


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | int | float]],
    *,
    right: Collection[str] = (),
    marks: Sequence[str] = (),
) -> str:
    """Return a table; on a narrow screen it scrolls sideways, in print it wraps.

    Parameters
    ----------
    columns
        Headings.
    rows
        Cells: text, in which a new line is one, or numbers, which are written with separators. A
        column of numbers is set to the right.
    right
        Columns of text that are set to the right too, as numbers with their units.
    marks
        For each row a class, ``""`` for none: ``"unstable"``, ``"impossible"``, ``"failed"``.
    """
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    right = {*right, *(name for name, are in zip(columns, numeric, strict=True) if are and rows)}
    heads = "".join(
        f'<th scope="col"{_side(name in right)}>{escape(name)}</th>' for name in columns
    )
    lines = []
    for row, mark in zip(rows, marks or [""] * len(rows), strict=True):
        cells = "".join(
            f"<td{_side(name in right)}>{_cell(cell)}</td>"
            for name, cell in zip(columns, row, strict=True)
        )
        lines.append(f'<tr class="{escape(mark)}">{cells}</tr>' if mark else f"<tr>{cells}</tr>")
    return (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def choice(name: str, label: str, panels: Sequence[tuple[str, str]]) -> str:
    """Return panels of which one is shown, chosen from a list; in print all are.

    Parameters
    ----------
    name
        The id of the list.
    label
        What is chosen, plain text.
    panels
        What the list says, plain text, and the panel's HTML. One panel alone gets no list.
    """
    options = "".join(f"<option>{escape(title)}</option>" for title, _ in panels)
    chooser = (
        f'<label class="chooser">{escape(label)} '
        f'<select id="{escape(name)}" autocomplete="off">{options}</select></label>'
    )
    parts = "".join(
        f'<div class="panel"{" hidden" if i else ""}><h3>{escape(title)}</h3>{html}</div>'
        for i, (title, html) in enumerate(panels)
    )
    return f'<div class="choice">{chooser if len(panels) > 1 else ""}{parts}</div>'


def render(
    title: str, lead: str, sections: Sequence[Section], *, scripts: Sequence[str] = ()
) -> str:
    """Return the whole document.

    Parameters
    ----------
    title
        Plain text.
    lead
        The paragraph under it, plain text.
    sections
        In order; the contents list names them.
    scripts
        JavaScript of the page's own, run in this order at its end.
    """
    body = "".join(
        f'<section id="{escape(s.anchor)}"><h2>{escape(s.title)}</h2>{s.html}</section>'
        for s in sections
    )
    contents = " ".join(f'<a href="#{escape(s.anchor)}">{escape(s.title)}</a>' for s in sections)
    every = [*_libraries(body), (_ASSETS / "page.js").read_text(), *scripts]
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
        f"script-src {' '.join(map(_hash, every))}; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="{GENERATOR}">\n'
        f"<title>{escape(title)}</title>\n<style>{(_ASSETS / 'page.css').read_text()}</style>\n"
        f"</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        f'<p class="lead">{escape(lead)}</p>\n<nav aria-label="Contents">{contents}</nav>\n'
        f"{body}\n</main>\n"
        + "\n".join(f"<script>{script}</script>" for script in every)
        + "\n</body>\n</html>\n"
    )


def is_ours(path: Path) -> bool:
    """Tell whether a file is a page that `render` wrote."""
    with path.open("rb") as file:
        return f'name="generator" content="{GENERATOR}"'.encode() in file.read(2000)


def _libraries(body: str) -> list[str]:
    if _FIGURE not in body:
        return []
    from plotly.offline import get_plotlyjs

    return [get_plotlyjs().replace("\r\n", "\n")]


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _side(right: bool) -> str:
    return ' class="right"' if right else ""


def _cell(value: str | int | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:,}"
