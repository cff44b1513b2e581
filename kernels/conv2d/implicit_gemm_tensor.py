"""implicit_gemm on tensor cores (`implicit_gemm_tensor.cu`), in either precision.

`implicit_gemm_tf32` and `implicit_gemm_bf16` have the launchers. The batch is cut into slices whose
packed images fit the workspace.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kernels import checks
from kernels import workspace as workspaces
from kernels.conv2d import implicit_gemm
from kernels.conv2d.pack import ROW_VECTORS, VECTOR_BYTES, pack, pack_source
from kernels.conv2d.slices import sum_slices
from kernels.shapes import Conv2dShape
from kernels.source import CudaSource, ceil_div

STAGES = 3
# Of the largest GPU; and of registers for threads that take all they can, on any.
MULTIPROCESSORS = 132
RESIDENT_THREADS = 256


class Tile(NamedTuple):
    """A warp's matrix tiles down gemm_m; a block's warps down gemm_m and along gemm_n."""

    m_tiles: int
    warps_m: int
    warps_n: int

    @property
    def defines(self) -> dict[str, int]:
        """The macros of the .cu file."""
        return {"M_TILES": self.m_tiles, "WARPS_M": self.warps_m, "WARPS_N": self.warps_n}

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps_m * self.warps_n

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block: the tiles of both sides under way."""
        return STAGES * sum(self.extent(4)) * ROW_VECTORS * VECTOR_BYTES

    @property
    def rows_moved(self) -> int:
        """Rows of a tile that a block's copies read and write, and that its warps read."""
        reads = self.warps_m * self.warps_n * (16 * self.m_tiles + 64)
        return reads + 2 * sum(self.extent(4))

    def extent(self, itemsize: int) -> tuple[int, int]:
        """Return the rows and columns of a block's part of the product."""
        del itemsize
        return 16 * self.m_tiles * self.warps_m, 64 * self.warps_n


# 128x256, 64x256, 64x128 and 16x64.
TILES = (Tile(4, 2, 4), Tile(4, 1, 4), Tile(4, 1, 2), Tile(1, 1, 1))


class Sizes(NamedTuple):
    """What a pass keeps in its workspace, in bytes, and how many images it takes at a time."""

    images: int
    right: int
    left: int
    partial: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.right + self.left + self.partial


