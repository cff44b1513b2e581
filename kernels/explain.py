"""The arithmetic of a convolution layer, or of a network's layers, with the user's numbers put in.

>>> main("--input 5x5x3 --filters 32 --size 3 --json".split())  # doctest: +ELLIPSIS
{"input": [1, 3, 5, 5], "filters": [32, 3, 3, 3], "output": [1, 32, 3, 3], ...}
0

Sizes are written HxWxC here, as in lectures; the kernels' own layout is NCHW.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernels import checks, layer_text, page
from kernels.layer_text import by, same_or
from kernels.one_line import Parser
from kernels.shapes import Conv2dShape, PoolShape, receptive_field

if TYPE_CHECKING:
    from kernels.explain_page.document import Layer

LAYER_SYNTAX = "[conv | pool] SIZE [filters K] [stride N] [dilation N] [padding P]"
PAIR_WANTED = "N or RxS, such as 3 or 3x5"
PADDING_WANTED = "same, valid, N or T,B,L,R (top, bottom, left, right)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``explain`` to `parser`; `run` takes what it parsed."""
    parser.add_argument("--input", metavar="HxWxC", help="input height, width and channels")
    parser.add_argument("--filters", metavar="K", help="number of filters")
    parser.add_argument("--size", metavar="RxS", help="filter size: N or RxS")
    parser.add_argument("--stride", metavar="N", help="N or RxS (default 1)")
    parser.add_argument("--padding", metavar="P", help=f"{PADDING_WANTED} (default valid)")
    parser.add_argument("--dilation", metavar="N", help="N or RxS (default 1)")
    parser.add_argument("--batch", metavar="N", default="1", help="images (default 1)")
    parser.add_argument("--no-bias", action="store_true", help="leave the bias out")
    parser.add_argument(
        "--layer",
        action="append",
        metavar="LAYER",
        help="one layer of a network, from the input on; repeat it for each layer. Words in any "
        f'order: "{LAYER_SYNTAX}", such as "5x5 filters 6 padding 2", "pool 2x2" or '
        '"3x3 stride 2 dilation 2". conv is meant where nothing is said; a pool\'s stride is its '
        "size; sizes as above. Output sizes need --input, parameters need filters too",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    pages = parser.add_argument_group("a page to play with")
    pages.add_argument(
        "--html",
        type=Path,
        metavar="PAGE",
        help="write a page as well, one file of less than 2 MB: the filter sliding, channels and "
        "sums, im2col, receptive field, pooling, 1x1, filters on an image, LeNet",
    )
    pages.add_argument(
        "--image", type=Path, metavar="FILE", help="an image of yours for the page's filters"
    )
    pages.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="a run's checkpoint.safetensors, of python -m lenet train: its filters and feature "
        "maps are on the page",
    )


