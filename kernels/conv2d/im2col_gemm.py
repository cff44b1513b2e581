"""Convolution as one matrix product: unfold (`im2col_gemm.cu`), then cuBLAS, or BLAS by NumPy.

The batch is cut into slices whose columns fit the workspace. A 1x1 convolution of stride 1 without
padding needs no columns: its input already is X_col.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from kernels import checks, observe, place, workspace
from kernels.conv2d.bias import backward_bias
from kernels.shapes import Conv2dShape
from kernels.source import CudaSource, ceil_div

__all__ = ["backward_bias", "backward_data", "backward_filter", "forward", "workspace_bytes"]

THREADS = 256
source = CudaSource("conv2d/im2col_gemm.cu")


def forward(
    x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape, workspace: Any = None, kernels: Any = None
) -> None:  # fmt: skip
    """Write y (N,K,P,Q) from x (N,C,H,W), w (K,C,R,S) and b (K,) or None."""
    matmul = _product(x)
    filters = w.reshape(shape.k, -1)
    if _is_gemm(shape):
        matmul(filters, _planes(x), out=_planes(y))
        if b is not None:
            _launch(kernels, "conv2d_add_bias", y.size, (y, b, shape))
        return
    for first, images, columns, rows, _ in _slices(workspace, "forward", shape, x.dtype):
        window = (shape, np.int32(first), np.int32(images))
        _launch(kernels, "conv2d_im2col", shape.c * columns.shape[1], (x, columns, *window))
        matmul(filters, columns, out=rows)
        _launch(kernels, "conv2d_rows_to_images", rows.size, (rows, b, y, *window))


def backward_data(
    dy: Any, w: Any, dx: Any, shape: Conv2dShape, workspace: Any = None, kernels: Any = None
) -> None:  # fmt: skip
    """Write dx (N,C,H,W) from dy (N,K,P,Q) and w (K,C,R,S)."""
    matmul = _product(dy)
    filters = w.reshape(shape.k, -1)
    if _is_gemm(shape):
        matmul(filters.T, _planes(dy), out=_planes(dx))
        return
    for first, images, columns, rows, _ in _slices(workspace, "backward_data", shape, dy.dtype):
        window = (shape, np.int32(first), np.int32(images))
        _launch(kernels, "conv2d_images_to_rows", rows.size, (dy, rows, *window))
        matmul(filters.T, rows, out=columns)
        elements = images * shape.c * shape.h * shape.w
        _launch(kernels, "conv2d_col2im", elements, (columns, dx, *window))


def backward_filter(
    x: Any, dy: Any, dw: Any, shape: Conv2dShape, workspace: Any = None, kernels: Any = None
) -> None:  # fmt: skip
    """Write dw (K,C,R,S) from x (N,C,H,W) and dy (N,K,P,Q)."""
    matmul = _product(x)
    total = dw.reshape(shape.k, -1)
    for first, images, columns, rows, partial in _slices(
        workspace, "backward_filter", shape, x.dtype
    ):
        window = (shape, np.int32(first), np.int32(images))
        if _is_gemm(shape):  # X_col is x with its channels outermost
            channels = (shape._replace(k=shape.c), *window[1:])
            _launch(kernels, "conv2d_images_to_rows", columns.size, (x, columns, *channels))
        else:
            _launch(kernels, "conv2d_im2col", shape.c * columns.shape[1], (x, columns, *window))
        _launch(kernels, "conv2d_images_to_rows", rows.size, (dy, rows, *window))
        if first == 0:
            matmul(rows, columns.T, out=total)
        else:
            matmul(rows, columns.T, out=partial.reshape(total.shape))
            total += partial.reshape(total.shape)


def workspace_bytes(direction: str, shape: Conv2dShape, itemsize: int, limit: int) -> int:
    """Return the bytes of workspace a pass wants: as many images at once as `limit` holds.

    Parameters
    ----------
    direction
        ``"forward"``, ``"backward_data"``, ``"backward_filter"`` or ``"backward_bias"``.
    shape
        The convolution's.
    itemsize
        Bytes an element.
    limit
        Bytes the caller allows.

    Raises
    ------
    ValueError
        When not even one image's columns fit.
    """
    if _needs_none(direction, shape):
        return 0
    an_image, fixed = _an_image(shape), _fixed(direction, shape)
    fit = min((limit // itemsize - fixed) // an_image, checks.INDEX_LIMIT // an_image, shape.n)
    if fit < 1:
        raise workspace.refuse("conv2d", "im2col_gemm", (an_image + fixed) * itemsize, "one image")
    # Slices of equal size: a last small one would waste a launch and a matrix product.
    images = ceil_div(shape.n, ceil_div(shape.n, fit))
    return (images * an_image + fixed) * itemsize


def _is_gemm(shape: Conv2dShape) -> bool:
    return (shape.r, shape.s) == (1, 1) == shape.stride and not any(map(any, shape.padding))


def _needs_none(direction: str, shape: Conv2dShape) -> bool:
    return direction == "backward_bias" or (_is_gemm(shape) and direction != "backward_filter")


def _an_image(shape: Conv2dShape) -> int:
    """Return the elements of one image's columns and rows."""
    return (shape.c * shape.r * shape.s + shape.k) * shape.p * shape.q


def _fixed(direction: str, shape: Conv2dShape) -> int:
    """Return the elements of what does not grow with the slice: a partial filter gradient."""
    return shape.k * shape.c * shape.r * shape.s if direction == "backward_filter" else 0


def _slices(
    workspace: Any, direction: str, shape: Conv2dShape, dtype: np.dtype
) -> Iterator[tuple[int, int, Any, Any, Any]]:
    """Yield (first image, images, X_col, Y, partial dW) for each slice of the batch."""
    elements = workspace.view(dtype)
    fixed = _fixed(direction, shape)
    at_once = (elements.size - fixed) // _an_image(shape)
    partial = elements[:fixed]
    for first in range(0, shape.n, at_once):
        images = min(at_once, shape.n - first)
        width = images * shape.p * shape.q
        taps = shape.c * shape.r * shape.s
        columns = elements[fixed : fixed + taps * width].reshape(taps, width)
        rows = elements[fixed + taps * width : fixed + (taps + shape.k) * width]
        yield first, images, columns, rows.reshape(shape.k, width), partial


def _planes(images: Any) -> Any:
    """View (N, C, H, W) as N matrices (C, H*W)."""
    return images.reshape(*images.shape[:2], -1)


def _product(like: Any) -> Any:
    return observe.product(place.array_module(like).matmul, "gpu" if place.on_gpu(like) else "cpu")


def _launch(kernels: Any, name: str, elements: int, args: tuple[Any, ...]) -> None:
    # Another language's kernels of the same names, or these.
    (kernels or source).kernel(name, like=args[0])((ceil_div(elements, THREADS),), (THREADS,), args)
