"""How a pass of the fused block is cut up for a layer: the macros of `fused.cuh`, banks, blocks."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

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
# A pair's block: of a batch of 256 a multiprocessor has two, and 12 warps keep it busy.
PAIR_THREADS = 192
PAIR_ROOM = 48 << 10
MULTIPROCESSORS, SCHEDULERS = 132, 4  # the latter of each
# Of a warp, for a filter beside its products, and for an entry that a thread loads.
FILTER_INSTRUCTIONS, ENTRY_INSTRUCTIONS = 45, 10
NEARLY = 1.1

T = TypeVar("T")


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
        tile = tile.with_pitch(_even(tile.extent[1]))
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
    tile, filter_pad = _forward_on_banks(
        tile, images, filters, itemsize, lambda tile: room(tile, images) <= ROOM
    )
    defines = tile.defines(itemsize, images, filters) | {"PAD": filter_pad}
    owners = images * filters * tile.rows * strips
    return Plan(defines, images, tiles, _whole_warps(owners), room(tile, images))


def _forward_on_banks(
    tile: Tile, images: int, filters: int, itemsize: int, fits: Callable[[Tile], bool]
) -> tuple[Tile, int]:
    """Return a tile, and what follows a filter, with which a warp's reads meet least on banks."""
    owners = _places(images, filters, tile.rows, tile.strips)
    step_w = tile.step[1]

    def meet(tile: Tile) -> int:
        image = tile.image
        reads = [n * image + row * tile.group + s * step_w for n, _, row, s in owners]
        return _conflicts(reads, 2 - step_w % 2, itemsize)

    padded = (
        tile._replace(group=tile.group + more, image_pad=pad)
        for more, pad in _places(range(0, 66, 2), range(0, 66 if images > 1 else 1, 2))
    )
    tile = _least((one for one in padded if one == tile or fits(one)), meet)
    taps = tile.channels * tile.shape.r * tile.shape.s
    filter_pad = _least(
        range(2), lambda pad: _conflicts([k * (taps + pad) for _, k, *_ in owners], 1, itemsize)
    )
    return tile, filter_pad


def _cut(defines: dict[str, int | str]) -> str:
    """Return the fields of the .cu files' `Cut` of a pass's macros."""
    names = (
        "IMAGES", "FILTERS", "CHANNELS", "ROWS", "STRIP",
        "PITCH", "GROUP", "PLANE_PAD", "IMAGE_PAD", "PAD",
    )  # fmt: skip
    numbers = ",".join(str(defines[name]) for name in names)
    return f"{{{defines['LAYER']}}},{numbers}"


class PairPlan(NamedTuple):
    """A pass of two layers, one behind the other (`fused_pair.cu`, `fused_pair_backward.cu`).

    Attributes
    ----------
    defines
        Macros of the .cu file.
    threads
        Of a block.
    shared_bytes
        Dynamic shared memory of a block.
    images, tiles
        As of a `Plan`.
    """

    defines: dict[str, int | str]
    threads: int
    shared_bytes: int
    images: int = 1
    tiles: int = 1


