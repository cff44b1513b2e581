"""Exercises 7 to 13: what the threads of a block, or of a warp, do together."""

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
from kernels.exercises.limits import (
    COALESCED,
    Limit,
    an_atomic_a_block,
    bytes_asked,
    no_bank_conflicts,
    no_shared_memory,
)
from kernels.source import ceil_div

TILE_W, TILE_H = 16, 8  # a block's outputs, one a thread
TRANSPOSED = 32
STAGED = Limit("bytes", partial(bytes_asked, array="x", operation="read", times=2.5))


def _conv5x5(source: str) -> Sequence[Case]:
    return [
        _conv(number, None, *size, 5) for number, size in enumerate(((20, 36), (14, 23), (5, 5)))
    ]


def _conv_channels(source: str) -> Sequence[Case]:
    return [
        _conv(number, *size, 3) for number, size in enumerate(((3, 10, 34), (2, 13, 9), (1, 3, 3)))
    ]


def _conv(seed: int, channels: int | None, height: int, width: int, size: int) -> Case:
    """Return a VALID convolution of one image to one plane."""
    rng = np.random.default_rng([7, seed])
    depth = () if channels is None else (channels,)
    x, w = vector(rng, *depth, height, width), vector(rng, *depth, size, size)
    want, bound = (
        sum(seen * b[..., r, s, None, None] for r, s, seen in taps_of(a, size, size))
        for a, b in exact_and_size(x, w)
    )
    want, bound = np.asarray(want), np.asarray(bound)
    if channels is not None:
        want, bound = want.sum(axis=0), bound.sum(axis=0)
    args = {"x": x, "w": w, "y": empty(*want.shape)}
    extents = {"height": np.int32(height), "width": np.int32(width)}
    counts = {} if channels is None else {"channels": np.int32(channels)}
    grid = (ceil_div(want.shape[1], TILE_W), ceil_div(want.shape[0], TILE_H))
    label = f"{height} x {width}" if channels is None else f"{channels} x {height} x {width}"
    return Case(
        label, grid, (TILE_W, TILE_H), args | counts | extents,
        {"y": want}, {"y": rounding(w.size, bound)},
    )  # fmt: skip


def _smooth(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(8)
    cases = []
    for n in (4 * THREADS, 1000, 3):
        x = vector(rng, n)
        want, size = (sum(np.pad(a, 1)[s : s + n] for s in range(3)) for (a,) in exact_and_size(x))
        args = {"x": x, "y": empty(n), "n": np.int32(n)}
        cases.append(
            Case(f"{n:,} elements", (ceil_div(n, THREADS),), (THREADS,), args,
                 {"y": np.asarray(want)}, {"y": rounding(3, np.asarray(size))})
        )  # fmt: skip
    return cases


def _transpose(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(9)
    cases = []
    for rows, cols in ((32, 64), (33, 35), (1, 5)):
        x = vector(rng, rows, cols)
        args = {"x": x, "y": empty(cols, rows)}
        extents = {"rows": np.int32(rows), "cols": np.int32(cols)}
        grid = (ceil_div(cols, TRANSPOSED), ceil_div(rows, TRANSPOSED))
        cases.append(
            Case(f"{rows} x {cols}", grid, (TRANSPOSED, 8), args | extents,
                 {"y": x.T.astype(np.float64)}, {"y": 0.0})
        )  # fmt: skip
    return cases


def _bias_gradient(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(10)
    cases = []
    for images, filters, plane in ((2, 3, 784), (1, 2, 100), (1, 1, 1)):
        dy = vector(rng, images, filters, plane)
        want, size = (a.sum(axis=(0, 2)) for (a,) in exact_and_size(dy))
        args = {"dy": dy, "db": np.zeros(filters, np.float32)}
        extents = {"filters": np.int32(filters), "plane": np.int32(plane)}
        cases.append(
            Case(
                f"{images} images, {filters} filters, planes of {plane}", (filters, images),
                (THREADS,), args | extents, {"db": want}, {"db": rounding(images * plane, size)},
            )
        )  # fmt: skip
    return cases


def _plane_means(source: str) -> Sequence[Case]:
    rng = np.random.default_rng(11)
    cases = []
    for planes, size in ((16, 64), (10, 49), (1, 3)):
        x = vector(rng, planes, size)
        want, magnitude = (a.mean(axis=1) for (a,) in exact_and_size(x))
        args = {"x": x, "y": empty(planes), "planes": np.int32(planes), "size": np.int32(size)}
        cases.append(
            Case(f"{planes} planes of {size}", (ceil_div(planes, 4),), (32, 4), args,
                 {"y": want}, {"y": rounding(size + 2, magnitude)})
        )  # fmt: skip
    return cases


EXERCISES = (
    Exercise(
        7, "stage_a_tile", "Stage a tile", "what neighbours share is read once, to shared memory",
        "conv5x5", _conv5x5, ("bytes",), (STAGED,), BOTH,
    ),
    Exercise(
        8, "halo_off_by_one", "Halo off by one", "how much input a tile of outputs needs",
        "conv5x5", _conv5x5, ("right", "sanitiser"), (STAGED,), BOTH,
    ),
    Exercise(
        9, "missing_barrier", "Find the missing barrier", "who overwrites what others still read",
        "conv_channels", _conv_channels, ("right", "sanitiser"), languages=BOTH,
    ),
    Exercise(
        10, "barrier_in_a_branch", "A barrier in a branch", "a barrier waits for every thread",
        "smooth", _smooth, ("sanitiser",), languages=BOTH,
    ),
    Exercise(
        11, "bank_conflict", "Remove the bank conflict", "32 banks, and a column that is in one",
        "transpose", _transpose, ("wavefronts",),
        (COALESCED, Limit("wavefronts", no_bank_conflicts)), BOTH,
    ),
    Exercise(
        12, "block_reduction", "Fewer atomics", "a block adds up before it adds to global memory",
        "bias_gradient", _bias_gradient, ("atomics",),
        (COALESCED, Limit("atomics", an_atomic_a_block)), BOTH,
    ),
    Exercise(
        13, "warp_shuffle", "Shuffle instead", "a warp adds up in registers",
        "plane_means", _plane_means, ("shared memory",),
        (COALESCED, Limit("shared memory", no_shared_memory)),
    ),
)  # fmt: skip
