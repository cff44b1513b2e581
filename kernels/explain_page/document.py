"""The page of ``explain --html``: sections in the order of a lecture, filled in by its scripts."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from kernels import operations, page
from kernels.explain_page import examples, learned, picture
from kernels.explain_page.examples import BIAS, FILTER, INPUT, Budget, example
from kernels.shapes import Conv2dShape, PoolShape, receptive_field

_HERE = Path(__file__).parent
SCRIPTS = (
    "arrays", "maps", "png", "grid", "layer", "layer_grids", "sliding", "im2col", "pooling",
    "field", "pixelwise", "picture", "learned", "explain_page",
)  # fmt: skip
MOST_LAYERS = 48
STACKED = 4  # how often a single layer is stacked for its receptive field
LEAD = (
    "The numbers are examples, whole ones, so that a sum can be checked in one's head. Outputs are "
    "what this lab's conv2d gave for them; patches, products and sums are worked out in this page "
    "from the same numbers, and each says whether the two agree. Point at a cell, or focus a grid "
    "and use the arrow keys, Home, End, Page Up and Page Down; space plays."
)


class Layer(NamedTuple):
    """One of the user's layers.

    Attributes
    ----------
    title
        What the user calls it.
    shape
        Its shape.
    padding
        As the user gave it.
    lines
        Its arithmetic, as ``explain`` prints it.
    others
        The layer with other paddings, by their names; beside them ``shape`` is "valid".
    """

    title: str
    shape: Conv2dShape | PoolShape
    padding: Any
    lines: Sequence[str]
    others: Mapping[str, Conv2dShape] = MappingProxyType({})


def build(
    layers: Sequence[Layer],
    *,
    bias: bool = True,
    image: Path | None = None,
    checkpoint: Path | None = None,
) -> str:
    """Return the page.

    Parameters
    ----------
    layers
        At least one.
    bias
        Whether convolutions have one.
    image
        An image file for the filters and for LeNet; without one the lab's own are taken.
    checkpoint
        A run's checkpoint or its folder, for LeNet's filters.

    Raises
    ------
    ValueError
        A layer too large to draw, an image or a checkpoint that cannot be used.
    """
    if len(layers) > MOST_LAYERS:
        raise ValueError(f"{len(layers)} layers; expected at most {MOST_LAYERS} on a page")
    budget = Budget.of(len(layers) + 1)
    pixels = picture.read(image) if image else picture.drawn()
    name = image.name if image else "A drawn image"
    data: dict[str, Any] = {"layers": []}
    sections = []
    for number, layer in enumerate(layers, 1):
        data["layers"].append(_entry(layer, number, bias, budget))
        html = _pool(number - 1, layer) if _is_pool(layer) else _conv(number - 1, layer)
        sections.append(page.Section(f"layer-{number}", f"Layer {number}: {layer.title}", html))
    data["field"] = _field(layers)
    sections.append(page.Section("field", "Receptive field", _field_html(layers)))
    if not any(map(_is_pool, layers)):
        own = _pool_after(layers[-1].shape)
        data["layers"].append(_entry(own, len(layers) + 1, bias, budget))
        sections.append(page.Section("pooling", own.title, _pool(len(layers), own)))
    data["pixelwise"] = _pixelwise(layers[0].shape.c)
    sections.append(page.Section("pixelwise", "1x1 convolution", _PIXELWISE + _view("pixelwise")))
    data["picture"] = picture.through_filters(pixels, name)
    sections.append(page.Section("picture", "Filters on an image", _PICTURE + _view("picture")))
    if checkpoint:
        own_digit = image is None
        fitted = learned.digit() if own_digit else learned.fitted(pixels)
        shown = "a digit of scikit-learn's" if own_digit else f"the middle of {name}"
        data["learned"] = learned.maps(*learned.read(checkpoint), fitted, shown)
        sections.append(page.Section("lenet", "LeNet's learned filters", _lenet(data["learned"])))
    else:
        sections.append(page.Section("lenet", "LeNet's learned filters", page.paragraph(_NO_LENET)))
    packed = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    style = f"<style>{(_HERE / 'explain_page.css').read_text()}</style>"
    sections[0] = sections[0]._replace(html=style + sections[0].html)
    sections[-1] = sections[-1]._replace(
        html=sections[-1].html
        + f'<script type="application/json" id="explain-data">{packed}</script>'
    )
    scripts = [(_HERE / f"{script}.js").read_text() for script in SCRIPTS]
    titles = ", ".join(layer.title for layer in layers[:3]) + (" ..." if len(layers) > 3 else "")
    return page.render(f"Explained: {titles}", LEAD, sections, scripts=scripts)


def _is_pool(layer: Layer) -> bool:
    return isinstance(layer.shape, PoolShape)


def _entry(layer: Layer, number: int, bias: bool, budget: Budget) -> dict[str, Any]:
    """Return what the page knows of a layer; an error names it."""
    try:
        if isinstance(layer.shape, PoolShape):
            variants = [examples.pooling(layer.shape, number, budget)]
        else:
            shapes = {"valid": layer.shape, **layer.others}
            each = Budget(*(share // len(shapes) for share in budget))
            variants = [
                {"label": label, **examples.convolution(shape, number, bias, each)}
                for label, shape in shapes.items()
            ]
    except ValueError as error:
        raise ValueError(f"layer {number} ({layer.title}): {error}") from None
    return {"title": layer.title, "variants": variants}


def _view(name: str, at: int = 0) -> str:
    return f'<div class="view" data-view="{name}" data-at="{at}"></div>'


def _conv(at: int, layer: Layer) -> str:
    return (
        "<h3>The filter slides</h3>"
        + page.paragraph(
            "Thick: the numbers under the filter. Dashed: padding, which is 0. Dotted: gaps that "
            "dilation leaves. Point at the input to slide the window, at the output to see where "
            "it comes from."
        )
        + _view("sliding", at)
        + "<h3>Channels</h3>"
        + page.paragraph(
            "Every channel has its own slice of the filter; the products of all of them and the "
            "bias add up to one output. Each filter makes one channel of the output."
        )
        + _view("channels", at)
        + "<h3>Arithmetic</h3>"
        + _arithmetic(layer)
        + "<h3>As one matrix product: im2col</h3>"
        + page.paragraph(
            "A column of X_col is what one output sees, a row of W_row is one filter, written in "
            "the same order. Their product is the convolution."
        )
        + _view("im2col", at)
    )


def _pool(at: int, layer: Layer) -> str:
    lead = "The largest number under the window, or the mean of all; no weights, and every channel "
    return page.paragraph(lead + "alone.") + _view("pooling", at) + _arithmetic(layer)


def _arithmetic(layer: Layer) -> str:
    if not layer.lines:
        return ""
    return f'<pre class="arithmetic" tabindex="0">{escape(chr(10).join(layer.lines))}</pre>'


def _pool_after(shape: Conv2dShape | PoolShape) -> Layer:
    """Return a pooling of a layer's output, or of an 8x8 one where that is too small for it."""
    extents = (shape.p, shape.q) if min(shape.p, shape.q) >= 4 else (8, 8)
    pool = PoolShape.of((1, shape.output_shape[1], *extents), 2)
    return Layer(f"Pooling 2x2 on {extents[0]}x{extents[1]}", pool, 0, ())