def run(args: argparse.Namespace) -> int:
    """Explain what `args` describes; return the exit code, 0 or 2 (bad input, said on stderr)."""
    try:
        batch = _number("--batch", args.batch, 1)
        lines = _network(args, batch) if args.layer else _layer(args, batch)
        if args.html:
            _write_page(args, batch)
        elif args.image or args.checkpoint:
            option = "image" if args.image else "checkpoint"
            raise ValueError(f"explain: --{option} goes with --html PAGE only")
        print("\n".join(lines))
    except (TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv` and `run`."""
    parser = Parser(prog="python -m kernels explain")
    add_arguments(parser)
    return run(parser.parse_args(argv))


def _layer(args: argparse.Namespace, batch: int) -> list[str]:
    """Explain one convolution."""
    for name in ("input", "filters", "size"):
        if getattr(args, name) is None:
            raise ValueError(
                f"explain: --{name} is missing; expected --input HxWxC --filters K --size RxS, "
                "or --layer for a network"
            )
    shape = _layer_shape(args, batch, _given(args.padding, "valid"))
    bias = not args.no_bias
    if args.json:
        return [json.dumps(layer_text.facts(shape, bias))]
    return [*layer_text.text(shape, bias), "", *layer_text.picture(shape)]


def _layer_shape(args: argparse.Namespace, batch: int, padding: str) -> Conv2dShape:
    h, w, c = _input(args.input)
    size = _pair("--size", args.size)
    return Conv2dShape.of(
        (batch, c, h, w),
        (_number("--filters", args.filters, 1), c, *size),
        stride=_pair("--stride", _given(args.stride, "1")),
        padding=_padding("--padding", padding),
        dilation=_pair("--dilation", _given(args.dilation, "1")),
        operation="explain",
    )


def _write_page(args: argparse.Namespace, batch: int) -> None:
    """Write the page of ``--html`` and say so on stderr."""
    path = args.html
    if not path.parent.is_dir():
        raise ValueError(f"explain: --html {path}: there is no directory {path.parent}")
    if path.is_dir() or (path.exists() and not page.is_ours(path)):
        raise ValueError(f"explain: --html {path}: there is something that is no page of this lab")
    from kernels.explain_page import document

    layers = _page_layers(args, batch)
    try:
        html = document.build(
            layers, bias=not args.no_bias, image=args.image, checkpoint=args.checkpoint
        )
    except ValueError as error:
        raise ValueError(f"explain: {error}") from None
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"explain: --html {path}: {error.strerror}") from None
    print(f"{path}  {path.stat().st_size / 1e3:,.0f} kB", file=sys.stderr)


def _page_layers(args: argparse.Namespace, batch: int) -> list[Layer]:
    """Return the layers as the page takes them; it needs every size."""
    from kernels.explain_page.document import Layer

    bias = not args.no_bias
    if not args.layer:
        padding = _given(args.padding, "valid")
        shape = _layer_shape(args, batch, padding)
        others = {} if args.padding else {"same": _layer_shape(args, batch, "same")}
        title = f"{args.filters} filters of {by(shape.filter_shape[2:])} on {args.input}"
        lines = layer_text.text(shape, bias)
        return [Layer(title, shape, _padding("--padding", padding), lines, others)]
    if args.input is None:
        raise ValueError("explain: --html draws the layers' numbers; add --input HxWxC")
    h, w, c = _input(args.input)
    extents: tuple[int, ...] = (batch, c, h, w)
    layers = []
    for number, spec in enumerate(map(_spec, args.layer), 1):
        if not spec.pool and spec.filters is None:
            raise ValueError(
                f"explain: --html draws the layers' numbers; layer {number} ({spec.text}) has no "
                f'filters: --layer "{spec.text} filters 16"'
            )
        own = _shape_of(spec, extents, f"explain: layer {number} ({spec.text})")
        if isinstance(own, PoolShape):
            lines = layer_text.pool_text(own)
        else:
            lines = layer_text.text(own, bias)
        layers.append(Layer(spec.text, own, spec.padding, lines))
        extents = own.output_shape
    return layers


def _given(text: str | None, default: str) -> str:
    return default if text is None else text


@dataclasses.dataclass(frozen=True)
class _Spec:
    """One --layer, parsed."""

    text: str
    pool: bool
    size: tuple[int, int]
    filters: int | None
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: Any


def _network(args: argparse.Namespace, batch: int) -> list[str]:
    """Tabulate a stack of layers."""
    for name in ("filters", "size", "stride", "padding", "dilation"):
        if getattr(args, name) is not None:
            raise ValueError(
                f"explain: --{name} is given beside --layer; expected it in the layer: "
                f'--layer "{LAYER_SYNTAX}"'
            )
    specs = [_spec(text) for text in args.layer]
    facts = _network_facts(specs, args.input, batch, not args.no_bias)
    return [json.dumps(facts)] if args.json else _network_text(facts)


def _network_facts(
    specs: list[_Spec], input_size: str | None, batch: int, bias: bool
) -> dict[str, Any]:
    """Follow size, channels, receptive field and jump through the layers; None where unknown."""
    size: tuple[int | None, ...] | None = None if input_size is None else _input(input_size)
    facts: dict[str, Any] = {"batch": batch, "input": size, "layers": []}
    windows: list[tuple[tuple[int, int], ...]] = []
    jump = 1, 1
    for number, spec in enumerate(specs, 1):
        windows.append((spec.size, spec.stride, spec.dilation))
        jump = jump[0] * spec.stride[0], jump[1] * spec.stride[1]
        parameters = 0 if spec.pool else None
        flops = None
        if size is not None:
            h, w, c = size
            shape = _shape_of(spec, (batch, c or 1, h, w), f"explain: layer {number} ({spec.text})")
            if c is not None and (spec.pool or spec.filters is not None):
                flops = shape.flops
                if isinstance(shape, Conv2dShape):
                    parameters = shape.parameters(bias)
            size = shape.p, shape.q, c if spec.pool else spec.filters
        facts["layers"].append(
            {
                "layer": spec.text,
                "output": size,
                "parameters": parameters,
                "flops": flops,
                "receptive_field": receptive_field(windows),
                "jump": jump,
            }
        )
    for total in ("parameters", "flops"):
        values = [layer[total] for layer in facts["layers"]]
        facts[total] = None if None in values else sum(values)
    facts["receptive_field"] = receptive_field(windows)
    return facts


def _shape_of(spec: _Spec, input_shape: tuple[Any, ...], operation: str) -> Conv2dShape | PoolShape:
    if spec.pool:
        return PoolShape.of(
            input_shape,
            spec.size,
            stride=spec.stride,
            padding=spec.padding,
            operation=operation,
        )
    return Conv2dShape.of(
        input_shape,
        (spec.filters or 1, input_shape[1], *spec.size),
        stride=spec.stride,
        padding=spec.padding,
        dilation=spec.dilation,
        operation=operation,
    )


def _network_text(facts: dict[str, Any]) -> list[str]:
    rows = [("layer", "output", "parameters", "FLOPs", "receptive field", "jump")]
    rows.append(("input", _size(facts["input"]), "", "", "1x1", "1"))
    rows += [
        (
            layer["layer"],
            _size(layer["output"]),
            _count(layer["parameters"]),
            _count(layer["flops"]),
            by(layer["receptive_field"]),
            same_or(layer["jump"]),
        )
        for layer in facts["layers"]
    ]
    rows.append(("total", "", _count(facts["parameters"]), _count(facts["flops"]), "", ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # A long layer gives way, so that a table always fits 100 columns.
    widths[0] = min(widths[0], max(100 - sum(widths[1:]) - 2 * len(widths[1:]), 8))
    lines = []
    for first, *rest in rows:
        name = first if len(first) <= widths[0] else first[: widths[0] - 3] + "..."
        cells = (f"{cell:>{width}}" for cell, width in zip(rest, widths[1:], strict=True))
        lines.append("  ".join((f"{name:{widths[0]}}", *cells)).rstrip())
    lines += [
        "",
        "receptive field: + (window - 1) * jump a layer; jump: * stride a layer, the distance on",
        "the input between neighbouring outputs. A pooling's FLOPs: one an element of a window.",
    ]
    if facts["batch"] > 1:
        lines.append(f"FLOPs are those of a batch of {facts['batch']}.")
    if facts["input"] is None:
        lines.append("Give --input HxWxC for output sizes.")
    elif facts["flops"] is None:
        lines.append('Give every convolution its filters ("3x3 filters 16") for the "-".')
    return lines


def _spec(text: str) -> _Spec:
    """Parse one --layer."""
    got = f"explain: --layer is {text!r}"
    wanted = f'expected "{LAYER_SYNTAX}"'
    words_of_layer = text.split()
    words = list(words_of_layer)
    given: dict[str, str] = {}
    while words:
        word = words.pop(0).lower()
        if word in ("conv", "pool"):
            name, value = "kind", word
        elif word in ("filters", "stride", "dilation", "padding"):
            if not words:
                raise ValueError(f"{got}: {word} has no value; {wanted}")
            name, value = word, words.pop(0)
        elif word[0].isdigit():
            name, value = "size", word
        else:
            raise ValueError(f"{got}: {word!r} is no word of it; {wanted}")
        if name in given:
            raise ValueError(f"{got}: a second {name}, {value!r}; {wanted}")
        given[name] = value
    if "size" not in given:
        raise ValueError(f"{got}: no size in it; {wanted}")
    pool = given.get("kind") == "pool"
    for name in ("filters", "dilation"):
        if pool and name in given:
            wanted = '"pool SIZE [stride N] [padding P]"'
            raise ValueError(f"{got}: a pool has no {name}; expected {wanted}")
    size = _pair(f"size of layer {text!r}", given["size"])
    stride = size if pool else (1, 1)
    if "stride" in given:
        stride = _pair(f"stride of layer {text!r}", given["stride"])
    filters = None
    if "filters" in given:
        filters = _number(f"filters of layer {text!r}", given["filters"], 1)
    return _Spec(
        text=" ".join(words_of_layer),
        pool=pool,
        size=size,
        filters=filters,
        stride=stride,
        dilation=_pair(f"dilation of layer {text!r}", given.get("dilation", "1")),
        padding=_padding(f"padding of layer {text!r}", given.get("padding", "valid")),
    )


def _input(text: str) -> tuple[int, int, int]:
    match = re.fullmatch(r"(\d{1,18})[xX](\d{1,18})[xX](\d{1,18})", text, re.ASCII)
    if not match:
        raise ValueError(f"explain: --input is {text!r}; expected HxWxC, such as 32x32x3")
    h, w, c = (checks.integer("explain", "--input", int(part), 1) for part in match.groups())
    return h, w, c


def _pair(name: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,18})(?:[xX](\d{1,18}))?", text, re.ASCII)
    if not match:
        raise ValueError(f"explain: {name} is {text!r}; expected {PAIR_WANTED}")
    vertical, horizontal = int(match[1]), int(match[2] or match[1])
    return checks.pair("explain", name, (vertical, horizontal), 1)


def _number(name: str, text: str, minimum: int) -> int:
    if not re.fullmatch(r"\d{1,18}", text, re.ASCII):
        raise ValueError(f"explain: {name} is {text!r}; expected a whole number >= {minimum}")
    return checks.integer("explain", name, int(text), minimum)


def _padding(name: str, text: str) -> Any:
    """Return padding as the public face takes it."""
    if text.lower() in ("same", "valid"):
        return text.lower()
    sides = text.split(",")
    if len(sides) not in (1, 4) or not all(re.fullmatch(r"\d{1,18}", s, re.ASCII) for s in sides):
        raise ValueError(f"explain: {name} is {text!r}; expected {PADDING_WANTED}")
    top, bottom, left, right = map(int, (sides * 4)[:4])
    return (top, bottom), (left, right)


def _size(extents: Sequence[int | None] | None) -> str:
    return "-" if extents is None else "x".join("?" if e is None else str(e) for e in extents)


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
