"""implicit_gemm_bf16 by Hopper's warpgroup products (`implicit_gemm_wgmma.cu`), for stride 1.

The gradient to the filters is implicit_gemm_bf16's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels import checks, tuned
from kernels.conv2d.bias import backward_bias
from kernels.conv2d.implicit_gemm_tensor import MULTIPROCESSORS, TensorGemm
from kernels.conv2d.pack import VECTOR_BYTES
from kernels.conv2d.slices import slices_source
from kernels.shapes import Conv2dShape
from kernels.source import CudaSource, ceil_div

__all__ = [
    "backward_bias", "backward_data", "backward_filter", "forward", "pack_source", "refuses",
    "slices_source", "source", "tiles", "warpgroup_source", "workspace_bytes",
]  # fmt: skip

GATHERED = "forward", "backward_data"
IN_VECTOR = 8
W_STAGES = 4  # under the product, under the one before, and two on their way
SHARED_BYTES, SHARED_RESERVED = 228 << 10, 1 << 10  # of a multiprocessor, and in it for each block
# On an SM's clock: bytes that pass its shared memory. The rest is guessed: bytes from L2; how much
# of what the parts of an SM do is not hidden behind the busiest; the clocks of a tile's stores,
# which no product of its block hides, and from a step's barrier by way of its copies to the next.
SHARED_RATE, L2_RATE = 128, 24
NOT_HIDDEN = 0.2
END_CLOCKS, STEP_CLOCKS = 2000, 300


class Tile(NamedTuple):
    """A block's warpgroups down filters and along positions, positions of each, vectors a chunk."""

    warpgroups_m: int
    warpgroups_n: int
    columns: int
    chunk: int

    @property
    def defines(self) -> dict[str, int]:
        """The macros of the .cu file."""
        return {name.upper(): value for name, value in self._asdict().items()}

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 128 * self.warpgroups_m * self.warpgroups_n

    @property
    def extent(self) -> tuple[int, int]:
        """Filters and positions of a block."""
        return 64 * self.warpgroups_m, self.columns * self.warpgroups_n

    def room(self, blocks: int) -> int:
        """Return the dynamic shared memory of a block of so many, beside its two tables."""
        return SHARED_BYTES // blocks - SHARED_RESERVED - 2 * 4 * self.extent[1]

    @property
    def resident(self) -> int:
        """Blocks that the registers of a multiprocessor hold."""
        return 2 if self.threads == 128 or self.columns <= 112 else 1


TILES = (
    *(Tile(2, 1, columns, 8) for columns in (256, 224, 208)),
    *(Tile(1, 2, columns, 8) for columns in (256, 208, 112)),
    *(Tile(1, 1, columns, 8) for columns in (256, 240, 208, 128)),
    *(Tile(*warpgroups, 112, 2) for warpgroups in ((2, 1), (1, 2))),
)
warpgroup_source = CudaSource(
    "conv2d/implicit_gemm_wgmma.cu",
    [tile.defines for tile in TILES],
    least_arch="sm_90a",
    SCALAR="float",
)


class Plan(NamedTuple):
    """How a correlation is cut up; an image is rows x cols positions, padding and all."""

    tile: Tile
    blocks: int
    shared_bytes: int
    rows: int
    cols: int
    x_stages: int
    w_stages: int
    keeps_w: bool
    clocks: float

    @property
    def fits(self) -> bool:
        """Whether a block has the shared memory."""
        return self.shared_bytes <= self.tile.room(1)


class WarpgroupGemm(TensorGemm):
    """The forward pass and the gradient to x by warpgroup products."""

    def refuses(self, direction: str, shape: Conv2dShape, dtype: str) -> str:
        """Return why a pass does not take a shape or a dtype, or nothing."""
        if (why := super().refuses(direction, shape, dtype)) or direction not in GATHERED:
            return why
        if shape.stride != (1, 1):
            return f"takes stride 1 only, but this has stride {shape.stride}"
        least = min(make_plans(correlation(direction, shape)), key=lambda plan: plan.shared_bytes)
        if shape.n * least.rows * least.cols > checks.INDEX_LIMIT:
            return f"counts pixels and padding with 32 bits, but there are more in {shape}"
        if least.fits:
            return ""
        return (
            f"keeps the pixels under {shape.r}x{shape.s} filters with dilation {shape.dilation} in "
            f"shared memory, which takes {least.shared_bytes:,} bytes for rows of {least.cols} but "
            f"there are {least.tile.room(1):,}"
        )

    def multiply(
        self, direction: str, left: Any, right: Any, b: Any, output: Any, shape: Conv2dShape
    ) -> None:  # fmt: skip
        """Launch the product of packed filters and images that is ``"forward"`` or the like."""
        searched = tuned.tile("conv2d", self.name, direction, shape, output)
        shape = correlation(direction, shape)
        plan = best_plan(shape, [_tile_of(searched)] if searched else None)
        sizes = plan.rows, plan.cols, plan.x_stages, plan.w_stages
        flags = plan.keeps_w, direction != "forward"
        warpgroup_source.kernel("conv2d_implicit_gemm_wgmma", output, **plan.tile.defines)(
            (plan.blocks,),
            (plan.tile.threads,),
            (left, right, b, output, shape, *map(np.int32, (*sizes, *flags))),
            shared_mem=plan.shared_bytes,
        )


