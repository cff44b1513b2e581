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
from typing import Any

from kernels import checks
from kernels.shapes import Conv2dShape, PoolShape, receptive_field

LAYER_SYNTAX = "[conv | pool] SIZE [filters K] [stride N] [dilation N] [padding P]"
PAIR_WANTED = "N or RxS, such as 3 or 3x5"
PADDING_WANTED = "same, valid, N or T,B,L,R (top, bottom, left, right)"
ITEMSIZE = 4  # float32

# The picture's largest crops, in cells of two characters: both grids and a gap fit 100 columns.
INPUT_ROWS, INPUT_COLUMNS = 16, 26
OUTPUT_ROWS, OUTPUT_COLUMNS = 16, 16


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


def run(args: argparse.Namespace) -> int:
    """Explain what `args` describes; return the exit code, 0 or 2 (bad input, said on stderr)."""
    try:
        batch = _number("--batch", args.batch, 1)
        print("\n".join(_network(args, batch) if args.layer else _layer(args, batch)))
    except (TypeError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Parse `argv` and `run`."""
    parser = argparse.ArgumentParser(prog="python -m kernels explain")
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
    h, w, c = _input(args.input)
    size = _pair("--size", args.size)
    shape = Conv2dShape.of(
        (batch, c, h, w),
        (_number("--filters", args.filters, 1), c, *size),
        stride=_pair("--stride", _given(args.stride, "1")),
        padding=_padding("--padding", _given(args.padding, "valid")),
        dilation=_pair("--dilation", _given(args.dilation, "1")),
        operation="explain",
    )
    bias = not args.no_bias
    if args.json:
        return [json.dumps(_layer_facts(shape, bias))]
    return [*_layer_text(shape, bias), "", *_picture(shape)]


def _given(text: str | None, default: str) -> str:
    return default if text is None else text


def _layer_facts(shape: Conv2dShape, bias: bool) -> dict[str, Any]:
    taps = shape.c * shape.r * shape.s
    return {
        "input": shape.input_shape,
        "filters": shape.filter_shape,
        "output": shape.output_shape,
        "stride": shape.stride,
        "padding": shape.padding,
        "dilation": shape.dilation,
        "bias": bias,
        "parameters": shape.parameters(bias),
        "flops": shape.flops,
        "least_bytes": shape.least_bytes(ITEMSIZE),
        "intensity": shape.intensity(ITEMSIZE),
        "im2col": {
            "X_col": (taps, shape.p * shape.q),
            "W_row": (shape.k, taps),
            "product": (shape.k, shape.p * shape.q),
        },
        "receptive_field": receptive_field([shape]),
    }


def _layer_text(shape: Conv2dShape, bias: bool) -> list[str]:
    n, c, h, w, k, r, s, p, q = shape[:9]
    (top, bottom), (left, right) = shape.padding
    taps, outputs = c * r * s, p * q
    least, intensity = shape.least_bytes(ITEMSIZE), shape.intensity(ITEMSIZE)
    sizes = (n * c * h * w, k * taps, n * k * outputs)
    twice = receptive_field([shape, shape])
    lines = [
        f"Input {h}x{w}x{c}, {k} filters of {r}x{s}x{c}, stride {_same_or(shape.stride)}, "
        f"dilation {_same_or(shape.dilation)}, batch {n}",
        f"Padding in effect: top {top}, bottom {bottom}, left {left}, right {right}",
        "",
        f"Output size: {p}x{q}x{k}",
        *_extent("P", "H", "R", ("top", "bottom"), "row", h, (top, bottom), r, shape, 0),
        *_extent("Q", "W", "S", ("left", "right"), "column", w, (left, right), s, shape, 1),
        "",
        "Work",
        f"  parameters    K*(R*S*C){' + K' if bias else ''} = {k}*({r}*{s}*{c})"
        f"{f' + {k}' if bias else ''} = {shape.parameters(bias):,}"
        + ("" if bias else " (no bias)"),
        "  FLOPs         2*N*K*P*Q*C*R*S (a multiplication and an addition a tap)",
        f"                = 2*{n}*{k}*{p}*{q}*{c}*{r}*{s} = {shape.flops:,}",
        f"  least bytes   {ITEMSIZE}*(input + filters + output), each moved once in float32",
        f"                = {ITEMSIZE}*({' + '.join(f'{size:,}' for size in sizes)}) = {least:,}",
        f"  intensity     {shape.flops:,} / {least:,} = {intensity:.4g} FLOPs a byte",
        "",
        "As one matrix product (im2col)" + (", for each image of the batch" if n > 1 else ""),
        f"  X_col   (C*R*S) x (P*Q) = {taps} x {outputs}: a column holds what one output sees",
        f"  W_row   K x (C*R*S) = {k} x {taps}: a row is one filter",
        f"  W_row X_col = {k} x {outputs}, reshaped to {k} x {p} x {q} (K x P x Q)",
        f"  X_col holds {taps * outputs:,} numbers, {taps * outputs / (c * h * w):.3g} times the "
        f"input's {c * h * w:,}",
        "",
        "Receptive field",
        f"  one layer     {_by(shape.window)}: ({r} - 1)*{shape.dilation_h} + 1 rows, "
        f"({s} - 1)*{shape.dilation_w} + 1 columns",
        f"  two of them   {_by(twice)}",
    ]
    return lines


def _extent(
    out: str,
    extent_name: str,
    size_name: str,
    pad_names: tuple[str, str],
    unit: str,
    extent: int,
    pads: tuple[int, int],
    size: int,
    shape: Conv2dShape,
    axis: int,
) -> list[str]:
    """Work out the output size along one axis."""
    stride, dilation, window = shape.stride[axis], shape.dilation[axis], shape.window[axis]
    room = extent + sum(pads) - window
    steps, left_over = divmod(room, stride)
    lines = [
        f"  {out} = floor(({extent_name} + {' + '.join(pad_names)}"
        f" - (({size_name} - 1)*dilation + 1)) / stride) + 1",
        f"    = floor(({extent} + {pads[0]} + {pads[1]} - (({size} - 1)*{dilation} + 1))"
        f" / {stride}) + 1",
        f"    = floor({room} / {stride}) + 1 = {steps} + 1 = {steps + 1}",
    ]
    if left_over:
        rest = f"last {left_over} {unit}s are" if left_over > 1 else f"last {unit} is"
        lines.append(f"    the floor drops {left_over}/{stride}: the {rest} never read")
    return lines


def _picture(shape: Conv2dShape) -> list[str]:
    """Draw the padded input under the first two windows, and the output beside it."""
    (top, bottom), (left, right) = shape.padding
    height, width = shape.h + top + bottom, shape.w + left + right
    first = (0, 0)
    second = (0, 1) if shape.q > 1 else (1, 0) if shape.p > 1 else None

    def input_cell(row: int, column: int) -> str:
        inside = top <= row < top + shape.h and left <= column < left + shape.w
        in_first = _is_tap(shape, first, row, column)
        in_second = second is not None and _is_tap(shape, second, row, column)
        mark = {(True, False): "A", (False, True): "B", (True, True): "X"}.get(
            (in_first, in_second)
        )
        if mark is None:
            return "." if inside else "0"
        return mark if inside else mark.lower()

    def output_cell(row: int, column: int) -> str:
        return {first: "A", second: "B"}.get((row, column), ".")

    left_grid = _grid(height, width, INPUT_ROWS, INPUT_COLUMNS, input_cell)
    right_grid = _grid(shape.p, shape.q, OUTPUT_ROWS, OUTPUT_COLUMNS, output_cell)
    titles = f"input {shape.h}x{shape.w}, padded {height}x{width}", f"output {shape.p}x{shape.q}"
    column = max(len(line) for line in (titles[0], *left_grid)) + 6
    rows = max(len(left_grid), len(right_grid))
    left_grid += [""] * (rows - len(left_grid))
    right_grid += [""] * (rows - len(right_grid))
    lines = ["Picture (one channel)", f"  {titles[0]:{column}}{titles[1]}"]
    lines += [f"  {a:{column}}{b}".rstrip() for a, b in zip(left_grid, right_grid, strict=True)]
    lines += [
        "  A first window, B the next one stride on, X both (lower case: on padding)",
        "  . any other input, 0 padding; the outputs they give are A and B on the right",
    ]
    for name, extents, limits in (
        ("padded input", (height, width), (INPUT_ROWS, INPUT_COLUMNS)),
        ("output", (shape.p, shape.q), (OUTPUT_ROWS, OUTPUT_COLUMNS)),
    ):
        if extents[0] > limits[0] or extents[1] > limits[1]:
            shown = tuple(map(min, extents, limits))
            lines.append(f"  cropped: the first {_by(shown)} of the {name}'s {_by(extents)}")
    return lines


def _is_tap(shape: Conv2dShape, output: tuple[int, int], row: int, column: int) -> bool:
    """Tell whether the output reads this cell of the padded input."""
    down = row - output[0] * shape.stride_h
    across = column - output[1] * shape.stride_w
    return (
        0 <= down < shape.window[0]
        and 0 <= across < shape.window[1]
        and down % shape.dilation_h == 0
        and across % shape.dilation_w == 0
    )


def _grid(rows: int, columns: int, most_rows: int, most_columns: int, cell: Any) -> list[str]:
    """Draw a grid, its far rows and columns as ellipses when it is too large."""
    more = " ..." if columns > most_columns else ""
    lines = [
        " ".join(cell(row, column) for column in range(min(columns, most_columns))) + more
        for row in range(min(rows, most_rows))
    ]
    return [*lines, "..."] if rows > most_rows else lines


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
            _by(layer["receptive_field"]),
            _same_or(layer["jump"]),
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


def _by(extents: Sequence[int]) -> str:
    return "x".join(map(str, extents))


def _same_or(pair: Sequence[int]) -> str:
    """Write a pair, once where both are the same."""
    return str(pair[0]) if pair[0] == pair[1] else _by(pair)


def _size(extents: Sequence[int | None] | None) -> str:
    return "-" if extents is None else "x".join("?" if e is None else str(e) for e in extents)


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
