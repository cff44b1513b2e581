"""implicit_gemm on tensor cores (`implicit_gemm_tensor.cu`), in either precision.

Filter gradient: `implicit_gemm_tensor_filter.cu`. `implicit_gemm_tf32` and `implicit_gemm_bf16`
have the launchers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kernels.conv2d import implicit_gemm
from kernels.conv2d.slices import sum_slices
from kernels.shapes import Conv2dShape
from kernels.source import CudaSource, ceil_div

TILE_K = 16


class Tile(NamedTuple):
    """A warp's matrix tiles down gemm_m; a block's warps, side by side along gemm_n."""

    m_tiles: int
    warps: int

    @property
    def defines(self) -> dict[str, int]:
        """The macros of the .cu files."""
        return {"M_TILES": self.m_tiles, "WARPS": self.warps}

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return 32 * self.warps

    def extent(self, itemsize: int) -> tuple[int, int]:
        """Return the rows and columns of a block's part of the product."""
        del itemsize
        return 16 * self.m_tiles, 64 * self.warps


# 64x128 and, for small products, 16x64.
TILES = (Tile(4, 2), Tile(1, 1))


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
        self.factor_bytes = 2 if is_bf16 else 4
        self.source, self.filter_source = (
            CudaSource(
                f"conv2d/{file}.cu",
                [tile.defines for tile in TILES],
                least_arch="sm_80",
                SCALAR="float",
                BF16=int(is_bf16),
            )
            for file in ("implicit_gemm_tensor", "implicit_gemm_tensor_filter")
        )

    def refuses(self, direction: str, shape: Conv2dShape, dtype: str) -> str:
        """Return why a dtype is not taken."""
        del direction, shape
        if dtype == "float32":
            return ""
        return f"takes float32 arrays (its factors are rounded to {self.factors}) but got {dtype}"

    def make_plan(self, direction: str, shape: Conv2dShape) -> implicit_gemm.Plan:
        """Return how a pass is cut up; packed rows are those of whole tiles for each tap."""
        planes = {"forward": shape.c, "backward_data": shape.k, "backward_filter": 0}
        rows = shape.r * shape.s * ceil_div(planes[direction], TILE_K) * TILE_K
        return implicit_gemm.choose_tile(direction, shape, TILES, 4, rows)

    def forward(self, x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape, workspace: Any) -> None:
        """Write y (N,K,P,Q) from x (N,C,H,W), w (K,C,R,S) and b (K,) or None."""
        plan, packed, taps = self._pack("forward", w, shape, workspace)
        kernel = self._kernel("forward", plan, x)
        kernel((plan.blocks,), (plan.tile.threads,), (packed, taps, x, b, y, shape))

    def backward_data(
        self, dy: Any, w: Any, dx: Any, shape: Conv2dShape, workspace: Any
    ) -> None:  # fmt: skip
        """Write dx (N,C,H,W) from dy (N,K,P,Q) and w (K,C,R,S)."""
        plan, packed, taps = self._pack("backward_data", w, shape, workspace)
        kernel = self._kernel("backward_data", plan, dy)
        args = (packed, taps, dy, dx, shape, np.int32(plan.blocks))
        kernel((plan.blocks * plan.phases,), (plan.tile.threads,), args)

    def backward_filter(
        self, x: Any, dy: Any, dw: Any, shape: Conv2dShape, workspace: Any = None
    ) -> None:
        """Write dw (K,C,R,S) from x (N,C,H,W) and dy (N,K,P,Q); workspace holds the slices."""
        plan = self.make_plan("backward_filter", shape)
        partial = dw if workspace is None else workspace.view(dw.dtype)
        slices = partial.size // dw.size
        kernel = self.filter_source.kernel(
            "conv2d_implicit_gemm_tensor_backward_filter", like=x, **plan.tile.defines
        )
        steps = implicit_gemm.pixel_steps(shape, TILE_K)
        args = (x, dy, partial, shape, np.int32(slices), *steps)
        kernel((plan.blocks * slices,), (plan.tile.threads,), args)
        sum_slices(partial, dw, shape)

    def workspace_bytes(self, direction: str, shape: Conv2dShape, itemsize: int, limit: int) -> int:
        """Return the bytes of workspace a pass wants, as `implicit_gemm.workspace_bytes`."""
        if direction == "backward_bias":
            return 0
        plan = self.make_plan(direction, shape)
        if direction == "backward_filter":
            return implicit_gemm.filter_slices_bytes(plan, shape, itemsize, limit)
        return implicit_gemm.packed_bytes(plan, self.name, self.factor_bytes, limit)

    def _pack(
        self, direction: str, w: Any, shape: Conv2dShape, workspace: Any
    ) -> tuple[implicit_gemm.Plan, Any, Any]:
        """Repack the filters into the workspace, rounded, with where each row's factor lies."""
        plan = self.make_plan(direction, shape)
        taps_bytes = plan.rows * implicit_gemm.TAP_BYTES
        words = plan.rows * plan.pitch * self.factor_bytes // 4
        taps = workspace[:taps_bytes].view(np.int32)
        packed = workspace[taps_bytes : taps_bytes + 4 * words].view(np.uint32)
        kernel = self._kernel(f"pack_{direction}", plan, w)
        sizes = np.int32(plan.rows), np.int32(plan.pitch // 16)
        blocks = ceil_div(words, implicit_gemm.PACK_THREADS)
        kernel((blocks,), (implicit_gemm.PACK_THREADS,), (w, packed, taps, shape, *sizes))
        return plan, packed, taps

    def _kernel(self, function: str, plan: implicit_gemm.Plan, like: Any) -> Any:
        name = f"conv2d_implicit_gemm_tensor_{function}"
        return self.source.kernel(name, like=like, **plan.tile.defines)