def _field(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the stack whose receptive field is shown; a layer alone is stacked on itself."""
    stack = [(layer.title, layer.shape) for layer in layers]
    first = layers[0]
    while len(layers) == 1 and len(stack) < STACKED and isinstance(first.shape, Conv2dShape):
        below = stack[-1][1]
        if below.p == below.q == 1:
            break
        try:
            again = Conv2dShape.of(
                below.output_shape, (first.shape.k, first.shape.k, first.shape.r, first.shape.s),
                stride=first.shape.stride, padding=first.padding, dilation=first.shape.dilation,
            )  # fmt: skip
        except ValueError:  # no room for another
            break
        stack.append(("the same again", again))
    shapes = [shape for _, shape in stack]
    described = [
        {
            "title": title, "size": (shape.r, shape.s), "stride": shape.stride,
            "dilation": getattr(shape, "dilation", (1, 1)), "padding": shape.padding,
            "input": (shape.h, shape.w), "output": (shape.p, shape.q),
            "receptive_field": receptive_field(shapes[: at + 1]),
        }
        for at, (title, shape) in enumerate(stack)
    ]  # fmt: skip
    return {"layers": described}


def _field_html(layers: Sequence[Layer]) -> str:
    alone = len(layers) == 1
    said = "Your layer, stacked on itself as often as fits, at most four times. " if alone else ""
    return page.paragraph(
        said + "Point at a unit of any layer: marked is all that it depends on, layer by layer "
        "down to the input."
    ) + _view("field")


def _pixelwise(channels: int) -> dict[str, Any]:
    """Return two 1x1 layers with a ReLU between them, on 4x4 pixels of up to 6 channels."""
    side, planes, layers = 4, [min(channels, 6), 4, 3], []
    x = example(INPUT, 0, np.arange(planes[0] * side**2)).reshape(1, planes[0], side, side)
    kept = []
    for seed, (inputs, outputs) in enumerate(itertools.pairwise(planes)):
        w = example(FILTER, seed, np.arange(inputs * outputs)).reshape(outputs, inputs, 1, 1)
        b = example(BIAS, seed, np.arange(outputs))
        y = operations.conv2d(x, w, b, kernel="reference")
        kept.append(x[0].reshape(inputs, -1).tolist())
        layers.append(
            {
                "w": w[:, :, 0, 0].tolist(),
                "b": b.tolist(),
                "y": y[0].reshape(outputs, -1).tolist(),
            }
        )
        x = np.maximum(y, 0)
    return {"height": side, "width": side, "planes": kept, "layers": layers}


def _lenet(data: dict[str, Any]) -> str:
    said = (
        f"Of {data['name']}, standardised as the run's images were; activation "
        f"{data['activation']}, {data['pool']}-pooling. Point at a unit of a feature map: outlined "
        "on the input is what it sees."
    )
    views = "".join(
        f"<h3>{escape(stage['name'])}</h3>{_view('learned', at)}"
        for at, stage in enumerate(data["stages"])
    )
    return page.paragraph(said) + views


_PIXELWISE = page.paragraph(
    "A filter of 1x1 sees one pixel, and all its channels: a matrix times the pixel's vector. Two "
    "layers of them with a ReLU between are a small network (MLP) run at every pixel alike. "
    "Here on 4x4 pixels with as many channels as your input has, at most 6."
)
_PICTURE = page.paragraph(
    "What nine numbers do to an image. Grey values of 0 to 255, padding same; what falls below or "
    "above is black or white, and where the weights add up to 0, mid-grey stands for 0."
)
_NO_LENET = (
    "To see what a network learns, train one and name its checkpoint: python -m lenet train, then "
    "python -m kernels explain ... --html page.html --checkpoint runs/NAME/checkpoint.safetensors"
)
