"""What a pass must compute and move, and where a measured time stands against the ceilings.

The floor is the larger of two times: the operations that the algorithm cannot do without over the
rate of a large matrix product, and the bytes that must cross memory over the rate of a large copy,
both measured on this device. A time below what the hardware can do is called impossible: the
kernel, the check or the clock is wrong.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from kernels import table
from kernels.shapes import BlockShape, PoolShape, Shape
from profiling.result_file import Ceilings, Row, Timing

# Where no data sheet gives a peak: no matrix product leaves more than this unused.
GEMM_HEADROOM = 1.25
# Rates of memory vary by some per cent from run to run; a limit is not to be missed by less.
MEMORY_HEADROOM = 1.1
# Below so many empty launches a kernel's time is mostly its launch.
LAUNCH_BOUND = 2.0

ARGMAX_BYTES = 4


class Work(NamedTuple):
    """What a pass does.

    Attributes
    ----------
    flops
        Of the direct algorithm, taps on padding counted, as everybody counts them.
    least_flops
        What the algorithm at hand cannot do without.
    input_bytes, output_bytes
        Each tensor once.
    """

    flops: int
    least_flops: int
    input_bytes: int
    output_bytes: int

    @property
    def least_bytes(self) -> int:
        """Input and output once each."""
        return self.input_bytes + self.output_bytes


class Standing(NamedTuple):
    """Where a time stands.

    Attributes
    ----------
    flops_per_s, bytes_per_s
        Of the direct algorithm's operations, and of the least bytes.
    of_gemm, of_copy
        As shares of the measured ceilings.
    floor_s
        Seconds that the device would take at its ceilings.
    bound
        What the floor is made of; ``"launch"`` where an empty launch takes half the time or more.
    impossible
        Which limit the time breaks, for a person; else empty.
    """

    flops_per_s: float
    bytes_per_s: float
    of_gemm: float
    of_copy: float
    floor_s: float
    bound: Literal["compute", "memory", "launch"]
    impossible: str


def work(row: table.Row | None, operation: str, direction: str, shape: Shape) -> Work:
    """Return what a pass in float32 computes and moves.

    Parameters
    ----------
    row
        The kernel; its module may define ``least_flops(direction, shape)`` where its algorithm
        needs fewer operations than the direct one. None for a peer, whose algorithm is not known
        and whose least operations are therefore 0.
    operation, direction, shape
        Of the pass.
    """
    itemsize = 4
    x, y = math.prod(shape.input_shape), math.prod(shape.output_shape)
    if not isinstance(shape, PoolShape):
        w = math.prod(shape.filter_shape)
        flops, is_sparse = shape.flops, False
        if isinstance(shape, BlockShape) and direction != "forward":
            flops, is_sparse = shape.sparse_flops, True
        direct = 2 * shape.n * shape.k * shape.c * _taps_inside(shape, is_sparse)
        inputs, outputs = {
            "forward": (x + w, y),
            "backward_data": (y + w, x),
            "backward_filter": (x + y, w),
            "backward_bias": (y, shape.k),
        }[direction]
        if direction == "backward_bias":
            flops = direct = y
        elif direction == "forward":
            inputs += shape.k
    else:
        flops, direct = shape.flops, shape.n * shape.c * _taps_inside(shape)
        inputs, outputs = (x, y) if direction == "forward" else (y, x)
    input_bytes, output_bytes = itemsize * inputs, itemsize * outputs
    if isinstance(shape, BlockShape):  # its argmax is a byte
        input_bytes += y if direction != "forward" else 0
        output_bytes += y if direction == "forward" else 0
    if operation == "max_pool2d":
        if direction == "forward":
            output_bytes += ARGMAX_BYTES * y
        else:
            input_bytes += ARGMAX_BYTES * y
            flops = direct = y
    if row is None:
        direct = 0
    elif hasattr(row.launchers, "least_flops"):
        direct = row.launchers.least_flops(direction, shape)
    return Work(flops, direct, input_bytes, output_bytes)


def standing(row: Row, timing: Timing, ceilings: Ceilings, *, cold: bool) -> Standing:
    """Return where one of a row's timings stands against the ceilings.

    Parameters
    ----------
    row
        For its operations and bytes.
    timing
        ``row.cold`` or ``row.hot``.
    ceilings
        Of the same run.
    cold
        Whether the caches were overwritten before each sample.
    """
    seconds = timing.median_s
    product = ceilings.product(row.precision)
    compute_s, memory_s = row.least_flops / product, row.least_bytes / ceilings.copy
    bound: Literal["compute", "memory", "launch"] = (
        "launch"
        if seconds < LAUNCH_BOUND * ceilings.launch_s
        else "compute"
        if compute_s >= memory_s
        else "memory"
    )
    return Standing(
        row.flops / seconds,
        row.least_bytes / seconds,
        row.flops / seconds / product,
        row.least_bytes / seconds / ceilings.copy,
        max(compute_s, memory_s),
        bound,
        _impossible(row, seconds, ceilings, cold),
    )


def _impossible(row: Row, seconds: float, ceilings: Ceilings, cold: bool) -> str:
    """Return the limit that a time breaks; what caches can hide counts in its favour."""
    peak = ceilings.peak if row.precision == "fp32" else None
    fastest = peak or GEMM_HEADROOM * ceilings.product(row.precision)
    if row.least_flops > seconds * fastest:
        source = "the hardware's" if peak else "a quarter above the measured GEMM's"
        return (
            f"{row.least_flops / seconds / 1e9:,.0f} GFLOP/s, and {fastest / 1e9:,.0f} is "
            f"{source} rate"
        )
    output_bytes = row.least_bytes - row.input_bytes
    if cold:  # what is written may stay in the cache until after the clock stops
        crossing = row.input_bytes + max(0, output_bytes - ceilings.cache_bytes)
    else:  # and what was read or written last may be there still
        crossing = max(0, row.least_bytes - 2 * ceilings.cache_bytes)
    rate = MEMORY_HEADROOM * max(ceilings.copy, ceilings.read)
    if crossing > seconds * rate:
        return (
            f"{crossing / seconds / 1e9:,.0f} GB/s from memory, and {rate / 1e9:,.0f} is a tenth "
            "above the measured rate"
        )
    return ""


def _taps_inside(shape: Shape, is_sparse: bool = False) -> int:
    """Return how many (output place, tap) pairs of one plane fall inside the image.

    Of a fused block's outputs those count that a window holds; for a gradient the one of each
    window that has the fewest.
    """
    dilation = (1, 1) if isinstance(shape, PoolShape) else shape.dilation
    pool, pooled = (1, 1), (shape.p, shape.q)
    if isinstance(shape, BlockShape):
        pool, pooled = shape.pool, (shape.pooled_p, shape.pooled_q)
    counts = []
    for axis, taps, pad, extent in (
        (0, shape.r, shape.pad_top, shape.h),
        (1, shape.s, shape.pad_left, shape.w),
    ):
        places = [i * shape.stride[axis] - pad for i in range(pooled[axis] * pool[axis])]
        inside = [sum(0 <= at + t * dilation[axis] < extent for t in range(taps)) for at in places]
        if is_sparse:
            inside = [min(inside[i : i + pool[axis]]) for i in range(0, len(inside), pool[axis])]
        counts.append(sum(inside))
    return counts[0] * counts[1]
