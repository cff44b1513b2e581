"""A layer in words and numbers: output size, work, im2col, receptive field, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kernels.shapes import Conv2dShape, PoolShape, receptive_field

ITEMSIZE = 4  # float32

# The picture's largest crops, in cells of two characters: both grids and a gap fit 100 columns.
INPUT_ROWS, INPUT_COLUMNS = 16, 26
OUTPUT_ROWS, OUTPUT_COLUMNS = 16, 16


def facts(shape: Conv2dShape, bias: bool) -> dict[str, Any]:
    """Return the figures of a layer, for a program."""
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


def text(shape: Conv2dShape, bias: bool) -> list[str]:
    """Return the arithmetic of a layer with its numbers put in: lines of at most 100 columns."""
    n, c, h, w, k, r, s, p, q = shape[:9]
    (top, bottom), (left, right) = shape.padding
    taps, outputs = c * r * s, p * q
    least, intensity = shape.least_bytes(ITEMSIZE), shape.intensity(ITEMSIZE)
    sizes = (n * c * h * w, k * taps, n * k * outputs)
    twice = receptive_field([shape, shape])
    lines = [
        f"Input {h}x{w}x{c}, {k} filters of {r}x{s}x{c}, stride {same_or(shape.stride)}, "
        f"dilation {same_or(shape.dilation)}, batch {n}",
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
        f"  one layer     {by(shape.window)}: ({r} - 1)*{shape.dilation_h} + 1 rows, "
        f"({s} - 1)*{shape.dilation_w} + 1 columns",
        f"  two of them   {by(twice)}",
    ]
    return lines


def pool_text(shape: PoolShape) -> list[str]:
    """Work out a pooling: its output size, comparisons or additions, and traffic."""
    lines = [
        f"Input {shape.h}x{shape.w}x{shape.c}, windows of {by(shape.window)}, stride "
        f"{same_or(shape.stride)}, batch {shape.n}; no parameters",
        f"Output size: {shape.p}x{shape.q}x{shape.c}",
    ]
    for axis, (out, extent_name, size_name, sides) in enumerate(
        (("P", "H", "R", "top + bottom"), ("Q", "W", "S", "left + right"))
    ):
        extent, pads = (shape.h, shape.w)[axis], shape.padding[axis]
        lines += [
            f"  {out} = floor(({extent_name} + {sides} - {size_name}) / stride) + 1",
            f"    = floor(({extent} + {pads[0]} + {pads[1]} - {shape.window[axis]}) / "
            f"{shape.stride[axis]}) + 1 = {(shape.p, shape.q)[axis]}",
        ]
    return [
        *lines,
        f"FLOPs, one an element of a window: N*C*P*Q*R*S = {shape.flops:,}",
        f"least bytes {shape.least_bytes(ITEMSIZE):,}, "
        f"intensity {shape.intensity(ITEMSIZE):.4g} FLOPs a byte",
    ]


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


def picture(shape: Conv2dShape) -> list[str]:
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
            lines.append(f"  cropped: the first {by(shown)} of the {name}'s {by(extents)}")
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


def by(extents: Sequence[int]) -> str:
    """Write extents: ``3x5``."""
    return "x".join(map(str, extents))


def same_or(pair: Sequence[int]) -> str:
    """Write a pair, once where both are the same."""
    return str(pair[0]) if pair[0] == pair[1] else by(pair)
