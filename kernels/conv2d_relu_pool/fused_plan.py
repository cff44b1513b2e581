"""How a pass of the fused block is cut up for a layer: the macros of `fused.cuh`, banks, blocks."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

from kernels.conv2d_relu_pool.banks import (
    conflicts,
    even,
    first_good,
    is_free_of_conflicts,
    least,
    places,
    whole_warps,
)
from kernels.shapes import CLOSED, BlockShape
from kernels.source import ceil_div

# Compiling takes about a second: not for layers with fewer multiply-adds an image than this.
WORTH_COMPILING = 1 << 16
# Registers of a thread, in bytes: its sums, and a row of its input. And products without a loop.
MOST_SUMS = {"forward": 256, "backward_data": 480}
MOST_ROW = 192
MOST_UNROLLED = 4096
MOST_THREADS = {"forward": 256, "backward_data": 256, "backward_filter": 512}
# The filter's gradient with x in registers: the sums of a thread, in bytes, threads for which there
# are registers, and lanes of a warp that have to be of use.
REUSE_SUMS, REUSE_THREADS, REUSE_LANES = 160, 256, 24
# Shared memory of a block, bytes: two fit a multiprocessor of every GPU since Turing.
ROOM = 32 << 10
# Blocks that are several, or one, for each of the largest GPU's 132 multiprocessors.
WANTED_BLOCKS = 512
MULTIPROCESSORS, SCHEDULERS = 132, 4  # the latter of each
# Of a warp, for a filter beside its products, and for an entry that a thread loads.
FILTER_INSTRUCTIONS, ENTRY_INSTRUCTIONS = 45, 10
NEARLY = 1.1  # times the fewest clocks, by a count that is no better than that


class Plan(NamedTuple):
    """One pass of one layer.

    Attributes
    ----------
    defines
        Macros of the .cu file.
    images
        Of the batch, in a block.
    tiles
        Blocks for these images; for the filter's gradient, for a slice of the batch.
    threads
        Of a block.
    shared_bytes
        Dynamic shared memory of a block.
    """

    defines: dict[str, int | str]
    images: int
    tiles: int
    threads: int
    shared_bytes: int


class Tile(NamedTuple):
    """The tile of `fused.cuh`: what ROWS x STRIPS threads see of an image, and where it lies."""

    shape: BlockShape
    rows: int
    strips: int
    channels: int
    pitch: int = 0
    group: int = 0
    plane_pad: int = 0
    image_pad: int = 0

    @property
    def strip(self) -> int:
        """Windows of a thread."""
        return ceil_div(self.shape.pooled_q, self.strips)

    @property
    def step(self) -> tuple[int, int]:
        """Rows and columns from a thread's windows to its neighbours'."""
        shape = self.shape
        return shape.pool_r * shape.stride_h, self.strip * shape.pool_s * shape.stride_w

    @property
    def seen(self) -> tuple[int, int]:
        """Rows and columns that a thread's windows see."""
        shape, (step_h, step_w) = self.shape, self.step
        window_h, window_w = shape.conv.window
        return step_h - shape.stride_h + window_h, step_w - shape.stride_w + window_w

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns that all threads see."""
        (step_h, step_w), (seen_h, seen_w) = self.step, self.seen
        return (self.rows - 1) * step_h + seen_h, (self.strips - 1) * step_w + seen_w

    @property
    def plane(self) -> int:
        """Elements from a channel to the next."""
        return ceil_div(self.extent[0], self.step[0]) * self.group + self.plane_pad

    @property
    def image(self) -> int:
        """Elements from an image to the next."""
        return self.channels * self.plane + self.image_pad

    def with_pitch(self, pitch: int, plane_pad: int = 0, image_pad: int = 0) -> Tile:
        """Return the tile with rows `pitch` apart."""
        group = self.step[0] * pitch
        return self._replace(pitch=pitch, group=group, plane_pad=plane_pad, image_pad=image_pad)

    def defines(self, itemsize: int, images: int, filters: int) -> dict[str, int | str]:
        """Return the macros."""
        return {
            "SCALAR": {4: "float", 8: "double"}[itemsize],
            "LAYER": ",".join(map(str, self.shape._replace(n=0))),
            "IMAGES": images, "FILTERS": filters, "CHANNELS": self.channels, "ROWS": self.rows,
            "STRIP": self.strip, "PITCH": self.pitch, "GROUP": self.group,
            "PLANE_PAD": self.plane_pad, "IMAGE_PAD": self.image_pad,
        }  # fmt: skip


@functools.lru_cache(maxsize=1024)
def make(direction: str, shape: BlockShape, itemsize: int) -> Plan | None:
    """Return the plan of a pass, or None where the layer is not compiled for itself.

    Parameters
    ----------
    direction
        ``"forward"``, ``"backward_data"`` or ``"backward_filter"``.
    shape
        The block's.
    itemsize
        Bytes an element.
    """
    work = shape._replace(n=1).flops // 2
    return None if work < WORTH_COMPILING else _PLANS[direction](shape, itemsize)


def _forward(shape: BlockShape, itemsize: int) -> Plan | None:
    window, taps = shape.pool_r * shape.pool_s, shape.r * shape.s
    strips = ceil_div(shape.pooled_q * window * itemsize, MOST_SUMS["forward"])
    tile, filters = Tile(shape, shape.pooled_p, strips, shape.c), shape.k
    unrolled = tile.strip * window * taps
    if strips > shape.pooled_q or unrolled > MOST_UNROLLED or tile.seen[1] * itemsize > MOST_ROW:
        return None

    def room(tile: Tile, images: int = 1) -> int:
        inputs = images * tile.image + filters * (tile.channels * taps + 1)
        outputs = images * filters * tile.rows * strips * tile.strip
        return max(inputs * itemsize, outputs * (itemsize + 4))

    most = MOST_THREADS["forward"]
    while True:
        tile = tile.with_pitch(even(tile.extent[1]))
        threads = filters * tile.rows * strips
        if threads <= most and room(tile) <= ROOM:
            break
        if threads > most and filters > 1:
            filters = ceil_div(filters, 2)
        elif threads <= most and tile.channels > 1:
            tile = tile._replace(channels=ceil_div(tile.channels, 2))
        elif tile.rows > 1:
            tile = tile._replace(rows=ceil_div(tile.rows, 2))
        else:
            return None

    # Several images, for the sake of full warps, where the batch has blocks enough.
    tiles = ceil_div(shape.k, filters) * ceil_div(shape.pooled_p, tile.rows)
    images = min(
        [1, *(n for n in range(2, most // threads + 1) if tiles * (shape.n // n) >= WANTED_BLOCKS)],
        key=lambda n: (room(tile, n) > ROOM, ceil_div(n * threads, 32) / n),
    )
    tile, filter_pad = forward_on_banks(
        tile, images, filters, itemsize, lambda tile: room(tile, images) <= ROOM
    )
    defines = tile.defines(itemsize, images, filters) | {"PAD": filter_pad}
    owners = images * filters * tile.rows * strips
    return Plan(defines, images, tiles, whole_warps(owners), room(tile, images))


def forward_on_banks(
    tile: Tile, images: int, filters: int, itemsize: int, fits: Callable[[Tile], bool]
) -> tuple[Tile, int]:
    """Return a tile, and what follows a filter, with which a warp's reads meet least on banks."""
    owners = places(images, filters, tile.rows, tile.strips)
    step_w = tile.step[1]

    def meet(tile: Tile) -> int:
        image = tile.image
        reads = [n * image + row * tile.group + s * step_w for n, _, row, s in owners]
        return conflicts(reads, 2 - step_w % 2, itemsize)

    padded = (
        tile._replace(group=tile.group + more, image_pad=pad)
        for more, pad in places(range(0, 66, 2), range(0, 66 if images > 1 else 1, 2))
    )
    tile = least((one for one in padded if one == tile or fits(one)), meet)
    taps = tile.channels * tile.shape.r * tile.shape.s
    filter_pad = least(
        range(2), lambda pad: conflicts([k * (taps + pad) for _, k, *_ in owners], 1, itemsize)
    )
    return tile, filter_pad


