"""Direct convolution with register blocking (`register_tiled.cu`), gradients the same way.

A gradient to the input is a correlation as well: of dy with the filters turned round, one for each
phase of the stride, with only those taps that reach the phase's rows and columns.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kernels import workspace as workspaces
from kernels.conv2d import register_tiled_filter
from kernels.conv2d.bias import backward_bias
from kernels.conv2d.register_tiled_filter import backward_filter
from kernels.conv2d.shared_layout import Lanes, TooFarApartError, least_conflicts, struct_of
from kernels.shapes import Conv2dShape
from kernels.source import CudaSource, ceil_div

__all__ = [
    "backward_bias",
    "backward_data",
    "backward_filter",
    "forward",
    "refuses",
    "workspace_bytes",
]

# Filter sizes that are compiled in where stride and dilation are 1; 0 is any size, by the shape.
FILTERS_COMPILED = (3, 5, 0)
# Outputs in a row that a thread owns: 7 divides 224, 112, ... 7, and 5 LeNet's 10.
STRIP_COLS = (7, 5)
# A thread's filters are two 16-byte vectors.
VECTOR_BYTES = 16
# Half of the 48 KiB that every GPU gives a block, so that two blocks fit a multiprocessor.
SHARED_BYTES = 24 << 10
# Warps of a block, along strips and along filters; of two as good the first.
WARPS = ((1, 8), (2, 4), (4, 2), (8, 1), (1, 4), (2, 2), (4, 1), (1, 2), (2, 1), (1, 1))
MOST_FILTER_WARPS = 8
# A tile of no more groups of columns, so that it has some rows: their halos overlap.
MOST_GROUPS = 8
# Of a large GPU: a multiprocessor issues of SCHEDULERS warps at once.
MULTIPROCESSORS, SCHEDULERS = 132, 4
THREADS = 256

source = CudaSource(
    "conv2d/register_tiled.cu",
    [{"FILTER": size, "COLS": cols} for size in FILTERS_COMPILED for cols in STRIP_COLS],
)


class Tiling(NamedTuple):
    """How a correlation is cut up, and where its output lies: ``struct Tiling``."""

    images: int
    rows: int
    groups: int
    channels: int
    taps_r: int
    taps_s: int
    pitch: int
    plane: int
    out_h: int
    out_w: int
    first_row: int = 0
    row_step: int = 1
    first_col: int = 0
    col_step: int = 1

    @property
    def struct(self) -> np.void:
        """The value that the kernel takes."""
        return struct_of(self)


class Arrangement(NamedTuple):
    """Which of the filters' taps a correlation takes, in what order: ``struct Arrangement``."""

    filters: int
    taps_r: int
    taps_s: int
    r_first: int
    r_step: int
    s_first: int
    s_step: int
    k_stride: int
    c_stride: int
    r_stride: int

    @property
    def struct(self) -> np.void:
        """The value that the kernel takes."""
        return struct_of(self)


class Plan(NamedTuple):
    """A correlation's launch: the compiled variant, the block (32, y, z), the tiling."""

    filter: int
    cols: int
    strip_warps: int
    filter_warps: int
    tiling: Tiling

    def filters(self, itemsize: int) -> int:
        """Return the filters of a block."""
        return self.filter_warps * thread_filters(itemsize)

    def shared_bytes(self, itemsize: int) -> int:
        """Return the dynamic shared memory of a block: windows and filters, then the outputs."""
        tiling = self.tiling
        a_channel = tiling.images * tiling.plane
        a_channel += tiling.taps_r * tiling.taps_s * self.filters(itemsize)
        outputs = self.strip_warps * self.filter_warps * 32 * self.cols
        return max(tiling.channels * a_channel, outputs) * itemsize


class Phase(NamedTuple):
    """One axis of the input's gradient for the rows first, first + stride, ...: a correlation.

    Its row i sums dy's rows ``i - pad + j * dilation`` over `taps` taps j, which are the filter's
    taps ``tap_first + j * tap_step``.
    """

    first: int
    extent: int
    taps: int
    tap_first: int
    tap_step: int
    pad: int
    dilation: int


def forward(x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape, workspace: Any) -> None:
    """Write y (N,K,P,Q) from x (N,C,H,W), w (K,C,R,S) and b (K,) or None."""
    taps = (0, 1, 0, 1, shape.c * shape.r * shape.s, shape.r * shape.s, shape.s)
    _correlate(x, w, b, y, shape, taps, {}, workspace)


