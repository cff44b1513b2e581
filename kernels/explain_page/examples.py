"""Example numbers for a layer of any size, and what the lab's own conv2d and pooling make of them.

An input or filter is a hash of its index, a small whole number, so that the page works any of them
out by itself (`arrays.js`) and a file holds none. Of the output it holds what the page shows:
windows at its edges and in its middle, of the first filters.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels import operations
from kernels.shapes import Conv2dShape, PoolShape
from kernels.training.counter_hash import absorb, mix

INPUT, FILTER, BIAS = 1, 2, 3

# What a page draws. A grid of numbers has at most so many cells a side, an output's tile fewer.
MOST_CELLS, MOST_OUTPUTS = 24, 12
MOST_FILTERS = 64
MOST_POOLED_CHANNELS = 4
# What a page may cost, over all its layers: outputs in the file, products to make them.
OUTPUTS, PRODUCTS = 100_000, 300_000_000
# What one layer may cost: products of an output that a browser forms at every move, input numbers.
MOST_TAPS, MOST_INPUT = 2**17, 2**24

Tiles = list[tuple[int, int]]


class Budget(NamedTuple):
    """A layer's share of the page: how many outputs, and how many products to make them."""

    outputs: int
    products: int

    @classmethod
    def of(cls, layers: int) -> Budget:
        """Return the share of each of `layers`."""
        return cls(OUTPUTS // layers, PRODUCTS // layers)


def example(kind: int, layer: int, index: np.ndarray) -> np.ndarray:
    """Return example numbers, float64: inputs 1 to 5, filters and biases -2 to 2.

    Parameters
    ----------
    kind
        `INPUT`, `FILTER` or `BIAS`.
    layer
        The layer's number on the page; each has its own.
    index
        Where the numbers are in their array, flat.
    """
    key = absorb(mix(np.array([kind], np.uint32)), np.uint32(layer))
    return (absorb(key, index.astype(np.uint32)) % 5).astype(float) + (1 if kind == INPUT else -2)


def encode(values: Any) -> str:
    """Return numbers for `arrays.js`: float32, little-endian, base64."""
    return base64.b64encode(np.asarray(values, "<f4").tobytes()).decode()


def tiles(outputs: int, stride: int, window: int) -> Tiles:
    """Return the ranges of outputs that the page shows along one axis, one at a time.

    All of them where three tiles hold them, else the first, a middle and the last one.
    """
    edge = max(1, min(MOST_OUTPUTS, (MOST_CELLS - window) // stride + 1))
    count = -(-outputs // edge)
    if count > 3:
        return [(at, at + edge) for at in (0, (outputs - edge) // 2, outputs - edge)]
    edge = -(-outputs // count)
    return [(at, min(at + edge, outputs)) for at in range(0, outputs, edge)]


def convolution(shape: Conv2dShape, layer: int, bias: bool, budget: Budget) -> dict[str, Any]:
    """Return a convolution for the page, with outputs by the reference kernel.

    Raises
    ------
    ValueError
        A layer of which not even one output fits a page.
    """
    taps = shape.c * shape.r * shape.s
    _check_size(shape, taps)
    rows, columns = _tiles(shape)
    places = _length(rows) * _length(columns)
    filters = max(
        1, min(shape.k, MOST_FILTERS, budget.outputs // places, budget.products // (places * taps))
    )
    w = example(FILTER, layer, np.arange(filters * taps)).reshape(filters, *shape.filter_shape[1:])
    b = example(BIAS, layer, np.arange(filters)) if bias else None
    y = np.empty((filters, _length(rows), _length(columns)))
    for piece, x, padding in _pieces(shape, layer, shape.c, rows, columns):
        y[piece] = operations.conv2d(
            x, w, b, stride=shape.stride, padding=padding, dilation=shape.dilation,
            kernel="reference",
        )[0]  # fmt: skip
    return {
        "shape": shape._asdict(), "window": shape.window, "bias": bias, "seed": layer,
        "tiles": [rows, columns], "filters": filters, "y": encode(y),
    }  # fmt: skip


def pooling(shape: PoolShape, layer: int, budget: Budget) -> dict[str, Any]:
    """Return a pooling for the page, with maxima, where they are, and averages by the reference.

    Raises
    ------
    ValueError
        As for `convolution`.
    """
    _check_size(shape, shape.r * shape.s)
    rows, columns = _tiles(shape)
    places = _length(rows) * _length(columns)
    channels = max(1, min(shape.c, MOST_POOLED_CHANNELS, budget.outputs // (3 * places)))
    extents = channels, _length(rows), _length(columns)
    greatest, at, mean = np.empty(extents), np.empty(extents), np.empty(extents)
    for piece, x, padding in _pieces(shape, layer, channels, rows, columns):
        options: dict[str, Any] = {
            "stride": shape.stride, "padding": padding, "kernel": "reference"
        }  # fmt: skip
        best, argmax = operations.max_pool2d(x, shape.window, return_argmax=True, **options)
        greatest[piece] = best[0]
        at[piece] = _tap(shape, argmax[0], x.shape[3], padding)
        mean[piece] = operations.avg_pool2d(x, shape.window, **options)[0]
    return {
        "shape": shape._asdict(), "window": shape.window, "seed": layer, "tiles": [rows, columns],
        "channels": channels, "max": encode(greatest), "argmax": encode(at), "mean": encode(mean),
    }  # fmt: skip


def _check_size(shape: Conv2dShape | PoolShape, taps: int) -> None:
    numbers = shape.c * max(MOST_CELLS, shape.window[0]) * max(MOST_CELLS, shape.window[1])
    for what, got, most in (
        ("products an output", taps, MOST_TAPS),
        ("input numbers under a window and its neighbours", numbers, MOST_INPUT),
    ):
        if got > most:
            raise ValueError(
                f"{got:,} {what}; expected at most {most:,} for a page: leave --html out, or "
                "explain a smaller layer of the same kind"
            )


def _tiles(shape: Conv2dShape | PoolShape) -> tuple[Tiles, Tiles]:
    rows = tiles(shape.p, shape.stride[0], shape.window[0])
    return rows, tiles(shape.q, shape.stride[1], shape.window[1])


def _length(axis: Tiles) -> int:
    return sum(stop - start for start, stop in axis)


def _pieces(
    shape: Conv2dShape | PoolShape, layer: int, channels: int, rows: Tiles, columns: Tiles
) -> Iterator[tuple[Any, np.ndarray, Any]]:
    """Yield for each tile where its outputs go, the input it sees, (1, C, H, W), and padding."""
    row_at = 0
    for row_tile in rows:
        column_at, row_end = 0, row_at + row_tile[1] - row_tile[0]
        for column_tile in columns:
            column_end = column_at + column_tile[1] - column_tile[0]
            h, pad_h = _seen(shape, 0, shape.h, row_tile)
            w, pad_w = _seen(shape, 1, shape.w, column_tile)
            c = np.arange(channels)[:, None, None]
            x = example(INPUT, layer, (c * shape.h + h[:, None]) * shape.w + w)
            x *= (h < shape.h)[:, None] & (w < shape.w)
            piece = slice(None), slice(row_at, row_end), slice(column_at, column_end)
            yield piece, x[None], (pad_h, pad_w)
            column_at = column_end
        row_at = row_end


def _seen(
    shape: Conv2dShape | PoolShape, axis: int, extent: int, tile: Sequence[int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the indices along one axis that a tile's outputs read, and the padding around them.

    A tile that reads padding alone gets one index past the end, which stands for one more zero.
    """
    stride, pad = shape.stride[axis], shape.padding[axis][0]
    first = tile[0] * stride - pad
    last = (tile[1] - 1) * stride - pad + shape.window[axis]
    low, high = max(first, 0), min(last, extent)
    if low >= high:
        return np.array([extent]), (0, last - first - 1)
    return np.arange(low, high), (low - first, last - high)


def _tap(shape: PoolShape, argmax: np.ndarray, width: int, padding: Any) -> np.ndarray:
    """Turn an index into a tile's input, (C, P, Q), into one into each output's own window."""
    p = np.arange(argmax.shape[1])[:, None]
    q = np.arange(argmax.shape[2])
    r = argmax // width + padding[0][0] - p * shape.stride[0]
    return r * shape.s + argmax % width + padding[1][0] - q * shape.stride[1]
