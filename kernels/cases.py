"""The shapes a kernel is checked on: fixed ones that break the usual mistakes, and random ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kernels.shapes import BlockShape, Conv2dShape, PoolShape, Shape
from kernels.table import Row


def fixed(operation: str, where: str = "") -> list[Shape]:
    """Return the hand-picked shapes of an operation, small enough for an emulator.

    Numba's simulator takes about a millisecond for every thread with a barrier: for
    ``where="simulator"`` they are few and tiny, yet reach every branch of every kernel.
    """
    kinds: dict[str, tuple[tuple[Shape, ...], tuple[Shape, ...]]] = {
        "conv2d": (_CONV2D, _SIMULATED_CONV2D),
        "conv2d_relu_pool": (_BLOCK, _SIMULATED_BLOCK),
    }
    full, small = kinds.get(operation, (_POOL2D, _SIMULATED_POOL2D))
    return list(small if where == "simulator" else full)


def chosen(operation: str, where: str, count: int, seed: int) -> list[Shape]:
    """Return the fixed shapes for a place and `count` random ones, a tenth of it simulated."""
    if where == "simulator":
        count = -(-count // 10)
    return fixed(operation, where) + random(operation, count, seed)


def random(operation: str, count: int, seed: int) -> list[Shape]:
    """Return `count` random shapes, the same ones for the same seed."""
    rng = np.random.default_rng([seed, len(operation)])
    kinds: dict[str, Callable[[np.random.Generator], Shape]] = {
        "conv2d": _random_conv2d,
        "conv2d_relu_pool": _random_block,
    }
    draw = kinds.get(operation, _random_pool2d)
    return [draw(rng) for _ in range(count)]


def _conv(x: tuple[int, ...], w: tuple[int, ...], **options: Any) -> Conv2dShape:
    return Conv2dShape.of(x, w, **options)


def _block(x: tuple[int, ...], w: tuple[int, ...], **options: Any) -> BlockShape:
    return BlockShape.of(x, w, **options)


def _pool(x: tuple[int, ...], size: object, **options: Any) -> PoolShape:
    return PoolShape.of(x, size, **options)


# LeNet's layers, in few images.
LENET: dict[str, Shape] = {
    "conv1": _conv((2, 1, 28, 28), (6, 1, 5, 5), padding=2),
    "pool1": _pool((2, 6, 28, 28), 2),
    "conv2": _conv((3, 6, 14, 14), (16, 6, 5, 5)),
    "pool2": _pool((3, 16, 10, 10), 2),
    "block1": _block((2, 1, 28, 28), (6, 1, 5, 5), padding=2),
    "block2": _block((3, 6, 14, 14), (16, 6, 5, 5)),
}


def refuses_lenet(row: Row) -> str:
    """Return why a convolution does not take one of LeNet's layers, or nothing."""
    reasons = (
        row.refuses(direction, LENET[layer], "float32")
        for layer in ("conv1", "conv2")
        for direction in row.passes
    )
    return next(filter(None, reasons), "")


_CONV2D = (
    LENET["conv1"],
    LENET["conv2"],
    # Every dimension different, nothing a multiple of anything.
    _conv((3, 5, 11, 13), (7, 5, 2, 4)),
    # The smallest there is, and single rows, columns, channels, filters.
    _conv((1, 1, 1, 1), (1, 1, 1, 1)),
    _conv((2, 3, 1, 17), (2, 3, 1, 3)),
    _conv((2, 3, 17, 1), (2, 3, 3, 1)),
    _conv((1, 4, 5, 5), (1, 4, 5, 5)),
    # Outputs one less, equal and one more than the tiles 8x32 and 16x16.
    _conv((1, 2, 9, 33), (2, 2, 3, 3)),
    _conv((1, 1, 10, 34), (2, 1, 3, 3)),
    _conv((1, 2, 11, 35), (1, 2, 3, 3)),
    _conv((2, 1, 17, 18), (1, 1, 2, 2)),
    _conv((1, 1, 18, 19), (1, 1, 2, 2), padding=((0, 0), (1, 0))),
    # Tall and wide.
    _conv((1, 2, 70, 3), (2, 2, 3, 3), padding=1),
    _conv((1, 2, 3, 70), (2, 2, 3, 3), padding=1),
    # A stride beyond the filter: input that nobody reads, and strides that differ.
    _conv((2, 2, 13, 14), (3, 2, 2, 2), stride=(3, 4)),
    _conv((2, 3, 12, 11), (2, 3, 3, 3), stride=2, padding=1),
    _conv((1, 1, 40, 64), (1, 1, 3, 3), stride=(9, 20)),
    # Dilation, with padding, with a stride that shares a divisor with it and one that does not.
    _conv((1, 3, 12, 15), (2, 3, 3, 2), dilation=(2, 3), padding=(2, 3)),
    _conv((2, 1, 16, 17), (2, 1, 3, 3), dilation=2, stride=2, padding=3),
    _conv((1, 2, 16, 17), (2, 2, 3, 3), dilation=(4, 3), stride=(6, 2), padding=4),
    # SAME with odd remainders; asymmetric padding; padding beyond the filter.
    _conv((1, 2, 8, 9), (3, 2, 4, 2), padding="same"),
    _conv((1, 2, 8, 9), (3, 2, 5, 4), stride=(3, 2), padding="same"),
    _conv((2, 2, 6, 5), (2, 2, 3, 3), padding=((2, 0), (0, 3))),
    _conv((1, 1, 4, 4), (2, 1, 2, 2), padding=3),
    # 1x1: a plain matrix product; with a stride or padding no more.
    _conv((3, 5, 6, 7), (4, 5, 1, 1)),
    _conv((2, 3, 6, 7), (4, 3, 1, 1), stride=2),
    _conv((2, 3, 4, 5), (4, 3, 1, 1), padding=1),
    # Halos past any shared memory: the filter is taken some taps at a time.
    _conv((1, 1, 125, 124), (1, 1, 3, 3), dilation=60),
    _conv((1, 1, 30, 33), (1, 1, 19, 21)),
    # Many terms in one sum, many filters, many images.
    _conv((1, 40, 3, 3), (2, 40, 3, 3)),
    _conv((2, 2, 4, 4), (70, 2, 3, 3), padding=1),
    _conv((70, 1, 3, 3), (2, 1, 2, 2)),
)

