"""Exercises 14 to 17: whole kernels of a network's layers, and `tiled` to beat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from kernels import compare
from kernels.exercises.against_tiled import below_tiled, below_tileds_bound, no_local_memory
from kernels.exercises.exercise import (
    BOTH,
    THREADS,
    Case,
    Exercise,
    ExerciseError,
    empty,
    exact_and_size,
    rounding,
    taps_of,
    vector,
)
from kernels.exercises.limits import Limit, bytes_asked
from kernels.shapes import Conv2dShape
from kernels.source import ceil_div

BLOCK = 128  # threads for a plane of the fused layer
RACE = Conv2dShape.of((4, 4, 32, 32), (16, 4, 3, 3), padding=1)
UNTOUCHED = Limit("bytes", partial(bytes_asked, array="map", operation="write", times=0))
# What a file sets for its launch, and the most that each may be.
LAUNCH = {"BLOCK_X": 1024, "BLOCK_Y": 1024, "TILE_P": 1024, "TILE_Q": 1024, "TILE_K": 1024}

_SHAPES = (
    Conv2dShape.of((2, 3, 9, 12), (4, 3, 3, 3), padding=1),
    Conv2dShape.of((1, 2, 11, 8), (3, 2, 5, 2), stride=(2, 3), padding=((2, 1), (0, 1))),
    Conv2dShape.of((2, 1, 7, 7), (2, 1, 3, 3), dilation=2),
)


def _im2col(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(14)
    cases = []
    for shape in _SHAPES:
        x = vector(rng, *shape.input_shape)
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), *shape.padding))
        want = np.stack(
            [
                padded[(slice(None), slice(None), *window)].transpose(1, 0, 2, 3)
                for window in _windows(shape)
            ],
            axis=1,
        ).reshape(shape.c * shape.r * shape.s, shape.n * shape.p * shape.q)
        args = {"x": x, "columns": empty(*want.shape), "shape": shape}
        grid = (ceil_div(want.size, THREADS),)
        cases.append(
            Case(_label(shape), grid, (THREADS,), args, {"columns": want}, {"columns": 0.0})
        )
    return cases


def _windows(shape: Conv2dShape) -> list[tuple[slice, slice]]:
    """Return what each tap selects of the padded rows and columns, taps in row order."""
    return [
        (
            slice(top, top + (shape.p - 1) * shape.stride_h + 1, shape.stride_h),
            slice(left, left + (shape.q - 1) * shape.stride_w + 1, shape.stride_w),
        )
        for top in range(0, shape.r * shape.dilation_h, shape.dilation_h)
        for left in range(0, shape.s * shape.dilation_w, shape.dilation_w)
    ]


def _conv_relu_pool(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(15)
    cases = []
    for filters, height, width in ((2, 14, 18), (3, 7, 9), (1, 4, 4)):
        x, w, b = vector(rng, height, width), vector(rng, filters, 3, 3), vector(rng, filters)
        sums, sizes = (
            bias[:, None, None]
            + sum(seen * taps[:, r, s, None, None] for r, s, seen in taps_of(a, 3, 3))
            for a, taps, bias in exact_and_size(x, w, b)
        )
        want = _pooled(np.maximum(sums, 0))
        args = {"x": x, "w": w, "b": b, "y": empty(*want.shape), "map": empty(*sums.shape)}
        extents = {"height": np.int32(height), "width": np.int32(width)}
        cases.append(
            Case(
                f"{height} x {width}, {filters} filters", (filters,), (BLOCK,), args | extents,
                {"y": want}, {"y": rounding(10, _pooled(sizes))}, scratch=("map",),
            )
        )  # fmt: skip
    return cases


def _pooled(maps: np.ndarray) -> np.ndarray:
    """Return the maxima of 2x2 windows; an odd row or column is in none."""
    rows, cols = maps.shape[1] // 2, maps.shape[2] // 2
    windows = maps[:, : 2 * rows, : 2 * cols].reshape(-1, rows, 2, cols, 2)
    return np.asarray(windows.max(axis=(2, 4)))


def _filter_gradient(source: str) -> Sequence[Case]:
    cases = []
    for number, shape in enumerate(_SHAPES):
        rng = np.random.default_rng([16, number])
        x, dy = vector(rng, *shape.input_shape), vector(rng, *shape.output_shape)
        (want,), (bound,) = compare.expected(
            "conv2d", "backward_filter", (x, dy), shape, compare.UNIT_ROUNDOFF["float32"]
        )
        args = {"x": x, "dy": dy, "dw": empty(*shape.filter_shape), "shape": shape}
        grid = (ceil_div(want.size, 32),)
        cases.append(Case(_label(shape), grid, (32,), args, {"dw": want}, {"dw": bound}))
    return cases


def _against_tiled(source: str) -> Sequence[Case]:
    sizes = launch_sizes(source)
    cases = []
    small = Conv2dShape.of((2, 3, 13, 21), (5, 3, 3, 3), padding=1)
    for number, shape in enumerate((RACE, small, Conv2dShape.of((1, 1, 3, 3), (1, 1, 3, 3)))):
        rng = np.random.default_rng([17, number])
        x, w, b = (
            vector(rng, *dims) for dims in (shape.input_shape, shape.filter_shape, (shape.k,))
        )
        (want,), (bound,) = compare.expected(
            "conv2d", "forward", (x, w, b), shape, compare.UNIT_ROUNDOFF["float32"]
        )
        args = {"x": x, "w": w, "b": b, "y": empty(*shape.output_shape), "shape": shape}
        grid = (
            ceil_div(shape.q, sizes["TILE_Q"]),
            ceil_div(shape.p, sizes["TILE_P"]),
            shape.n * ceil_div(shape.k, sizes["TILE_K"]),
        )
        block = (sizes["BLOCK_X"], sizes["BLOCK_Y"])
        cases.append(Case(_label(shape), grid, block, args, {"y": want}, {"y": bound}))
    return cases


def launch_sizes(source: str) -> dict[str, int]:
    """Return what a file's ``#define`` lines set for its launch.

    Raises
    ------
    ExerciseError
        One of `LAUNCH` is missing, or no number that CUDA can take.
    """
    sizes = {}
    for name, most in LAUNCH.items():
        line = rf"^[ \t]*#[ \t]*define[ \t]+{name}\b[ \t]*(.*?)[ \t]*(?://.*)?$"
        found = re.findall(line, source, re.MULTILINE)
        if len(found) != 1 or not re.fullmatch(r"\d{1,4}", found[0]):
            got = ", ".join(found) or "nothing"
            raise ExerciseError(
                f"#define {name}: got {got}; expected one line with a number, such as "
                f"'#define {name} 8': the launch is made of it"
            )
        sizes[name] = int(found[0])
        if not 1 <= sizes[name] <= most:
            raise ExerciseError(f"#define {name} {found[0]}: expected 1 to {most}")
    return sizes


def _label(shape: Conv2dShape) -> str:
    text = f"x {shape.input_shape}, w {shape.filter_shape}"
    extras: dict[str, tuple[Any, Any]] = {
        "stride": (shape.stride, (1, 1)),
        "padding": (shape.padding, ((0, 0), (0, 0))),
        "dilation": (shape.dilation, (1, 1)),
    }
    return text + "".join(
        f", {name} {got}" for name, (got, plain) in extras.items() if got != plain
    )


EXERCISES = (
    Exercise(
        14, "write_im2col", "Write im2col", "a convolution as a matrix product: its columns",
        "im2col", _im2col, ("right", "sanitiser"), languages=BOTH,
    ),
    Exercise(
        15, "fuse_relu_and_pool", "Fuse ReLU and pool", "what is never written costs nothing",
        "conv_relu_pool", _conv_relu_pool, ("bytes",), (UNTOUCHED,), BOTH,
    ),
    Exercise(
        16, "write_the_filter_gradient", "Write the filter gradient",
        "for each tap a sum of x times dy",
        "filter_gradient", _filter_gradient, ("right", "sanitiser"), languages=BOTH,
    ),
    Exercise(
        17, "beat_tiled", "Beat `tiled`", "more arithmetic for every value that is read",
        "conv3x3", _against_tiled, ("against tiled", "bound"),
        (
            Limit("against tiled", partial(below_tiled, shape=RACE)),
            Limit("bound", partial(below_tileds_bound, shape=RACE)),
            Limit("local memory", no_local_memory),
        ),
    ),
)  # fmt: skip
