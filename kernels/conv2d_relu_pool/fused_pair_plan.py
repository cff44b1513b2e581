"""How two layers behind each other are cut up: the macros of `fused_pair.cu` and its way back."""

from __future__ import annotations

import functools
import math

from kernels.conv2d_relu_pool.banks import even, least, places, whole_warps
from kernels.conv2d_relu_pool.fused_plan import (
    MOST_ROW,
    MOST_SUMS,
    MOST_UNROLLED,
    WORTH_COMPILING,
    Plan,
    Tile,
    backward_data,
    forward_on_banks,
)
from kernels.shapes import BlockShape
from kernels.source import ceil_div

# A pair's block: of a batch of 256 a multiprocessor has two, and 12 warps keep it busy.
PAIR_THREADS = 192
# Shared memory of a block, bytes: what every launch may have.
PAIR_ROOM = 48 << 10


def _cut(defines: dict[str, int | str]) -> str:
    """Return the fields of the .cu files' `Cut` of a pass's macros."""
    names = (
        "IMAGES", "FILTERS", "CHANNELS", "ROWS", "STRIP",
        "PITCH", "GROUP", "PLANE_PAD", "IMAGE_PAD", "PAD",
    )  # fmt: skip
    numbers = ",".join(str(defines[name]) for name in names)
    return f"{{{defines['LAYER']}}},{numbers}"


@functools.lru_cache(maxsize=64)
def make(first: BlockShape, second: BlockShape, itemsize: int) -> Plan | None:
    """Return the plan of the forward pass, or None where its layers are to be launched one by one.

    Parameters
    ----------
    first, second
        The second's input is the first's output.
    itemsize
        Bytes an element.
    """
    if any(map(any, second.padding)):
        return None
    tiles, cuts, filters = [], [], []
    # The second layer's channels are run through by several threads, before strips get shorter.
    lanes = whole_warps(second.k * second.pooled_p)
    parts = max(min(PAIR_THREADS // lanes, second.c), 1)
    for shape, threads in ((first, first.k * first.pooled_p), (second, lanes * parts)):
        strips = min(PAIR_THREADS // threads, shape.pooled_q)
        if shape._replace(n=1).flops // 2 < WORTH_COMPILING or strips == 0:
            return None
        tile = Tile(shape, shape.pooled_p, strips, shape.c)
        tile = tile._replace(strips=ceil_div(shape.pooled_q, tile.strip))  # none is empty
        (rows, cols), sums = tile.extent, tile.strip * shape.pool_r * shape.pool_s
        # What a thread has fits into registers, and the tile is all of the image.
        if (
            sums * itemsize > MOST_SUMS["forward"]
            or sums * shape.r * shape.s > MOST_UNROLLED
            or tile.seen[1] * itemsize > MOST_ROW
            or rows < shape.pad_top + shape.h
            or cols < shape.pad_left + shape.w
        ):
            return None
        tile, pad = forward_on_banks(
            tile.with_pitch(even(cols)), 1, shape.k, itemsize, lambda tile: True
        )
        tiles.append(tile)
        cuts.append(_cut(tile.defines(itemsize, 1, shape.k) | {"PAD": pad}))
        filters.append(shape.k * (shape.c * shape.r * shape.s + pad))
    lanes = whole_warps(second.k * second.pooled_p * tiles[1].strips)
    owners = first.k * first.pooled_p * tiles[0].strips, lanes * parts
    counts = [math.prod(shape.output_shape[1:]) for shape in (first, second)]
    handed = (parts - 1) * lanes * sums
    elements = (
        even(max(tiles[0].image, handed, counts[1])) + tiles[1].image
        + even(filters[0]) + filters[1]
    )  # fmt: skip
    shared_bytes = elements * itemsize + max(counts)
    if shared_bytes > PAIR_ROOM:
        return None
    defines: dict[str, int | str] = {
        "SCALAR": {4: "float", 8: "double"}[itemsize], "FIRST": cuts[0], "SECOND": cuts[1],
        "PARTS": parts,
    }  # fmt: skip
    return Plan(defines, 1, 1, whole_warps(max(owners)), shared_bytes)


@functools.lru_cache(maxsize=64)
def make_backward(first: BlockShape, second: BlockShape, itemsize: int) -> Plan | None:
    """Return the plan of what lies behind the second layer's dy, as for `make`."""
    works = (shape._replace(n=1).flops // 2 for shape in (first, second))
    if any(map(any, second.padding)) or min(works) < WORTH_COMPILING:
        return None
    for most_images in (8, 4, 2, 1):
        plan = backward_data(second, itemsize, most_images)
        if plan and (found := _backward_of(first, second, itemsize, plan)):
            return found
    return None


def _backward_of(
    first: BlockShape, second: BlockShape, itemsize: int, behind: Plan
) -> Plan | None:  # fmt: skip
    """Return the plan whose second layer is cut as the plan of its data gradient says."""
    cut = {name: int(value) for name, value in behind.defines.items() if isinstance(value, int)}
    strips = ceil_div(second.pooled_q, cut["STRIP"])
    between = Tile(
        second, cut["ROWS"], strips, cut["CHANNELS"],
        cut["PITCH"], cut["GROUP"], cut["PLANE_PAD"], cut["IMAGE_PAD"],
    )  # fmt: skip
    filters, fibers, taps = between.channels, first.c * first.r, second.r * second.s
    shares = behind.threads // (filters * fibers)
    if shares == 0 or between.extent[0] < second.h or between.extent[1] < second.w:
        return None
    # Lanes of a warp differ in row, in winner and in share, whose windows are neighbours.
    tile = Tile(first, first.pooled_p, 1, first.c)
    together = min(ceil_div(32, filters * fibers), shares, first.pooled_q)
    step_w = first.pool_s * first.stride_w

    def meet(tile: Tile) -> int:
        reads = {
            c * tile.plane
            + (r * first.dilation_h + down * first.stride_h) * tile.pitch
            + share * step_w
            + right * first.stride_w
            for c, r, down, right, share in places(
                first.c, first.r, first.pool_r, first.pool_s, together
            )
        }
        return len(reads) - len({at * itemsize // 4 % 32 for at in reads})

    tile = least((tile.with_pitch(tile.extent[1] + more) for more in range(33)), meet)
    entries = filters * first.pooled_p * first.pooled_q
    room = max(
        2 * cut["IMAGES"] * (cut["FILTERS"] * cut["ROWS"] * strips * cut["STRIP"] + cut["PAD"])
        + cut["FILTERS"] * filters * taps,
        cut["IMAGES"] * between.image,
        shares * filters * (fibers * first.s + 1),
    )
    elements = even(room) + cut["IMAGES"] * even(tile.image) + 2 * entries
    shared_bytes = elements * itemsize + cut["IMAGES"] * entries
    if shared_bytes > PAIR_ROOM:
        return None
    defines: dict[str, int | str] = {
        "SCALAR": {4: "float", 8: "double"}[itemsize],
        "FIRST": _cut(tile.defines(itemsize, 1, filters) | {"PAD": 0}),
        "SECOND": _cut(behind.defines),
    }
    return Plan(defines, behind.images, behind.tiles, behind.threads, shared_bytes)