def correlation(direction: str, shape: Conv2dShape) -> Conv2dShape:
    """Return the forward pass that a pass is: for dx that of dy with the filters turned round."""
    if direction == "forward":
        return shape
    reach_h, reach_w = (shape.r - 1) * shape.dilation_h, (shape.s - 1) * shape.dilation_w
    return Conv2dShape(
        shape.n, shape.k, shape.p, shape.q, shape.c, shape.r, shape.s, shape.h, shape.w, 1, 1,
        reach_h - shape.pad_top, reach_h - shape.pad_bottom,
        reach_w - shape.pad_left, reach_w - shape.pad_right, *shape.dilation,
    )  # fmt: skip


def tiles(direction: str, shape: Conv2dShape, itemsize: int) -> list[dict[str, int]]:
    """Return the tiles that a pass may have, the usual one first."""
    if direction not in GATHERED or refuses(direction, shape, "float32"):
        return []
    del itemsize
    usual = best_plan(correlation(direction, shape)).tile
    some = [
        Tile(*warpgroups, columns, 8)
        for warpgroups in ((2, 1), (1, 2), (1, 1))
        for columns in range(64, 257, 16)
    ]
    plans = make_plans(correlation(direction, shape), some)
    others = [plan.tile for plan in plans if plan.fits and plan.tile != usual]
    return [tile.defines for tile in (usual, *others)]


def _tile_of(defines: dict[str, int]) -> Tile:
    return Tile(**{name.lower(): value for name, value in defines.items()})


def best_plan(shape: Conv2dShape, tiles: Sequence[Tile] | None = None) -> Plan:
    """Return the plan of those that fit which keeps a multiprocessor busy for the shortest time."""
    return min(
        (plan for plan in make_plans(shape, tiles) if plan.fits), key=lambda plan: plan.clocks
    )


def make_plans(shape: Conv2dShape, tiles: Sequence[Tile] | None = None) -> list[Plan]:
    """Return how each tile, of `TILES` unless others are given, would cut up a correlation."""
    rows = _positions(shape.h, shape.p, shape.pad_top, (shape.r - 1) * shape.dilation_h)
    cols = _positions(shape.w, shape.q, shape.pad_left, (shape.s - 1) * shape.dilation_w)
    return [_plan(shape, tile, rows, cols) for tile in tiles or TILES]


def _positions(extent: int, outputs: int, before: int, reach: int) -> int:
    """Return the positions of a row (column): its pixels and the wider side's padding behind."""
    behind = outputs - 1 + reach - before - (extent - 1)
    return max(extent + max(before, behind, 0), outputs)


def _plan(shape: Conv2dShape, tile: Tile, rows: int, cols: int) -> Plan:
    tile_m, tile_n = tile.extent
    taps, chunks = shape.r * shape.s, ceil_div(ceil_div(shape.c, IN_VECTOR), tile.chunk)
    tiles_m = ceil_div(shape.k, tile_m)
    tiles = tiles_m * ceil_div(shape.n * rows * cols, tile_n)
    halo = (shape.r - 1) * shape.dilation_h * cols + (shape.s - 1) * shape.dilation_w
    step = 8 // tile.chunk  # of a pitch, as in the .cu file
    pixels = ceil_div(tile_n + halo - step, 8) * 8 + step
    a_vector = tile.chunk * VECTOR_BYTES

    def bytes_of(x_stages: int, w_stages: int) -> int:
        return a_vector * (w_stages * (tile_m + step) + x_stages * pixels)

    # A chunk's pixels are copied while the one before is multiplied; of few taps, still earlier.
    most_x_stages = max(2, 5 - taps)
    resident = tile.resident
    if bytes_of(most_x_stages, W_STAGES) > tile.room(resident):
        resident = 1
    blocks = min(tiles, MULTIPROCESSORS * resident)
    x_stages = min(ceil_div(tiles, blocks) * chunks, most_x_stages)
    # Where a block has the same filters again and again, and room for all, they are copied once.
    w_stages, keeps_w = W_STAGES, False
    if blocks % tiles_m == 0 and bytes_of(x_stages, chunks * taps) <= tile.room(resident):
        w_stages, keeps_w = chunks * taps, True

    warpgroups, products = tile.warpgroups_m * tile.warpgroups_n, tile.chunk // 2
    tensor = warpgroups * products * tile.columns / 2
    reads = warpgroups * products * (64 + tile.columns) * 2 * VECTOR_BYTES
    copied = a_vector * (tile_m * (not keeps_w) + pixels / taps)
    a_multiprocessor = ceil_div(tiles, MULTIPROCESSORS)
    busy = tensor, (reads + 2 * copied) / SHARED_RATE, copied / L2_RATE
    a_step = max(*busy, STEP_CLOCKS / min(resident, a_multiprocessor))
    a_step += NOT_HIDDEN * (sum(busy) - max(busy))
    ends = END_CLOCKS * (a_multiprocessor if resident == 1 else 1)
    clocks = a_multiprocessor * chunks * taps * a_step + ends
    return Plan(
        tile, blocks, bytes_of(x_stages, w_stages), rows, cols, x_stages, w_stages, keeps_w, clocks
    )  # fmt: skip


gemm = WarpgroupGemm("implicit_gemm_wgmma", "bfloat16", is_bf16=True)
source = gemm.source
pack_source = gemm.pack_source

forward = gemm.forward
backward_data = gemm.backward_data
backward_filter = gemm.backward_filter
workspace_bytes = gemm.workspace_bytes
refuses = gemm.refuses
