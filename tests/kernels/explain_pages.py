"""What the tests of explain's page share: the page, its numbers as arrays, and its grids."""

from __future__ import annotations

import json
import re

import numpy as np

from kernels import explain
from kernels.explain_page.examples import BIAS, FILTER, INPUT, example

TOTAL = re.compile(
    r"Output \((\d+), (\d+)\) of filter (\d+): (.*); sum (\S+)\. conv2d: (\S+), the same\."
)


def write(path, line, *more):
    """Run explain with a page; the words of `line` are its options."""
    assert explain.main([*line.split(), *more, "--html", str(path)]) == 0
    return path


def layers(*specs):
    return [word for spec in specs for word in ("--layer", spec)]


def numbers(shape, layer=1):
    """Return the whole example arrays of a layer, x, w and b, as the page numbers them."""
    arrays = []
    for kind, extents in (
        (INPUT, shape.input_shape), (FILTER, shape.filter_shape), (BIAS, (shape.k,)),
    ):  # fmt: skip
        index = np.arange(np.prod(extents))
        arrays.append(example(kind, layer, index).reshape(extents))
    return arrays


def view(shown, name, at=0):
    return shown.locator(f'.view[data-view="{name}"][data-at="{at}"]')


def grid(within, label):
    """Return the only grid whose label begins so."""
    return within.locator(f'.cells[aria-label^="{label}"]')


def cell(of_grid, row, column):
    return of_grid.locator(f'[data-place="{row} {column}"]')


def values(of_grid):
    """Return a grid's numbers as an array."""
    rows = of_grid.evaluate(
        """grid => [...grid.querySelectorAll("[role=row]")].map((row) =>
            [...row.querySelectorAll(".cell")].map((cell) => Number(cell.textContent)))"""
    )
    return np.array([row for row in rows if row])


def total(of_view):
    """Return the output's place and number in what a view says, (p, q), k and the sum."""
    said = of_view.locator("output").inner_text()
    p, q, k, _, here, given = TOTAL.search(said).groups()
    assert here == given
    return (int(p), int(q)), int(k), float(here)


def data_of(path):
    """Return the JSON that the page works from."""
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="explain-data">(.*?)</script>', text)[1])
