"""A step's batch and the forward pass of two fused blocks in one launch (`fused_pair.cu`).

It leaves what `kernels.training.batch.gather` and two launches of `fused.forward` leave, but for
the order of the second block's sums; the gradients are `fused`'s.
"""

from __future__ import annotations

from typing import Any

from kernels import cases
from kernels.conv2d_relu_pool import fused_plan
from kernels.shapes import BlockShape
from kernels.source import CudaSource
from kernels.training.batch import Gather


def _tiles() -> list[dict[str, int | str]]:
    """Return the macros of LeNet's two blocks."""
    shapes = (BlockShape(*cases.LENET[name]) for name in ("block1", "block2"))
    first, second = shapes
    plans = (fused_plan.make_pair(first, second, itemsize) for itemsize in (4, 8))
    return [plan.defines for plan in plans if plan]


source = CudaSource("conv2d_relu_pool/fused_pair.cu", _tiles())


def takes(first: BlockShape, second: BlockShape, itemsize: int) -> bool:
    """Tell whether `forward` takes these layers."""
    return fused_plan.make_pair(first, second, itemsize) is not None


def forward(
    batch: Gather, parameters: tuple[Any, ...], found: tuple[Any, ...],
    first: BlockShape, second: BlockShape,
) -> None:  # fmt: skip
    """Write a batch, and what both blocks make of it.

    Parameters
    ----------
    batch
        ``batch.x`` has the first block's input shape.
    parameters
        w1 (K1,C,R,S), b1 (K1,), w2 (K2,K1,R,S) and b2 (K2,).
    found
        To be written: y1 and argmax1 (uint8), (N,K1,pooled P1,pooled Q1), y2 and argmax2.
    first, second
        The blocks' shapes, which `takes` takes.
    """
    plan = fused_plan.make_pair(first, second, batch.x.dtype.itemsize)
    if plan is None:
        raise ValueError(f"fused_pair.forward: cannot take {first} and {second}; see takes")
    kernel = source.kernel("conv2d_relu_pool_fused_pair", like=batch.x, **plan.defines)
    args = (*batch.args, *parameters, *found)
    kernel((first.n,), (plan.threads,), args, shared_mem=plan.shared_bytes)