def backward_data(dy: Any, w: Any, dx: Any, shape: Conv2dShape, workspace: Any) -> None:
    """Write dx (N,C,H,W) from dy (N,K,P,Q) and w (K,C,R,S)."""
    for rows, cols, correlation in correlations(shape):
        taps = (
            rows.tap_first, rows.tap_step, cols.tap_first, cols.tap_step,
            shape.r * shape.s, shape.c * shape.r * shape.s, shape.s,
        )  # fmt: skip
        place = {
            "first_row": rows.first, "row_step": shape.stride_h,
            "first_col": cols.first, "col_step": shape.stride_w,
        }  # fmt: skip
        _correlate(dy, w, None, dx, correlation, taps, place, workspace)


def correlations(shape: Conv2dShape) -> Iterator[tuple[Phase, Phase, Conv2dShape]]:
    """Yield the correlations of dy that make up the input's gradient, with their phases."""
    for rows, cols in itertools.product(phases(shape, 0), phases(shape, 1)):
        yield rows, cols, Conv2dShape(
            shape.n, shape.k, shape.p, shape.q, shape.c, rows.taps, cols.taps,
            rows.extent, cols.extent, 1, 1, rows.pad, 0, cols.pad, 0, rows.dilation, cols.dilation,
        )  # fmt: skip


def phases(shape: Conv2dShape, axis: int) -> Iterator[Phase]:
    """Yield the correlations that make up the input's gradient along an axis: one a stride step."""
    stride, dilation, pad = shape.stride[axis], shape.dilation[axis], shape.padding[axis][0]
    size, extent = (shape.r, shape.s)[axis], (shape.h, shape.w)[axis]
    divisor = math.gcd(stride, dilation)
    step, move = stride // divisor, dilation // divisor
    for first in range(min(stride, extent)):
        # The taps through which some output reads these rows; every `step`-th, from the first on.
        taps = [tap for tap in range(size) if (first + pad - tap * dilation) % stride == 0]
        last = taps[-1] if taps else 0
        reach = (first + pad - last * dilation) // stride
        yield Phase(first, ceil_div(extent - first, stride), len(taps), last, -step, -reach, move)


def workspace_bytes(direction: str, shape: Conv2dShape, itemsize: int, limit: int) -> int:
    """Return the bytes of workspace a pass wants: the filters in the order the kernel reads them.

    Raises
    ------
    ValueError
        When they do not fit `limit`.
    """
    if direction == "backward_filter":
        return register_tiled_filter.workspace_bytes(shape, itemsize, limit)
    if direction in ("forward", "backward_data"):
        filters, channels = shape.k, shape.c
        if direction == "backward_data":
            filters, channels = channels, filters
        most = MOST_FILTER_WARPS * thread_filters(itemsize)
        needed = ceil_div(filters, most) * most * channels * shape.r * shape.s * itemsize
        if needed > limit:
            raise workspaces.refuse("conv2d", "register_tiled", needed, "its filters")
        return needed
    return 0


def refuses(direction: str, shape: Conv2dShape, dtype: str) -> str:
    """Return why a pass does not take a shape, or nothing."""
    itemsize = np.dtype(dtype).itemsize
    try:
        if direction == "forward":
            make_plan(shape, itemsize)
        if direction == "backward_data":
            for *_, correlation in correlations(shape):
                make_plan(correlation, itemsize)
        if direction == "backward_filter":
            register_tiled_filter.make_plan(shape, itemsize)
    except TooFarApartError as error:
        return str(error)
    return ""


def thread_filters(itemsize: int) -> int:
    """Return the filters of a thread."""
    return 2 * VECTOR_BYTES // itemsize


def _correlate(
    x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape, taps: tuple[int, ...],
    place: dict[str, int], workspace: Any,
) -> None:  # fmt: skip
    itemsize = x.dtype.itemsize
    plan = make_plan(shape, itemsize)
    filters = plan.filters(itemsize)
    arranged = workspace.view(x.dtype)
    elements = ceil_div(shape.k, filters) * filters * shape.c * shape.r * shape.s
    defines = {"FILTER": plan.filter, "COLS": plan.cols}
    tiling = plan.tiling._replace(out_h=y.shape[2], out_w=y.shape[3], **place)
    if elements:
        arrangement = Arrangement(filters, tiling.taps_r, tiling.taps_s, *taps)
        source.kernel("conv2d_register_tiled_arrange", like=x, **defines)(
            (ceil_div(elements, THREADS),), (THREADS,), (w, arranged, shape, arrangement)
        )
    source.kernel("conv2d_register_tiled", like=x, **defines)(
        (_blocks(shape, plan, itemsize),),
        (32, plan.strip_warps, plan.filter_warps),
        (x, arranged, b, y, shape, tiling),
        shared_mem=plan.shared_bytes(itemsize),
    )