@functools.lru_cache(maxsize=64)
def make_pair(first: BlockShape, second: BlockShape, itemsize: int) -> PairPlan | None:
    """Return the plan of a pair, or None where its layers are to be launched one by one.

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
    lanes = _whole_warps(second.k * second.pooled_p)
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
        tile, pad = _forward_on_banks(
            tile.with_pitch(_even(cols)), 1, shape.k, itemsize, lambda tile: True
        )
        tiles.append(tile)
        cuts.append(_cut(tile.defines(itemsize, 1, shape.k) | {"PAD": pad}))
        filters.append(shape.k * (shape.c * shape.r * shape.s + pad))
    lanes = _whole_warps(second.k * second.pooled_p * tiles[1].strips)
    owners = first.k * first.pooled_p * tiles[0].strips, lanes * parts
    counts = [math.prod(shape.output_shape[1:]) for shape in (first, second)]
    handed = (parts - 1) * lanes * sums
    elements = (
        _even(max(tiles[0].image, handed, counts[1])) + tiles[1].image
        + _even(filters[0]) + filters[1]
    )  # fmt: skip
    shared_bytes = elements * itemsize + max(counts)
    if shared_bytes > PAIR_ROOM:
        return None
    defines: dict[str, int | str] = {
        "SCALAR": {4: "float", 8: "double"}[itemsize], "FIRST": cuts[0], "SECOND": cuts[1],
        "PARTS": parts,
    }  # fmt: skip
    return PairPlan(defines, _whole_warps(max(owners)), shared_bytes)


@functools.lru_cache(maxsize=64)
def make_pair_backward(first: BlockShape, second: BlockShape, itemsize: int) -> PairPlan | None:
    """Return the plan of what lies behind the second layer's dy, as for `make_pair`."""
    works = (shape._replace(n=1).flops // 2 for shape in (first, second))
    if any(map(any, second.padding)) or min(works) < WORTH_COMPILING:
        return None
    for most_images in (8, 4, 2, 1):
        plan = _backward_data(second, itemsize, most_images)
        if plan and (found := _pair_backward_of(first, second, itemsize, plan)):
            return found
    return None


def _pair_backward_of(
    first: BlockShape, second: BlockShape, itemsize: int, behind: Plan
) -> PairPlan | None:  # fmt: skip
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
            c * tile.plane + row * tile.pitch + share * step_w + col * first.stride_w
            for c, r, down, col, share in _places(
                first.c, first.r, first.pool_r, first.pool_s, together
            )
            for row in (r * first.dilation_h + down * first.stride_h,)
        }
        return len(reads) - len({at * itemsize // 4 % 32 for at in reads})

    tile = _least((tile.with_pitch(tile.extent[1] + more) for more in range(33)), meet)
    entries = filters * first.pooled_p * first.pooled_q
    room = max(
        2 * cut["IMAGES"] * (cut["FILTERS"] * cut["ROWS"] * strips * cut["STRIP"] + cut["PAD"])
        + cut["FILTERS"] * filters * taps,
        cut["IMAGES"] * between.image,
        shares * filters * (fibers * first.s + 1),
    )
    elements = _even(room) + cut["IMAGES"] * _even(tile.image) + 2 * entries
    shared_bytes = elements * itemsize + cut["IMAGES"] * entries
    if shared_bytes > PAIR_ROOM:
        return None
    defines: dict[str, int | str] = {
        "SCALAR": {4: "float", 8: "double"}[itemsize],
        "FIRST": _cut(tile.defines(itemsize, 1, filters) | {"PAD": 0}),
        "SECOND": _cut(behind.defines),
    }
    return PairPlan(defines, behind.threads, shared_bytes, behind.images, behind.tiles)


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
        share_lanes = teams * _whole_warps(fibers)
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
    if fibers * 32 < REUSE_LANES * _whole_warps(fibers):
        return None

    def is_free(tile: Tile) -> bool:
        reads = [
            c * tile.plane + r * shape.dilation_h * tile.pitch
            for c, r in _places(tile.channels, shape.r)
        ]
        return room(tile) <= ROOM and _is_free(reads, pair, itemsize)

    tile = _first(
        (
            tile.with_pitch(tile.pitch + more, plane_pad=pad)
            for more, pad in _places(range(0, 17, pair), range(0, 33, pair))
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
        fiber_lanes = fibers if fibers < 24 else _whole_warps(fibers)
        share_lanes = _whole_warps(filters * fiber_lanes)
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
    places = _places(*((1, 1) if alone else (shape.pool_r, shape.pool_s)), tile.channels, shape.r)

    def is_free(tile: Tile) -> bool:
        reads = [
            c * tile.plane
            + (r * shape.dilation_h + row * shape.stride_h) * tile.pitch
            + col * shape.stride_w
            for row, col, c, r in places
        ]
        return room(tile) <= ROOM and _is_free(reads, 1, itemsize)

    tile = _first(
        (
            tile.with_pitch(tile.pitch + more, plane_pad=pad)
            for more, pad in _places(17, 33 if tile.channels > 1 else 1)
        ),
        is_free,
    )
    tiles = ceil_div(shape.k, filters) * ceil_div(shape.c, tile.channels)
    defines = tile.defines(itemsize, 1, filters) | {"SHARES": shares, "FIBER_LANES": fiber_lanes}
    return Plan(defines, 1, tiles, shares * share_lanes, room(tile))


def _backward_data(shape: BlockShape, itemsize: int, most_images: int = 8) -> Plan | None:
    most, most_sums = MOST_THREADS["backward_data"], MOST_SUMS["backward_data"] // itemsize
    products = shape.pool_r * shape.pool_s * shape.r * shape.s

    def clocks(cut: tuple[int, int, int]) -> float:
        """Return a multiprocessor's, by the instructions of its scheduler that has most warps."""
        strips, images, channels = cut
        blocks = ceil_div(shape.n, images) * ceil_div(shape.c, channels)
        threads = channels * _whole_warps(images * shape.pooled_p * strips)
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
        if channels * _whole_warps(images * shape.pooled_p * strips) <= most
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
    lanes = _whole_warps(images * shape.pooled_p * strips)
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
    owners, step_w = _places(images, tile.rows, strips), tile.step[1]

    def adds_freely(tile: Tile, images: int = images) -> bool:
        image = tile.image
        adds = [n * image + row * tile.group + s * step_w for n, row, s in owners if n < images]
        return room(tile) <= ROOM and _is_free(adds, 1, itemsize)

    def reads_freely(pad: int) -> bool:
        an_image = filters * windows + pad
        reads = [n * an_image + (row * strips + s) * tile.strip for n, row, s in owners]
        return room(tile, pad) <= ROOM and _is_free([2 * at for at in reads], 2, itemsize)

    # Groups with which one image is free of conflicts; then pads between the images.
    grouped = [tile._replace(group=tile.group + more) for more in range(33)]
    alone = [tile for tile in grouped if adds_freely(tile, 1)] or [tile]
    pads = range(33 if images > 1 else 1)
    tile = _first((tile._replace(image_pad=pad) for tile in alone for pad in pads), adds_freely)
    entries_pad = _first(range(33), reads_freely)
    defines = tile.defines(itemsize, images, filters) | {"PAD": entries_pad}
    plan = Plan(
        defines, images, ceil_div(shape.c, channels), channels * lanes, room(tile, entries_pad)
    )
    return plan, adds_freely(tile)


_PLANS = {
    "forward": _forward,
    "backward_data": _backward_data,
    "backward_filter": _backward_filter,
}


def _places(*extents: int | Iterable[int]) -> list[tuple[int, ...]]:
    """Return all places of a grid, the last extent fastest."""
    return list(itertools.product(*(range(e) if isinstance(e, int) else e for e in extents)))


def _even(elements: int) -> int:
    return ceil_div(elements, 2) * 2


def _whole_warps(threads: int) -> int:
    return ceil_div(threads, 32) * 32


def _first(candidates: Iterable[T], is_good: Callable[[T], bool]) -> T:
    """Return the first good candidate, or the first at all: conflicts cost time, no more."""
    candidates = list(candidates)
    return next(filter(is_good, candidates), candidates[0])


def _least(candidates: Iterable[T], conflicts: Callable[[T], int]) -> T:
    """Return the first candidate without a conflict, or the first with the fewest."""
    best, fewest = None, math.inf
    for candidate in candidates:
        if (found := conflicts(candidate)) < fewest:
            best, fewest = candidate, found
        if not found:
            break
    assert best is not None  # there is always one
    return best


def _is_free(offsets: list[int], width: int, itemsize: int) -> bool:
    """Tell whether threads that read `width` elements at these offsets meet in no bank."""
    return not any(_extra_passes(offsets, width, itemsize))


def _conflicts(offsets: list[int], width: int, itemsize: int) -> int:
    """Return the passes beyond one that threads take to read `width` elements at these offsets."""
    return sum(_extra_passes(offsets, width, itemsize))


def _extra_passes(offsets: list[int], width: int, itemsize: int) -> Iterator[int]:
    """Yield what each of the threads' turns takes beyond one pass.

    Of 4 bytes a lane a whole warp goes at a time, of 8 half of it, of 16 a quarter; lanes with the
    same address are served together.
    """
    words = width * itemsize // 4
    together = 32 // words
    for first in range(0, len(offsets), together):
        starts = {offset * itemsize // 4 for offset in offsets[first : first + together]}
        banks = [(start + word) % 32 for start in starts for word in range(words)]
        yield max(Counter(banks).values()) - 1 if len(set(banks)) < len(banks) else 0
