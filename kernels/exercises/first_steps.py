"""Exercises 1 to 6: which thread does what, and what a warp's addresses cost."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from kernels.exercises.exercise import (
    BOTH,
    THREADS,
    Case,
    Exercise,
    empty,
    exact_and_size,
    rounding,
    taps_of,
    vector,
)
from kernels.exercises.limits import COALESCED, Limit, warps_together, wide_access
from kernels.source import ceil_div


def _relu(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(1)
    cases = []
    for n in (4 * THREADS, THREADS):
        x = vector(rng, n)
        args = {"x": x, "y": empty(n), "n": np.int32(n)}
        want = {"y": np.maximum(x.astype(np.float64), 0)}
        cases.append(Case(f"{n:,} elements", (n // THREADS,), (THREADS,), args, want, {"y": 0.0}))
    return cases


def _filter_1d(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(2)
    cases = []
    for n, taps in ((1000, 5), (2 * THREADS, 3), (1, 4)):
        x, w = vector(rng, n + taps - 1), vector(rng, taps)
        want, size = (
            sum(a[s : s + n] * b[s] for s in range(taps)) for a, b in exact_and_size(x, w)
        )
        args = {"x": x, "w": w, "y": empty(n), "n": np.int32(n), "taps": np.int32(taps)}
        grid = (ceil_div(n, THREADS),)
        cases.append(
            Case(
                f"{n:,} outputs, {taps} taps", grid, (THREADS,), args,
                {"y": np.asarray(want)}, {"y": rounding(taps, np.asarray(size))},
            )
        )  # fmt: skip
    return cases


def _conv3x3_same(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(3)
    cases = []
    for height, width in ((16, 32), (13, 21), (1, 1)):
        x, w = vector(rng, height, width), vector(rng, 3, 3)
        want, size = (
            sum(seen * b[r, s] for r, s, seen in taps_of(np.pad(a, 1), 3, 3))
            for a, b in exact_and_size(x, w)
        )
        extents = {"height": np.int32(height), "width": np.int32(width)}
        grid = (ceil_div(width, 16), ceil_div(height, 8))
        cases.append(
            Case(
                f"{height} x {width}", grid, (16, 8), {"x": x, "w": w, "y": empty(height, width)}
                | extents, {"y": np.asarray(want)}, {"y": rounding(9, np.asarray(size))},
            )
        )  # fmt: skip
    return cases


def _add_bias(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(4)
    cases = []
    for rows, cols in ((64, 32), (7, 45), (1, 1)):
        x, b = vector(rng, rows, cols), vector(rng, rows)
        want, size = (a + c[:, None] for a, c in exact_and_size(x, b))
        args = {"x": x, "b": b, "y": empty(rows, cols)}
        extents = {"rows": np.int32(rows), "cols": np.int32(cols)}
        grid = (ceil_div(rows * cols, THREADS),)
        cases.append(
            Case(
                f"{rows} rows of {cols}", grid, (THREADS,), args | extents,
                {"y": want}, {"y": rounding(1, size)},
            )
        )  # fmt: skip
    return cases


def _scale(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(5)
    cases = []
    for n in (4096, 1023, 2):
        x, a = vector(rng, n), np.float32(1.7)
        want = x.astype(np.float64) * np.float64(a)
        args = {"x": x, "a": a, "y": empty(n), "n": np.int32(n)}
        grid = (ceil_div(ceil_div(n, 4), THREADS),)
        cases.append(
            Case(f"{n:,} elements", grid, (THREADS,), args, {"y": want},
                 {"y": rounding(1, np.abs(want))})
        )  # fmt: skip
    return cases


def _upsample(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(6)
    cases = []
    for n in (1024, 333, 1):
        x, w = vector(rng, n), vector(rng, 4)
        want, size = np.zeros(2 * n), np.zeros(2 * n)
        for total, (a, b) in zip((want, size), exact_and_size(x, w), strict=True):
            for tap in range(4):  # x[i] goes to y[2 i + tap]
                reached = total[tap::2]
                reached += a[: len(reached)] * b[tap]
        args = {"x": x, "w": w, "y": empty(2 * n), "n": np.int32(n)}
        grid = (ceil_div(2 * n, THREADS),)
        cases.append(
            Case(f"{n:,} elements", grid, (THREADS,), args, {"y": want},
                 {"y": rounding(2, size)})
        )  # fmt: skip
    return cases


EXERCISES = (
    Exercise(
        1, "hello_index", "Hello, index", "one thread an output: which one?",
        "relu", _relu, ("right", "sanitiser"), languages=BOTH,
    ),
    Exercise(
        2, "guard_the_edge", "Guard the edge", "the last block has more threads than outputs",
        "filter_1d", _filter_1d, ("sanitiser",), languages=BOTH,
    ),
    Exercise(
        3, "pad_the_edge", "Pad the edge", "SAME padding: where a tap lies outside of the image",
        "conv3x3_same", _conv3x3_same, ("right",), languages=BOTH,
    ),
    Exercise(
        4, "coalesce_this_load", "Coalesce this load",
        "neighbouring threads, neighbouring addresses",
        "add_bias", _add_bias, ("sectors",), (COALESCED,), BOTH,
    ),
    Exercise(
        5, "vector_load", "Load four at a time", "one 16-byte access instead of four of 4",
        "scale", _scale, ("sectors", "width of x", "width of y"),
        (
            COALESCED,
            Limit("width of x", partial(wide_access, array="x", operation="read")),
            Limit("width of y", partial(wide_access, array="y", operation="write")),
        ),
    ),
    Exercise(
        6, "keep_the_warp_together", "Keep the warp together", "a branch that splits every warp",
        "upsample_1d", _upsample, ("divergence",), (Limit("divergence", warps_together),),
    ),
)  # fmt: skip