def _backward_filter(shape: BlockShape, itemsize: int) -> Plan | None:
    return _backward_filter_registers(shape, itemsize) or _backward_filter_shared(shape, itemsize)


def _backward_filter_registers(shape: BlockShape, itemsize: int) -> Plan | None:
    """Return the plan of `fused_backward_registers.cu`."""
    window, windows = shape.pool_r * shape.pool_s, shape.pooled_p * shape.pooled_q
    step_w = shape.pool_s * shape.stride_w
    seen_w = step_w - shape.stride_w + shape.conv.window[1]
    own = max(min(REUSE_SUMS // (shape.s * itemsize), shape.k + 3, 32) // 4 * 4, 4)
    if (
        window > CLOSED // 2
        or own * window * shape.s > MOST_UNROLLED
        or own * shape.s * itemsize > MOST_SUMS["forward"]
        or shape.pool_r * (seen_w + 1) * itemsize > MOST_ROW
    ):
        return None
    tile, teams = Tile(shape, shape.pooled_p, 1, shape.c), ceil_div(shape.k, own)
    pair = 2 - step_w % 2  # elements that are read at a time
    while True:
        tile = tile.with_pitch(ceil_div(tile.extent[1], pair) * pair)
        fibers, filters = tile.channels * shape.r, teams * own
        share_lanes = teams * whole_warps(fibers)
        merged = (4 * teams * fibers * shape.s + filters) * itemsize  # a share's, at a time
        # Windows in full rounds, and rather more threads than more rounds.
        shares = min(
            range(max(min(REUSE_THREADS // share_lanes, ROOM // merged), 1), 0, -1),
            key=lambda n: ceil_div(windows, n) * (n + 2),
        )
        spacing = windows * (filters + 4 if filters % 8 == 0 else filters)

        def room(tile: Tile) -> int:
            loaded = (spacing + tile.image) * itemsize + spacing  # noqa: B023
            return max(loaded, shares * merged)  # noqa: B023

        if share_lanes <= REUSE_THREADS and room(tile) <= ROOM:
            break
        if teams > 1:
            teams = ceil_div(teams, 2)
        elif tile.channels > 1:
            tile = tile._replace(channels=ceil_div(tile.channels, 2))
        else:
            return None
    if fibers * 32 < REUSE_LANES * whole_warps(fibers):
        return None

    def is_free(tile: Tile) -> bool:
        reads = [
            c * tile.plane + r * shape.dilation_h * tile.pitch
            for c, r in places(tile.channels, shape.r)
        ]
        return room(tile) <= ROOM and is_free_of_conflicts(reads, pair, itemsize)

    tile = first_good(
        (
            tile.with_pitch(tile.pitch + more, plane_pad=pad)
            for more, pad in places(range(0, 17, pair), range(0, 33, pair))
        ),
        is_free,
    )
    tiles = ceil_div(shape.k, filters) * ceil_div(shape.c, tile.channels)
    defines = tile.defines(itemsize, 1, filters) | {"SHARES": shares, "OWN": own}
    return Plan(defines, 1, tiles, shares * share_lanes, room(tile))


def _backward_filter_shared(shape: BlockShape, itemsize: int) -> Plan | None:
    """Return the plan of `fused_backward.cu`."""
    tile, filters = Tile(shape, shape.pooled_p, 1, shape.c), shape.k
    while True:
        tile = tile.with_pitch(tile.extent[1])
        # A filter has whole warps where that leaves few lanes idle.
        fibers = tile.channels * shape.r
        fiber_lanes = fibers if fibers < 24 else whole_warps(fibers)
        share_lanes = whole_warps(filters * fiber_lanes)
        shares = max(MOST_THREADS["forward"] // share_lanes, 1)
        entries = filters * shape.pooled_p * shape.pooled_q * 2
        sums = shares * filters * (fibers * shape.s + 1)

        def room(tile: Tile) -> int:
            return (entries + max(tile.image, sums)) * itemsize  # noqa: B023

        if share_lanes <= MOST_THREADS["backward_filter"] and room(tile) <= ROOM:
            break
        if filters > 1:
            filters = ceil_div(filters, 2)
        elif tile.channels > 1:
            tile = tile._replace(channels=ceil_div(tile.channels, 2))
        else:
            return None

    # A warp of one filter reads at one winner's place, one of several filters at any of them.
    alone = fiber_lanes % 32 == 0
    winners = places(*((1, 1) if alone else (shape.pool_r, shape.pool_s)), tile.channels, shape.r)

    def is_free(tile: Tile) -> bool:
        reads = [
            c * tile.plane
            + (r * shape.dilation_h + row * shape.stride_h) * tile.pitch
            + col * shape.stride_w
            for row, col, c, r in winners
        ]
        return room(tile) <= ROOM and is_free_of_conflicts(reads, 1, itemsize)

    tile = first_good(
        (
            tile.with_pitch(tile.pitch + more, plane_pad=pad)
            for more, pad in places(17, 33 if tile.channels > 1 else 1)
        ),
        is_free,
    )
    tiles = ceil_div(shape.k, filters) * ceil_div(shape.c, tile.channels)
    defines = tile.defines(itemsize, 1, filters) | {"SHARES": shares, "FIBER_LANES": fiber_lanes}
    return Plan(defines, 1, tiles, shares * share_lanes, room(tile))


def backward_data(shape: BlockShape, itemsize: int, most_images: int = 8) -> Plan | None:
    """Return the plan of the gradient to x, with at most so many images a block."""
    most, most_sums = MOST_THREADS["backward_data"], MOST_SUMS["backward_data"] // itemsize
    products = shape.pool_r * shape.pool_s * shape.r * shape.s

    def clocks(cut: tuple[int, int, int]) -> float:
        """Return a multiprocessor's, by the instructions of its scheduler that has most warps."""
        strips, images, channels = cut
        blocks = ceil_div(shape.n, images) * ceil_div(shape.c, channels)
        threads = channels * whole_warps(images * shape.pooled_p * strips)
        filled = images * shape.pooled_p * ceil_div(shape.pooled_q, strips) * strips / threads
        a_filter = ceil_div(shape.pooled_q, strips) * products + FILTER_INSTRUCTIONS
        warps = ceil_div(blocks, MULTIPROCESSORS) * threads / 32
        return max(warps / SCHEDULERS, 1) * (a_filter + ENTRY_INSTRUCTIONS * filled)

    cuts = [
        (strips, images, channels)
        for strips in range(1, shape.pooled_q + 1)
        if math.prod(Tile(shape, 1, strips, 1).seen) <= most_sums
        and ceil_div(shape.pooled_q, strips) * products <= MOST_UNROLLED
        for images in range(1, most_images + 1)
        for channels in range(shape.c, 0, -1)
        if channels * whole_warps(images * shape.pooled_p * strips) <= most
    ]
    if not cuts:
        return None
    cuts.sort(key=clocks)
    # Of those that are nearly the fastest the first whose sums are added without bank conflicts.
    best = [cut for cut in cuts[:6] if clocks(cut) <= NEARLY * clocks(cuts[0])]
    plans = []
    for cut in best:
        plan, is_free = _backward_data_of(shape, itemsize, *cut)
        if is_free:
            return plan
        plans.append(plan)
    return plans[0]


def _backward_data_of(
    shape: BlockShape, itemsize: int, strips: int, images: int, channels: int
) -> tuple[Plan | None, bool]:
    """Return the plan for a block's images and channels, and whether no adds meet on a bank."""
    lanes = whole_warps(images * shape.pooled_p * strips)
    tile, filters = Tile(shape, shape.pooled_p, strips, channels), shape.k
    tile = tile.with_pitch(tile.extent[1])
    windows = tile.rows * strips * tile.strip

    def room(tile: Tile, entries_pad: int = 0) -> int:
        entries = images * (filters * windows + entries_pad) * 2
        taps = filters * channels * shape.r * shape.s
        return max(entries + taps, images * tile.image) * itemsize

    while room(tile) > ROOM and filters > 1:
        filters = ceil_div(filters, 2)
    if room(tile) > ROOM:
        return None, False
    owners, step_w = places(images, tile.rows, strips), tile.step[1]

    def adds_freely(tile: Tile, images: int = images) -> bool:
        image = tile.image
        adds = [n * image + row * tile.group + s * step_w for n, row, s in owners if n < images]
        return room(tile) <= ROOM and is_free_of_conflicts(adds, 1, itemsize)

    def reads_freely(pad: int) -> bool:
        an_image = filters * windows + pad
        reads = [n * an_image + (row * strips + s) * tile.strip for n, row, s in owners]
        return room(tile, pad) <= ROOM and is_free_of_conflicts(
            [2 * at for at in reads], 2, itemsize
        )

    # Groups with which one image is free of conflicts; then pads between the images.
    grouped = [tile._replace(group=tile.group + more) for more in range(33)]
    alone = [tile for tile in grouped if adds_freely(tile, 1)] or [tile]
    pads = range(33 if images > 1 else 1)
    tile = first_good((tile._replace(image_pad=pad) for tile in alone for pad in pads), adds_freely)
    entries_pad = first_good(range(33), reads_freely)
    defines = tile.defines(itemsize, images, filters) | {"PAD": entries_pad}
    plan = Plan(
        defines, images, ceil_div(shape.c, channels), channels * lanes, room(tile, entries_pad)
    )
    return plan, adds_freely(tile)


_PLANS = {
    "forward": _forward,
    "backward_data": backward_data,
    "backward_filter": _backward_filter,
}