@functools.lru_cache(maxsize=1024)
def make_plan(shape: Conv2dShape, itemsize: int) -> Plan:
    """Choose the launch of a correlation: the one that a large GPU is done with first.

    Parameters
    ----------
    shape
        The correlation's.
    itemsize
        Bytes an element.

    Raises
    ------
    TooFarApartError
        Not even what one strip of outputs reads through one tap fits shared memory.
    """
    plain = shape.stride == (1, 1) == shape.dilation and shape.r == shape.s
    size = shape.r if plain and shape.r in FILTERS_COMPILED else 0
    cols = min(STRIP_COLS, key=lambda cols: ceil_div(shape.q, cols) * cols)
    plans = [
        plan
        for strip_warps, filter_warps in WARPS
        # No more than one warp without filters.
        if filter_warps < 2 * ceil_div(shape.k, thread_filters(itemsize))
        if (plan := _fit(shape, itemsize, size, cols, strip_warps, filter_warps))
    ]

    if not plans:
        raise TooFarApartError(shape)

    def busiest(plan: Plan) -> int:
        """Return the warps that the busiest multiprocessor runs: all take as long as each other."""
        warps = plan.strip_warps * plan.filter_warps
        return max(ceil_div(_blocks(shape, plan, itemsize), MULTIPROCESSORS) * warps, SCHEDULERS)

    return min(plans, key=busiest)


def _blocks(shape: Conv2dShape, plan: Plan, itemsize: int) -> int:
    tiling = plan.tiling
    return (
        ceil_div(shape.k, plan.filters(itemsize))
        * ceil_div(shape.n, tiling.images)
        * ceil_div(shape.p, tiling.rows)
        * ceil_div(shape.q, tiling.groups * plan.cols)
    )


def _fit(
    shape: Conv2dShape, itemsize: int, size: int, cols: int, strip_warps: int, filter_warps: int
) -> Plan | None:
    """Return the plan of a block of these warps: with rows and images to fill it, or one strip."""
    strips = strip_warps * 32
    most_groups = min(ceil_div(shape.q, cols), MOST_GROUPS)
    most_rows = min(shape.p, strips // most_groups)
    whole = most_rows == shape.p and most_groups * cols >= shape.q
    most_images = min(shape.n, strips // (most_groups * most_rows)) if whole else 1
    room = SHARED_BYTES // itemsize
    filters = filter_warps * thread_filters(itemsize)
    for images, rows, groups in ((most_images, most_rows, most_groups), (1, 1, 1)):
        for taps_r, taps_s in _tap_chunks(shape, size):
            height = (rows - 1) * shape.stride_h + (taps_r - 1) * shape.dilation_h + 1
            width = (groups * cols - 1) * shape.stride_w + (taps_s - 1) * shape.dilation_w + 1
            factors = taps_r * taps_s * filters
            if images * height * width + factors > room:
                continue
            lanes = Lanes(images, rows, groups, shape.stride_h, cols * shape.stride_w, strip_warps)
            pitch, plane = least_conflicts(lanes, height, width, min(width, shape.w))
            if channels := room // (images * plane + factors):
                # Chunks of equal size: a last small one would waste two barriers.
                channels = ceil_div(shape.c, ceil_div(shape.c, channels))
                tiling = Tiling(images, rows, groups, channels, taps_r, taps_s, pitch, plane, 0, 0)
                return Plan(size, cols, strip_warps, filter_warps, tiling)
    return None


def _tap_chunks(shape: Conv2dShape, size: int) -> Iterator[tuple[int, int]]:
    """Yield the taps at a time that a plan may try: all, some rows, part of a row."""
    if size:
        yield size, size
        return
    taps_r, taps_s = max(shape.r, 1), max(shape.s, 1)  # a phase of a gradient may have no taps
    for r in range(taps_r, 0, -1):
        yield r, taps_s
    for s in range(taps_s - 1, 0, -1):
        yield 1, s
