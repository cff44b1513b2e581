"""How a block's shared memory is laid out: plans as structs, and pitches without bank conflicts."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from kernels.shapes import Conv2dShape

BANKS = 32


class TooFarApartError(ValueError):
    """What a block reads does not fit its shared memory, however small the tile."""

    def __init__(self, shape: Conv2dShape) -> None:
        super().__init__(
            f"keeps what neighbouring outputs read in shared memory, and a stride of "
            f"{shape.stride} with a dilation of {shape.dilation} takes them too far apart"
        )


class Lanes(NamedTuple):
    """What the threads of some warps read at once, in words: (image, row, group) of each thread.

    Threads count groups fastest; neighbouring groups are `group_step` words apart, rows `row_step`
    pitches.
    """

    images: int
    rows: int
    groups: int
    row_step: int
    group_step: int
    warps: int


@functools.lru_cache(maxsize=4096)
def least_conflicts(lanes: Lanes, height: int, width: int, run: int) -> tuple[int, int]:
    """Return (pitch, plane): words between rows, and between images, of the least conflicts.

    Parameters
    ----------
    lanes
        Who reads.
    height, width
        Rows of a plane and words of a row: the least that there can be.
    run
        Words of a row that are written at once, the next row's by the next lanes.
    """
    strips = np.arange(lanes.images * lanes.rows * lanes.groups)[: lanes.warps * BANKS]
    group = strips % lanes.groups * lanes.group_step
    row = strips // lanes.groups % lanes.rows * lanes.row_step
    image = strips // (lanes.groups * lanes.rows)
    warp = strips // BANKS
    written = np.arange(run * height)
    request = written // BANKS * BANKS
    best = None
    for pitch in range(width, width + BANKS if lanes.rows > 1 else width + 1):
        into = written // run * pitch + written % run
        writes = np.bincount(request + into % BANKS, minlength=request[-1] + BANKS)
        write_passes = writes.reshape(-1, BANKS).max(axis=1).mean()
        for plane in range(height * pitch, height * pitch + (BANKS if lanes.images > 1 else 1)):
            bank = (image * plane + row * pitch + group) % BANKS
            passes = np.bincount(warp * BANKS + bank, minlength=lanes.warps * BANKS)
            read_passes = passes.reshape(-1, BANKS).max(axis=1).mean()
            conflicts = float(read_passes + write_passes)
            if best is None or (conflicts, plane) < best[0]:
                best = (conflicts, plane), (pitch, plane)
    assert best is not None
    return best[1]


def struct_of(plan: Any) -> np.void:
    """Return a named tuple of whole numbers as the struct of the same fields in a .cu file."""
    layout = np.dtype([(name, np.int32) for name in plan._fields])
    scalar: np.void = np.array([tuple(plan)], layout)[0]
    return scalar
