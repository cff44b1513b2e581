"""The filter gradient of `register_tiled` (`register_tiled_filter.cu`)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kernels.conv2d.shared_layout import Lanes, TooFarApartError, least_conflicts, struct_of
from kernels.conv2d.slices import slices_bytes, slices_source, sum_slices
from kernels.shapes import Conv2dShape
from kernels.source import CudaSource, ceil_div

__all__ = ["backward_filter", "make_plan", "slices_source", "source", "workspace_bytes"]

VECTOR_BYTES = 16
# Three blocks fit a multiprocessor of 100 KiB.
SHARED_BYTES = 32 << 10
THREADS = (128, 64, 32)
# A block's filters at most, in threads of them: more of dy's tile would not be read more often.
MOST_GROUPS = 8
# Taps of one row that a thread owns where the filter's size is not compiled in.
TAPS = 4
WANTED_WARPS = 1056

source = CudaSource("conv2d/register_tiled_filter.cu", [{"FILTER": size} for size in (3, 5, 0)])


class FilterTiling(NamedTuple):
    """How the filter gradient is cut up: ``struct FilterTiling``."""

    channels: int
    groups: int
    shares: int
    taps_r: int
    taps_s: int
    rows: int
    cols: int
    pitch: int
    plane: int
    dy_pitch: int
    dy_row: int
    slices: int = 1

    @property
    def struct(self) -> np.void:
        """The value that the kernel takes."""
        return struct_of(self)


class Plan(NamedTuple):
    """A launch: the compiled filter size, threads and dynamic shared memory of a block, tiling."""

    filter: int
    threads: int
    shared_bytes: int
    tiling: FilterTiling


def backward_filter(x: Any, dy: Any, dw: Any, shape: Conv2dShape, workspace: Any = None) -> None:
    """Write dw (K,C,R,S) from x (N,C,H,W) and dy (N,K,P,Q); the workspace holds the slices."""
    plan = make_plan(shape, x.dtype.itemsize)
    partial = dw if workspace is None else workspace.view(dw.dtype)
    slices = partial.size // dw.size
    source.kernel("conv2d_register_tiled_backward_filter", like=x, FILTER=plan.filter)(
        (_blocks(shape, plan, x.dtype.itemsize) * slices,),
        (plan.threads,),
        (x, dy, partial, shape, plan.tiling._replace(slices=slices)),
        shared_mem=plan.shared_bytes,
    )
    sum_slices(partial, dw, shape)


def workspace_bytes(shape: Conv2dShape, itemsize: int, limit: int) -> int:
    """Return the bytes of workspace: a partial dw for each slice of the batch, none for one.

    A tight `limit` makes fewer slices, never an error.
    """
    plan = make_plan(shape, itemsize)
    warps = _blocks(shape, plan, itemsize) * plan.threads // 32
    wanted = min(ceil_div(WANTED_WARPS, warps), shape.n)
    return slices_bytes(wanted, shape, itemsize, limit)


def thread_filters(size: int, itemsize: int) -> int:
    """Return the filters of a thread: fewer where it has many taps."""
    return (1 if size == 5 else 2) * VECTOR_BYTES // itemsize


def _blocks(shape: Conv2dShape, plan: Plan, itemsize: int) -> int:
    tiling = plan.tiling
    return (
        ceil_div(shape.k, tiling.groups * thread_filters(plan.filter, itemsize))
        * ceil_div(shape.c, tiling.channels)
        * ceil_div(shape.r, tiling.taps_r)
        * ceil_div(shape.s, tiling.taps_s)
    )


@functools.lru_cache(maxsize=1024)
def make_plan(shape: Conv2dShape, itemsize: int) -> Plan:
    """Choose the block: the one with most threads at work, the larger of two such.

    Raises
    ------
    TooFarApartError
        Not even what a thread's taps read for one output fits shared memory.
    """
    plain = shape.stride == (1, 1) == shape.dilation and shape.r == shape.s
    size = shape.r if plain and shape.r in (3, 5) else 0
    plans = [
        plan for threads in THREADS if (plan := _fit(shape, itemsize, size, threads)) is not None
    ]
    if not plans:
        raise TooFarApartError(shape)
    return max(plans, key=lambda plan: _busy(shape, plan, itemsize))


def _busy(shape: Conv2dShape, plan: Plan, itemsize: int) -> float:
    """Return the share of the threads' products that the gradient wants."""
    tiling = plan.tiling
    shares = tiling.rows / (ceil_div(tiling.rows, tiling.shares) * tiling.shares)
    a_thread = thread_filters(plan.filter, itemsize) * (plan.filter**2 or TAPS)
    wanted = shape.k * shape.c * shape.r * shape.s
    return (
        wanted * tiling.shares * shares / (_blocks(shape, plan, itemsize) * plan.threads * a_thread)
    )


def _fit(shape: Conv2dShape, itemsize: int, size: int, threads: int) -> Plan | None:
    """Return the plan of so many threads with the largest tile of dy that fits."""
    filters = thread_filters(size, itemsize)
    all_groups = ceil_div(shape.k, filters)
    for taps_r, taps_s in _tap_blocks(shape, size, threads):
        owners = 1 if size else taps_r * ceil_div(taps_s, TAPS)
        groups = min(all_groups, MOST_GROUPS, threads // owners)
        groups = ceil_div(all_groups, ceil_div(all_groups, groups))  # blocks of equal size
        most = min(shape.c, threads // (owners * groups))
        for channels in (ceil_div(shape.c, ceil_div(shape.c, most)), 1):
            for rows, cols in _tiles(shape):
                shares = min(rows, threads // (owners * groups * channels))
                dy_pitch = groups * filters * itemsize // VECTOR_BYTES | 1
                dy_row = cols * dy_pitch | 1
                taps = size or ceil_div(taps_s, TAPS) * TAPS
                height = (rows - 1) * shape.stride_h + (taps_r - 1) * shape.dilation_h + 1
                width = (cols - 1) * shape.stride_w + (taps - 1) * shape.dilation_w + 1
                if height * width * itemsize > SHARED_BYTES:
                    continue
                # Threads run along shares, that is rows, then channels.
                lanes = Lanes(channels, shares, 1, shape.stride_h, 0, threads // 32)
                pitch, plane = least_conflicts(lanes, height, width, min(width, shape.w))
                shared = max(
                    rows * dy_row * VECTOR_BYTES + channels * plane * itemsize,
                    threads * ((size * size or TAPS) | 1) * itemsize,
                )
                if shared <= SHARED_BYTES:
                    tiling = FilterTiling(
                        channels, groups, shares, taps_r, taps_s, rows, cols,
                        pitch, plane, dy_pitch, dy_row,
                    )  # fmt: skip
                    return Plan(size, threads, shared, tiling)
    return None


def _tap_blocks(shape: Conv2dShape, size: int, threads: int) -> Iterator[tuple[int, int]]:
    """Yield the taps that a block may own, the most first."""
    for taps_r in (size,) if size else range(shape.r, 0, -1):
        if size or taps_r * ceil_div(shape.s, TAPS) <= threads:
            yield taps_r, shape.s
    if not size:
        yield 1, min(shape.s, TAPS)


def _tiles(shape: Conv2dShape) -> Iterator[tuple[int, int]]:
    """Yield tiles of dy: whole rows while they fit, then parts of one."""
    cols = shape.q
    rows = shape.p
    while rows > 1:
        yield rows, cols
        rows = ceil_div(rows, 2)
    while cols > 1:
        yield 1, cols
        cols = ceil_div(cols, 2)
    yield 1, 1