_BLOCK = (
    LENET["block1"],
    LENET["block2"],
    # More images than any width of lanes, and not a multiple of it.
    _block((37, 1, 8, 8), (3, 1, 3, 3)),
    # Every dimension different, nothing a multiple of anything: windows that are not square.
    _block((3, 5, 11, 13), (7, 5, 2, 4), pool=(3, 2)),
    # One row and one column left over; a window over the whole output; windows of one element.
    _block((2, 2, 9, 11), (3, 2, 3, 3)),
    _block((2, 3, 7, 6), (2, 3, 3, 3), pool=(5, 4)),
    _block((2, 2, 6, 7), (3, 2, 2, 3), pool=1),
    _block((1, 1, 1, 1), (1, 1, 1, 1), pool=1),
    # Single rows and columns; tall and wide.
    _block((2, 3, 1, 17), (2, 3, 1, 3), pool=(1, 2)),
    _block((2, 3, 17, 1), (2, 3, 3, 1), pool=(2, 1)),
    _block((1, 2, 70, 4), (2, 2, 3, 3), padding=1),
    _block((1, 2, 4, 70), (2, 2, 3, 3), padding=1),
    # Stride, dilation and pads that all differ; a stride beyond the filter.
    _block((2, 2, 21, 22), (3, 2, 3, 2), stride=(2, 1), dilation=(1, 2), padding=((1, 0), (0, 2))),
    _block((1, 2, 25, 29), (2, 2, 2, 2), stride=(3, 4), pool=(2, 3)),
    _block((1, 2, 16, 17), (2, 2, 3, 3), dilation=(4, 3), stride=(3, 2), padding=4, pool=(2, 3)),
    # SAME with odd remainders; padding beyond the filter.
    _block((1, 2, 8, 9), (3, 2, 5, 4), stride=(3, 2), padding="same", pool=(1, 2)),
    _block((1, 1, 4, 4), (2, 1, 2, 2), padding=3, pool=3),
    # Many channels, many filters, and the largest window that an argmax can name.
    _block((1, 40, 4, 4), (2, 40, 3, 3)),
    _block((2, 2, 4, 4), (70, 2, 3, 3), padding=1),
    _block((1, 1, 19, 21), (2, 1, 3, 3), pool=(15, 17)),
)

_POOL2D = (
    LENET["pool1"],
    LENET["pool2"],
    _pool((1, 1, 1, 1), 1),
    _pool((2, 3, 7, 11), 2),
    _pool((2, 3, 9, 8), (3, 2), stride=(2, 3)),
    # Overlapping windows: one element in several.
    _pool((2, 2, 9, 10), 3, stride=1),
    _pool((1, 2, 11, 9), (4, 3), stride=(1, 2), padding=(2, 1)),
    # A stride beyond the window: input that no window sees.
    _pool((2, 2, 11, 12), 2, stride=(4, 3)),
    # Padding on every side, on one, and SAME with an odd remainder.
    _pool((2, 2, 6, 7), 3, stride=2, padding=1),
    _pool((2, 2, 6, 7), 3, stride=2, padding=((0, 2), (2, 0))),
    _pool((2, 3, 8, 9), (4, 2), stride=(3, 2), padding="same"),
    _pool((1, 2, 6, 7), 3, stride=2, padding=1, include_pad=True),
    _pool((1, 2, 6, 7), (3, 4), stride=(2, 3), padding=((1, 2), (0, 3)), include_pad=True),
    # One window over the whole plane; single rows and columns.
    _pool((3, 2, 5, 7), (5, 7)),
    _pool((2, 2, 1, 33), (1, 2)),
    _pool((2, 2, 33, 1), (2, 1)),
    _pool((41, 1, 4, 4), 2),
)

