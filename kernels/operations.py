"""The public face: check what was passed, allocate the output, launch one row of the table.

Everything here works on NumPy arrays (on the host: `cpu`, `reference`, and CUDA C through the
emulator) and on CuPy arrays (on their GPU) alike, and returns arrays of the same kind.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels import checks, place, ranges, table, workspace
from kernels.shapes import Conv2dShape, PoolShape, Shape

Array = Any  # numpy.ndarray or cupy.ndarray


def conv2d(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    kernel: str = "auto",
) -> Array:
    """Cross-correlate a batch of images with a bank of filters.

    y[n,k,p,q] = b[k] + sum over c,r,s of x[n,c,h,w] w[k,c,r,s], where
    h = p*stride - pad_top + r*dilation and w likewise; outside the image x is 0.

    Parameters
    ----------
    x
        Images, (N, C, H, W), float32 or float64, C-contiguous; N may be 0.
    w
        Filters, (K, C, R, S), of x's dtype and place.
    b
        Bias, (K,), or None.
    stride, dilation
        int or (vertical, horizontal), at least 1.
    padding
        int, (vertical, horizontal), ((top, bottom), (left, right)), ``"valid"`` or ``"same"``
        (output = ceil(input / stride), the odd row or column at the bottom or right).
    kernel
        A row's name (``python -m kernels list``), ``"reference"`` or ``"auto"``: on a GPU what
        was fastest there when this pass was first called with such arrays (`kernels.choosing`),
        on the host ``"cpu"``.

    Returns
    -------
    y
        (N, K, P, Q), of x's dtype and place.

    Raises
    ------
    TypeError
        A wrong dtype, arrays in different places, or a kernel that cannot run there.
    ValueError
        A wrong rank, extent or layout, an unknown kernel, a filter larger than the padded input,
        a tensor past 2**31 elements, or a workspace past its limit.

    Notes
    -----
    Kernels round differently, within a derived bound (`kernels.compare`), and what overflows in one
    need not in another: ``"winograd"``, which ``"auto"`` may choose for 3x3 filters on a GPU, adds
    up to four values of x before it multiplies, and gives NaN for a whole tile of outputs that sees
    an infinite x, or one beyond a quarter of the dtype's largest number.
    """
    operation = "conv2d"
    _check_conv2d(operation, x, w)
    shape = Conv2dShape.of(
        x.shape, w.shape, stride=stride, padding=padding, dilation=dilation, operation=operation
    )
    if b is not None:
        checks.array(operation, "b", b, "K", like=x)
        checks.has_shape(operation, "b", b, (shape.k,), "(one for each filter)")
    return launch(operation, "forward", kernel, (x, w, b), shape.output_shape, shape)


def conv2d_backward_data(
    dy: Array,
    w: Array,
    x_shape: tuple[int, int, int, int],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    kernel: str = "auto",
) -> Array:
    """Return the gradient of a loss with respect to conv2d's input.

    Parameters
    ----------
    dy
        Gradient with respect to the output, (N, K, P, Q).
    w
        Filters, (K, C, R, S), of dy's dtype and place.
    x_shape
        (N, C, H, W): with a stride, several input sizes give the same output size.
    stride, padding, dilation, kernel
        As for `conv2d`.

    Returns
    -------
    dx
        (N, C, H, W), of dy's dtype and place.

    Raises
    ------
    TypeError, ValueError
        As for `conv2d`, and for a dy that does not have the output's shape.
    """
    operation = "conv2d_backward_data"
    checks.array(operation, "dy", dy, "NKPQ")
    checks.array(operation, "w", w, "KCRS", like=dy)
    shape = Conv2dShape.of(
        x_shape, w.shape, stride=stride, padding=padding, dilation=dilation, operation=operation
    )
    checks.has_shape(operation, "dy", dy, shape.output_shape, "(N, K, P, Q) by x_shape and w")
    return launch("conv2d", "backward_data", kernel, (dy, w), shape.input_shape, shape)


def conv2d_backward_filter(
    x: Array,
    dy: Array,
    w_shape: tuple[int, int, int, int],
    *,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    kernel: str = "auto",
) -> Array:
    """Return the gradient of a loss with respect to conv2d's filters.

    Parameters
    ----------
    x
        Images, (N, C, H, W).
    dy
        Gradient with respect to the output, (N, K, P, Q), of x's dtype and place.
    w_shape
        (K, C, R, S).
    stride, padding, dilation, kernel
        As for `conv2d`.

    Returns
    -------
    dw
        (K, C, R, S), of x's dtype and place.

    Raises
    ------
    TypeError, ValueError
        As for `conv2d`, and for a dy that does not have the output's shape.
    """
    operation = "conv2d_backward_filter"
    checks.array(operation, "x", x, "NCHW")
    checks.array(operation, "dy", dy, "NKPQ", like=x)
    shape = Conv2dShape.of(
        x.shape, w_shape, stride=stride, padding=padding, dilation=dilation, operation=operation
    )
    checks.has_shape(operation, "dy", dy, shape.output_shape, "(N, K, P, Q) by x and w_shape")
    return launch("conv2d", "backward_filter", kernel, (x, dy), shape.filter_shape, shape)


def conv2d_backward_bias(dy: Array, *, kernel: str = "auto") -> Array:
    """Return the gradient of a loss with respect to conv2d's bias: dy summed over n, p and q.

    Parameters
    ----------
    dy
        Gradient with respect to the output, (N, K, P, Q).
    kernel
        As for `conv2d`.

    Returns
    -------
    db
        (K,), of dy's dtype and place.

    Raises
    ------
    TypeError, ValueError
        As for `conv2d`.
    """
    operation = "conv2d_backward_bias"
    checks.array(operation, "dy", dy, "NKPQ")
    n, k, p, q = checks.tensor_dims(operation, "dy shape", dy.shape, "NKPQ")
    checks.element_count(operation, "dy", dy.shape)
    # A 1x1 convolution of one channel has this output, and the bias sees nothing but the output.
    shape = Conv2dShape.of((n, 1, p, q), (k, 1, 1, 1), operation=operation)
    return launch("conv2d", "backward_bias", kernel, (dy,), (k,), shape)


def max_pool2d(
    x: Array,
    size: Any = 2,
    *,
    stride: Any = None,
    padding: Any = 0,
    kernel: str = "auto",
    return_argmax: bool = False,
) -> Array | tuple[Array, Array]:
    """Take the maximum of every window.

    Parameters
    ----------
    x
        (N, C, H, W), float32 or float64, C-contiguous; N may be 0.
    size
        The window: int or (vertical, horizontal).
    stride
        int or (vertical, horizontal); None means `size`.
    padding
        As for `conv2d`; padding never is the maximum.
    kernel
        A row's name or ``"auto"``.
    return_argmax
        Return also where each maximum is, for `max_pool2d_backward`.

    Returns
    -------
    y
        (N, C, P, Q), of x's dtype and place.
    argmax
        int32, (N, C, P, Q): h*W + w in the input plane; ties go to the first in row order, and a
        NaN is its window's maximum.

    Raises
    ------
    TypeError, ValueError
        As for `conv2d`, and for a window that is all padding.
    """
    operation = "max_pool2d"
    checks.array(operation, "x", x, "NCHW")
    shape = PoolShape.of(x.shape, size, stride=stride, padding=padding, operation=operation)
    row = table.find(operation, kernel, like=x)
    xp = place.array_module(x)
    with place.current(x):
        y = xp.empty(shape.output_shape, x.dtype)
        argmax = xp.empty(shape.output_shape, np.int32)
        if shape.n:
            run_asked(kernel, row, "forward", (x, y, argmax), shape)
    return (y, argmax) if return_argmax else y


def max_pool2d_backward(
    dy: Array,
    argmax: Array,
    x_shape: tuple[int, int, int, int],
    size: Any = 2,
    *,
    stride: Any = None,
    padding: Any = 0,
    kernel: str = "auto",
) -> Array:
    """Return the gradient of a loss with respect to max_pool2d's input.

    Parameters
    ----------
    dy
        Gradient with respect to the output, (N, C, P, Q).
    argmax
        What ``max_pool2d(..., return_argmax=True)`` gave.
    x_shape
        (N, C, H, W).
    size, stride, padding, kernel
        As for `max_pool2d`.

    Returns
    -------
    dx
        (N, C, H, W), of dy's dtype and place.

    Raises
    ------
    TypeError, ValueError
        As for `max_pool2d`, and for a dy or an argmax that does not have the output's shape.
    """
    operation = "max_pool2d_backward"
    checks.array(operation, "dy", dy, "NCPQ")
    shape = PoolShape.of(x_shape, size, stride=stride, padding=padding, operation=operation)
    checks.has_shape(operation, "dy", dy, shape.output_shape, "(N, C, P, Q) by x_shape and size")
    checks.argmax(operation, argmax, shape.output_shape, like=dy)
    return launch("max_pool2d", "backward", kernel, (dy, argmax), shape.input_shape, shape)


def avg_pool2d(
    x: Array,
    size: Any = 2,
    *,
    stride: Any = None,
    padding: Any = 0,
    count_include_pad: bool = False,
    kernel: str = "auto",
) -> Array:
    """Take the mean of every window.

    Parameters
    ----------
    x
        (N, C, H, W), float32 or float64, C-contiguous; N may be 0.
    size, stride, padding
        As for `max_pool2d`.
    count_include_pad
        Whether padding counts in the divisor, as zeros.
    kernel
        A row's name or ``"auto"``.

    Returns
    -------
    y
        (N, C, P, Q), of x's dtype and place.

    Raises
    ------
    TypeError, ValueError
        As for `max_pool2d`.
    """
    operation = "avg_pool2d"
    checks.array(operation, "x", x, "NCHW")
    shape = PoolShape.of(
        x.shape,
        size,
        stride=stride,
        padding=padding,
        include_pad=count_include_pad,
        operation=operation,
    )
    return launch(operation, "forward", kernel, (x,), shape.output_shape, shape)


def avg_pool2d_backward(
    dy: Array,
    x_shape: tuple[int, int, int, int],
    size: Any = 2,
    *,
    stride: Any = None,
    padding: Any = 0,
    count_include_pad: bool = False,
    kernel: str = "auto",
) -> Array:
    """Return the gradient of a loss with respect to avg_pool2d's input.

    Parameters
    ----------
    dy
        Gradient with respect to the output, (N, C, P, Q).
    x_shape
        (N, C, H, W).
    size, stride, padding, count_include_pad, kernel
        As for `avg_pool2d`.

    Returns
    -------
    dx
        (N, C, H, W), of dy's dtype and place.

    Raises
    ------
    TypeError, ValueError
        As for `avg_pool2d`, and for a dy that does not have the output's shape.
    """
    operation = "avg_pool2d_backward"
    checks.array(operation, "dy", dy, "NCPQ")
    shape = PoolShape.of(
        x_shape,
        size,
        stride=stride,
        padding=padding,
        include_pad=count_include_pad,
        operation=operation,
    )
    checks.has_shape(operation, "dy", dy, shape.output_shape, "(N, C, P, Q) by x_shape and size")
    return launch("avg_pool2d", "backward", kernel, (dy,), shape.input_shape, shape)


def _check_conv2d(operation: str, x: Array, w: Array) -> None:
    checks.array(operation, "x", x, "NCHW")
    checks.array(operation, "w", w, "KCRS", like=x)


def launch(
    operation: str,
    direction: str,
    kernel: str,
    inputs: tuple[Array | None, ...],
    output_dims: tuple[int, ...],
    shape: Shape,
) -> Array:
    """Allocate one output, and workspace where the technique wants it, and run one launcher."""
    like: Any = inputs[0]
    row = table.find(operation, kernel, like=like)
    xp = place.array_module(like)
    with place.current(like):
        if shape.n == 0:
            return xp.zeros(output_dims, like.dtype)
        output = xp.empty(output_dims, like.dtype)
        run_asked(kernel, row, direction, (*inputs, output), shape)
    return output


def run_asked(
    kernel: str,
    row: table.Row,
    direction: str,
    arrays: tuple[Array | None, ...],
    shape: Shape,
) -> None:
    """Run the row that `table.find` gave for `kernel`; for ``"auto"`` on a GPU, the fastest."""
    if kernel == "auto" and "gpu" in row.places:  # else it is a row of the host: nothing to choose
        from kernels import choosing  # what it imports, the host does without

        row = choosing.fastest(row, direction, arrays, shape)
    run(row, direction, arrays, shape)


def run(row: table.Row, direction: str, arrays: tuple[Array | None, ...], shape: Shape) -> None:
    """Run one launcher of `row` on `arrays` (inputs, then outputs), with the workspace it wants.

    Raises
    ------
    ValueError
        Where the row refuses the shape or the dtype; the message says why.
    """
    like: Any = arrays[0]
    if reason := row.refuses(direction, shape, like.dtype):
        others = [r.name for r in table.rows(row.operation) if r.name != row.name]
        raise ValueError(
            f"{row.operation}: kernel {row.name!r} {reason}; use kernel='auto' or one of "
            f"{table.quoted(others)}"
        )
    extra = workspace_for(row, direction, shape, like)
    with ranges.span(f"{row.operation} {direction} {row.name}"):
        row.launcher(direction)(*arrays, shape, **extra)


def workspace_for(row: table.Row, direction: str, shape: Shape, like: Any) -> dict[str, Array]:
    """Return ``{"workspace": array}`` beside `like` where a launcher wants some, else nothing."""
    nbytes = row.workspace_bytes(direction, shape, like.dtype.itemsize, workspace.limit())
    return {"workspace": place.array_module(like).empty(nbytes, np.uint8)} if nbytes else {}