class TensorGemm:
    """The three passes in one precision.

    Parameters
    ----------
    name
        The row's.
    factors
        What the factors are rounded to, for a person.
    is_bf16
        Whether that is bfloat16, two to a register; else TF32.
    """

    def __init__(self, name: str, factors: str, is_bf16: bool) -> None:
        self.name = name
        self.factors = factors
        self.in_vector = 8 if is_bf16 else 4
        self.source = CudaSource(
            "conv2d/implicit_gemm_tensor.cu",
            [tile.defines for tile in TILES],
            least_arch="sm_80",
            SCALAR="float",
            BF16=int(is_bf16),
        )
        self.pack_source = pack_source(is_bf16)

    def refuses(self, direction: str, shape: Conv2dShape, dtype: str) -> str:
        """Return why a dtype is not taken."""
        del direction, shape
        if dtype == "float32":
            return ""
        return f"takes float32 arrays (its factors are rounded to {self.factors}) but got {dtype}"

    def make_plan(self, direction: str, shape: Conv2dShape) -> implicit_gemm.Plan:
        """Return how a pass is cut up: so that the busiest multiprocessor has the least to move."""
        product = implicit_gemm.product_of(direction, shape)
        plans = [product.plan(tile, 4, 0) for tile in TILES]

        def moved(plan: implicit_gemm.Plan) -> float:
            each = plan.blocks * plan.phases / MULTIPROCESSORS
            # A filter gradient is cut into slices that fill the GPU.
            return plan.tile.rows_moved * (
                each if direction == "backward_filter" else math.ceil(each)
            )

        return min(plans, key=moved)

    def forward(self, x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape, workspace: Any) -> None:
        """Write y (N,K,P,Q) from x (N,C,H,W), w (K,C,R,S) and b (K,) or None."""
        taps = shape.r * shape.s
        filters = shape.k, shape.c, taps, shape.c * taps, taps
        plane = shape.h * shape.w
        self._gather("forward", x, w, b, y, shape, workspace, filters, (shape.c, plane))

    def backward_data(
        self, dy: Any, w: Any, dx: Any, shape: Conv2dShape, workspace: Any
    ) -> None:  # fmt: skip
        """Write dx (N,C,H,W) from dy (N,K,P,Q) and w (K,C,R,S)."""
        taps = shape.r * shape.s
        filters = shape.c, shape.k, taps, taps, shape.c * taps
        plane = shape.p * shape.q
        self._gather("backward_data", dy, w, None, dx, shape, workspace, filters, (shape.k, plane))

    def _gather(
        self, direction: str, source: Any, w: Any, b: Any, output: Any, shape: Conv2dShape,
        workspace: Any, filters: tuple[int, ...], planes: tuple[int, int],
    ) -> None:  # fmt: skip
        """Pack both sides and multiply them, as many images at a time as the workspace holds."""
        sizes = self._sizes(direction, shape, workspace.size)
        right, left, _ = _parts(workspace, sizes)
        pack(self.pack_source, w, left, *filters)
        count, plane = planes
        for images, part in _images(shape, sizes.images):
            pack(
                self.pack_source, source[images], right, part.n, count, plane, count * plane, plane
            )  # fmt: skip
            self.multiply(direction, left, right, b, output[images], part)

    def multiply(
        self, direction: str, left: Any, right: Any, b: Any, output: Any, shape: Conv2dShape
    ) -> None:  # fmt: skip
        """Launch the product of packed filters and images that is ``"forward"`` or the like."""
        plan = self.make_plan(direction, shape)
        if direction == "forward":
            self._launch(direction, output, plan, plan.blocks, (left, right, b, output, shape))
        else:
            args = (left, right, output, shape, np.int32(plan.blocks))
            self._launch(direction, output, plan, plan.blocks * plan.phases, args)

    def backward_filter(
        self, x: Any, dy: Any, dw: Any, shape: Conv2dShape, workspace: Any
    ) -> None:  # fmt: skip
        """Write dw (K,C,R,S) from x (N,C,H,W) and dy (N,K,P,Q)."""
        plan = self.make_plan("backward_filter", shape)
        sizes = self._sizes("backward_filter", shape, workspace.size)
        right, left, partial = _parts(workspace, sizes)
        partial = partial.view(dw.dtype) if sizes.partial else dw
        slices = partial.size // dw.size
        for images, part in _images(shape, sizes.images):
            for source, packed in ((x[images], right), (dy[images], left)):
                elements = math.prod(source.shape[1:])
                pack(self.pack_source, source, packed, 1, part.n, elements, 0, elements)
            adds = np.int32(images.start > 0)
            args = (right, left, partial, part, np.int32(slices), adds)
            self._launch("backward_filter", x, plan, plan.blocks * slices, args)
        sum_slices(partial, dw, shape)

    def workspace_bytes(self, direction: str, shape: Conv2dShape, itemsize: int, limit: int) -> int:
        """Return the bytes of workspace a pass wants: its factors, and the slices of dw.

        The parameters are those of `implicit_gemm.workspace_bytes`.

        Raises
        ------
        ValueError
            When the filters and one image (in the filter gradient as many as a vector holds) do
            not fit.
        """
        del itemsize
        if direction == "backward_bias":
            return 0
        return self._sizes(direction, shape, limit).total

    def _sizes(self, direction: str, shape: Conv2dShape, limit: int) -> Sizes:
        """Return what fits `limit` bytes; the same when all that fitted is the limit."""
        x, dy = shape.c * shape.h * shape.w, shape.k * shape.p * shape.q
        if direction == "backward_filter":
            # The images of a vector are packed together.
            step, right, left = self.in_vector, VECTOR_BYTES * x, VECTOR_BYTES * dy
            filters, what = 0, f"{step} rounded images"
            plan = self.make_plan(direction, shape)
            partial = self._slices(shape, plan) * math.prod(shape.filter_shape) * 4
        else:
            terms, others = (shape.c, shape.k) if direction == "forward" else (shape.k, shape.c)
            a_pixel = ceil_div(terms, self.in_vector) * VECTOR_BYTES
            step, right, left = 1, (x if direction == "forward" else dy) // terms * a_pixel, 0
            filters, what = others * shape.r * shape.s * a_pixel, "rounded filters and one image"
            partial = 0
        if limit < partial + right + left:
            partial = 0  # one slice, which is dw itself: the images come first
        steps = ceil_div(shape.n, step)
        fit = min(
            (limit - partial - filters) // (right + left), checks.INDEX_LIMIT // max(right, left)
        )
        if fit < 1:
            raise workspaces.refuse("conv2d", self.name, filters + right + left, what)
        # Slices of equal size: a last small one would waste its launches.
        steps = ceil_div(steps, ceil_div(steps, fit))
        return Sizes(steps * step, steps * right, filters + steps * left, partial)

    def _slices(self, shape: Conv2dShape, plan: implicit_gemm.Plan) -> int:
        """Return the slices of a filter gradient that make one wave of blocks; 0 where one does."""
        resident = MULTIPROCESSORS * (RESIDENT_THREADS // plan.tile.threads)
        vectors = shape.p * shape.q * ceil_div(shape.n, self.in_vector)
        slices = min(resident // plan.blocks, ceil_div(vectors, ROW_VECTORS))
        return slices if slices > 1 else 0

    def _launch(
        self, function: str, like: Any, plan: implicit_gemm.Plan, blocks: int, args: tuple[Any, ...]
    ) -> None:  # fmt: skip
        name = f"conv2d_implicit_gemm_tensor_{function}"
        kernel = self.source.kernel(name, like=like, **plan.tile.defines)
        kernel((blocks,), (plan.tile.threads,), args, shared_mem=plan.tile.shared_bytes)


def _parts(workspace: Any, sizes: Sizes) -> Iterator[Any]:
    """Yield the right side, the left side and the slices of dw in the workspace."""
    end = 0
    for nbytes in (sizes.right, sizes.left, sizes.partial):
        yield workspace[end : end + nbytes].view(np.uint32)
        end += nbytes


def _images(shape: Conv2dShape, images: int) -> Iterator[tuple[slice, Conv2dShape]]:
    """Yield the images of each slice of the batch, and its shape."""
    for first in range(0, shape.n, images):
        count = min(images, shape.n - first)
        yield slice(first, first + count), shape._replace(n=count)
