"""Two fused blocks, one behind the other, by one launch each way.

Forward it gathers the step's batch as well (`fused_pair.cu`); backward it takes the second block's
gradient to its input and, from that, the first one's parameters' (`fused_pair_backward.cu`). They
leave what `kernels.training.batch.gather` and the launches of `fused` leave, but for the order in
which some sums are made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kernels import cases
from kernels.conv2d_relu_pool import fused_pair_plan, fused_plan
from kernels.shapes import BlockShape
from kernels.source import CudaSource, ceil_div
from kernels.training.batch import Gather


def _tiles(make: Callable[..., Any], *images: int) -> list[dict[str, int | str]]:
    """Return the macros of LeNet's two blocks, floats for so many images and doubles for few."""
    first, second = (BlockShape(*cases.LENET[name]) for name in ("block1", "block2"))
    asked = [(n, 4) for n in images] + [(2, 8)]
    plans = (make(first._replace(n=n), second._replace(n=n), itemsize) for n, itemsize in asked)
    return [plan.defines for plan in plans if plan]


source = CudaSource("conv2d_relu_pool/fused_pair.cu", _tiles(fused_pair_plan.make, 256))
backward_source = CudaSource(
    "conv2d_relu_pool/fused_pair_backward.cu", _tiles(fused_pair_plan.make_backward, 256, 8192)
)


def takes(first: BlockShape, second: BlockShape, itemsize: int) -> bool:
    """Tell whether `forward` takes these layers."""
    return fused_pair_plan.make(first, second, itemsize) is not None


def forward(
    batch: Gather, parameters: tuple[Any, ...], found: tuple[Any, ...],
    first: BlockShape, second: BlockShape,
) -> None:  # fmt: skip
    """Write a batch, and what both blocks make of it.

    Parameters
    ----------
    batch
        ``batch.x`` has the first block's input shape, (N,C,H,W), float32 or float64; all but the
        argmax are of its dtype, and all where it is.
    parameters
        w1 (K1,C,R,S), b1 (K1,), w2 (K2,K1,R,S) and b2 (K2,).
    found
        To be written: y1 and argmax1 (uint8), (N,K1,pooled P1,pooled Q1), y2 and argmax2.
    first, second
        The blocks' shapes, which `takes` takes.

    Raises
    ------
    ValueError
        Layers that it does not take.
    """
    plan = fused_pair_plan.make(first, second, batch.x.dtype.itemsize)
    if plan is None:
        raise ValueError(f"fused_pair.forward: cannot take {first} and {second}; see takes")
    kernel = source.kernel("conv2d_relu_pool_fused_pair", like=batch.x, **plan.defines)
    args = (*batch.args, *parameters, *found)
    kernel((first.n,), (plan.threads,), args, shared_mem=plan.shared_bytes)


def slices(first: BlockShape, second: BlockShape, itemsize: int) -> int:
    """Return how many slices `backward` writes; 0 where it does not take these layers."""
    plan = fused_pair_plan.make_backward(first, second, itemsize)
    if plan is None:
        return 0
    return min(ceil_div(fused_plan.WANTED_BLOCKS, plan.tiles), ceil_div(first.n, plan.images))


def backward(
    dy2: Any, argmax2: Any, w2: Any, x: Any, argmax1: Any, partial: Any, bias_at: int,
    first: BlockShape, second: BlockShape,
) -> None:  # fmt: skip
    """Write the first block's dw and db in slices of the batch, for whoever adds them up.

    Parameters
    ----------
    dy2, argmax2
        With respect to the second block's output, (N,K2,pooled P2,pooled Q2), and where that was;
        argmaxes are uint8, the rest of one dtype, float32 or float64.
    w2
        (K2,K1,R,S).
    x, argmax1
        The first block's input, (N,C,H,W), and where its output was, (N,K1,pooled P1,pooled Q1).
    partial, bias_at
        As for `fused.backward_parameters`; as many slices as `slices` says.
    first, second
        The blocks' shapes.

    Raises
    ------
    ValueError
        Layers of which `slices` says 0.
    """
    plan = fused_pair_plan.make_backward(first, second, x.dtype.itemsize)
    if plan is None:
        raise ValueError(f"fused_pair.backward: cannot take {first} and {second}; see slices")
    name = "conv2d_relu_pool_fused_pair_backward"
    kernel = backward_source.kernel(name, like=x, **plan.defines)
    numbers = map(np.int32, (first.n, *partial.shape, bias_at))
    blocks, args = plan.tiles * len(partial), (dy2, argmax2, w2, x, argmax1, partial, *numbers)
    kernel((blocks,), (plan.threads,), args, shared_mem=plan.shared_bytes)