# Every second of them runs with the least workspace (the batch in slices), every fourth from the
# first on also in float64.
_SIMULATED_CONV2D = (
    # Strides, dilations and pads all different, where a gradient skips taps both ways; several
    # images, channels and filters.
    _conv((2, 2, 9, 10), (2, 2, 3, 4), stride=(4, 2), dilation=(2, 3), padding=((1, 0), (0, 2))),
    # Slices of the batch; SAME with an even filter.
    _conv((3, 1, 6, 5), (2, 1, 2, 3), padding="same"),
    # One row and one column more than a tile of 8x32: edge tiles both ways.
    _conv((1, 2, 11, 35), (1, 2, 3, 3)),
    # A plain matrix product.
    _conv((2, 2, 3, 4), (2, 2, 1, 1)),
    # A halo past shared memory: the filter is taken one row at a time.
    _conv((1, 1, 5, 6), (1, 1, 3, 3), dilation=60, padding=60),
)

_SIMULATED_BLOCK = (
    _block((2, 2, 13, 12), (2, 2, 3, 2), stride=(2, 1), dilation=(1, 2), padding=((1, 0), (0, 2))),
    _block((3, 1, 6, 7), (2, 1, 2, 3), padding="same", pool=(2, 3)),
    _block((1, 2, 9, 9), (3, 2, 3, 3)),
)

_SIMULATED_POOL2D = (
    # Overlapping windows with padding on three sides; several blocks.
    _pool((2, 3, 9, 8), (3, 2), stride=(2, 1), padding=((1, 1), (0, 1))),
    _pool((1, 2, 5, 6), 2),
    # A stride beyond the window, SAME, padding counted.
    _pool((2, 2, 7, 8), 2, stride=(4, 3)),
    _pool((2, 1, 8, 9), (4, 2), stride=(3, 2), padding="same"),
    _pool((1, 2, 6, 7), (3, 4), stride=(2, 3), padding=((1, 2), (0, 3)), include_pad=True),
)


def _random_conv2d(rng: np.random.Generator) -> Conv2dShape:
    n, c, k = (int(i) for i in rng.integers(1, 5, 3))
    r, s = (int(i) for i in rng.integers(1, 6, 2))
    stride = tuple(int(i) for i in rng.integers(1, 5, 2))
    dilation = tuple(int(i) for i in rng.integers(1, 4, 2))
    top, bottom, left, right = (int(i) for i in rng.integers(0, 4, 4))
    h, w = (
        max((taps - 1) * step + 1 - pads, 1) + int(rng.integers(0, 20))
        for taps, step, pads in zip((r, s), dilation, (top + bottom, left + right), strict=True)
    )
    padding = ((top, bottom), (left, right))
    return _conv((n, c, h, w), (k, c, r, s), stride=stride, dilation=dilation, padding=padding)


def _random_block(rng: np.random.Generator) -> BlockShape:
    conv = _random_conv2d(rng)
    pool = tuple(int(rng.integers(1, min(extent, 4) + 1)) for extent in (conv.p, conv.q))
    return _block(
        conv.input_shape, conv.filter_shape, stride=conv.stride, padding=conv.padding,
        dilation=conv.dilation, pool=pool,
    )  # fmt: skip


def _random_pool2d(rng: np.random.Generator) -> PoolShape:
    while True:
        n, c = (int(i) for i in rng.integers(1, 5, 2))
        r, s = (int(i) for i in rng.integers(1, 6, 2))
        h, w = (size + int(rng.integers(0, 20)) for size in (r, s))
        stride = tuple(int(i) for i in rng.integers(1, 7, 2))
        # A pad below the window's size, so that few draws have a window of padding alone.
        pads = [int(rng.integers(0, size)) for size in (r, r, s, s)]
        try:
            return _pool(
                (n, c, h, w),
                (r, s),
                stride=stride,
                padding=((pads[0], pads[1]), (pads[2], pads[3])),
                include_pad=bool(rng.integers(0, 2)),
            )
        except ValueError:  # the last window began in the padding: draw again
            continue
