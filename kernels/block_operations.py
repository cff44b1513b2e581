"""The public face of the fused block: convolution, bias, ReLU and max-pooling in one launch."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import checks, place, table
from kernels.operations import launch, run_asked
from kernels.shapes import BlockShape

Array = Any  # numpy.ndarray or cupy.ndarray

OPERATION = "conv2d_relu_pool"


def conv2d_relu_pool(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    pool: Any = 2,
    kernel: str = "auto",
    return_argmax: bool = False,
) -> Array | tuple[Array, Array]:
    """Take the maximum of every window of max(conv2d(x, w, b), 0), which is never stored.

    Parameters
    ----------
    x, w, b, stride, padding, dilation
        As for `conv2d`.
    pool
        The window: int or (vertical, horizontal), at most 255 elements. Windows lie side by side,
        their stride is their size; rows and columns left over are in none.
    kernel
        A row's name (``python -m kernels list``), ``"reference"`` or ``"auto"``.
    return_argmax
        Return also where each maximum is, which is all that the gradients need to know of the
        convolution's output.

    Returns
    -------
    y
        (N, K, P // pool rows, Q // pool columns), of x's dtype and place.
    argmax
        uint8, of y's shape: the maximum is in row ``argmax // pool columns`` and column
        ``argmax % pool columns`` of its window, ties go to the first in row order, and a NaN is
        its window's maximum. 255 where no element is greater than 0: there the ReLU is closed.

    Raises
    ------
    TypeError, ValueError
        As for `conv2d`, and for a window that does not fit its output.
    """
    checks.array(OPERATION, "x", x, "NCHW")
    checks.array(OPERATION, "w", w, "KCRS", like=x)
    shape = BlockShape.of(
        x.shape, w.shape, stride=stride, padding=padding, dilation=dilation, pool=pool
    )
    if b is not None:
        checks.array(OPERATION, "b", b, "K", like=x)
        checks.has_shape(OPERATION, "b", b, (shape.k,), "(one for each filter)")
    row = table.find(OPERATION, kernel, like=x)
    xp = place.array_module(x)
    with place.current(x):
        y = xp.empty(shape.output_shape, x.dtype)
        argmax = xp.empty(shape.output_shape, np.uint8)
        if shape.n:
            run_asked(kernel, row, "forward", (x, w, b, y, argmax), shape)
    return (y, argmax) if return_argmax else y


def conv2d_relu_pool_backward_data(
    dy: Array,
    argmax: Array,
    w: Array,
    x_shape: tuple[int, int, int, int],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    pool: Any = 2,
    kernel: str = "auto",
) -> Array:
    """Return the gradient of a loss with respect to the block's input.

    Parameters
    ----------
    dy
        Gradient with respect to the block's output.
    argmax
        What ``conv2d_relu_pool(..., return_argmax=True)`` gave.
    w
        Filters, (K, C, R, S), of dy's dtype and place.
    x_shape
        (N, C, H, W).
    stride, padding, dilation, pool, kernel
        As for `conv2d_relu_pool`.

    Returns
    -------
    dx
        (N, C, H, W), of dy's dtype and place.

    Raises
    ------
    TypeError, ValueError
        As for `conv2d_relu_pool`, and for a dy or an argmax that does not have the output's shape.

    Notes
    -----
    The kernel ``"fused"`` lays each window's filter at all of its places, with zeros for all but
    the winner's: a weight that is not finite makes NaN of all that the window sees.
    """
    operation = OPERATION + "_backward_data"
    checks.array(operation, "dy", dy, "NKPQ")
    checks.array(operation, "w", w, "KCRS", like=dy)
    shape = BlockShape.of(
        x_shape, w.shape, stride=stride, padding=padding, dilation=dilation, pool=pool,
        operation=operation,
    )  # fmt: skip
    _check_gradient(operation, dy, argmax, shape, "x_shape, w and pool")
    return launch(OPERATION, "backward_data", kernel, (dy, argmax, w), shape.input_shape, shape)


def conv2d_relu_pool_backward_filter(
    x: Array,
    dy: Array,
    argmax: Array,
    w_shape: tuple[int, int, int, int],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    pool: Any = 2,
    kernel: str = "auto",
) -> Array:
    """Return the gradient of a loss with respect to the block's filters.

    Parameters
    ----------
    x
        Images, (N, C, H, W).
    dy, argmax
        As for `conv2d_relu_pool_backward_data`.
    w_shape
        (K, C, R, S).
    stride, padding, dilation, pool, kernel
        As for `conv2d_relu_pool`.

    Returns
    -------
    dw
        (K, C, R, S), of x's dtype and place.

    Raises
    ------
    TypeError, ValueError
        As for `conv2d_relu_pool_backward_data`.
    """
    operation = OPERATION + "_backward_filter"
    checks.array(operation, "x", x, "NCHW")
    checks.array(operation, "dy", dy, "NKPQ", like=x)
    shape = BlockShape.of(
        x.shape, w_shape, stride=stride, padding=padding, dilation=dilation, pool=pool,
        operation=operation,
    )  # fmt: skip
    _check_gradient(operation, dy, argmax, shape, "x, w_shape and pool")
    return launch(OPERATION, "backward_filter", kernel, (x, dy, argmax), shape.filter_shape, shape)


def conv2d_relu_pool_backward_bias(dy: Array, argmax: Array, *, kernel: str = "auto") -> Array:
    """Return the gradient of a loss with respect to the block's bias.

    Parameters
    ----------
    dy, argmax
        As for `conv2d_relu_pool_backward_data`.
    kernel
        As for `conv2d_relu_pool`.

    Returns
    -------
    db
        (K,), of dy's dtype and place: dy summed over n and the windows whose ReLU is open.

    Raises
    ------
    TypeError, ValueError
        As for `conv2d_relu_pool_backward_data`.
    """
    operation = OPERATION + "_backward_bias"
    checks.array(operation, "dy", dy, "NKPQ")
    n, k, p, q = checks.tensor_dims(operation, "dy shape", dy.shape, "NKPQ")
    # A 1x1 convolution of one channel and windows of one element have this output, and the bias
    # sees nothing else.
    shape = BlockShape.of((n, 1, p, q), (k, 1, 1, 1), pool=1, operation=operation)
    checks.block_argmax(operation, argmax, dy.shape, like=dy)
    return launch(OPERATION, "backward_bias", kernel, (dy, argmax), (k,), shape)


def _check_gradient(operation: str, dy: Array, argmax: Array, shape: BlockShape, by: str) -> None:
    checks.has_shape(operation, "dy", dy, shape.output_shape, f"(the block's output by {by})")
    checks.block_argmax(operation, argmax, shape.output_shape, like=dy)
