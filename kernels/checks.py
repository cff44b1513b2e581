"""What a caller may pass: every error text of the public face.

Each text names the operation, what it got, what it wants and the way out.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from kernels import place

# Kernels index with 32 bits; a grid rounded up to whole blocks must still fit an int.
INDEX_LIMIT = 2**31 - 1024

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))

Padding = tuple[tuple[int, int], tuple[int, int]]


def integer(operation: str, name: str, value: Any, minimum: int, wanted: str = "an int") -> int:
    """Return `value` as an int, or raise TypeError / ValueError naming it."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{operation}: {name} is {value!r} ({type(value).__name__}); expected {wanted}"
        ) from None
    if number < minimum:
        raise ValueError(f"{operation}: {name} is {number}; expected at least {minimum}")
    if number > INDEX_LIMIT:
        raise ValueError(
            f"{operation}: {name} is {number}; kernels index with 32 bits, "
            f"expected at most {INDEX_LIMIT}"
        )
    return number


def pair(operation: str, name: str, value: Any, minimum: int) -> tuple[int, int]:
    """Return `value`, an int or (vertical, horizontal), as a pair of ints."""
    wanted = "an int or (vertical, horizontal)"
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise ValueError(
                f"{operation}: {name} has {len(value)} values, {value!r}; expected {wanted}"
            )
        vertical, horizontal = value
    else:
        vertical = horizontal = value
    return (
        integer(operation, name, vertical, minimum, wanted),
        integer(operation, name, horizontal, minimum, wanted),
    )


def padding(
    operation: str,
    value: Any,
    extent: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
) -> Padding:
    """Return `value` as ((top, bottom), (left, right)).

    Parameters
    ----------
    operation
        Named in errors.
    value
        int, (vertical, horizontal), ((top, bottom), (left, right)), ``"valid"`` or ``"same"``.
    extent
        Input height and width, elements.
    window
        Extent of the dilated filter or of the pooling window, elements.
    stride
        Vertical and horizontal step, elements.
    """
    wanted = "an int, (vertical, horizontal), ((top, bottom), (left, right)), 'valid' or 'same'"
    unknown = ValueError(f"{operation}: padding is {value!r}; expected {wanted}")
    if isinstance(value, str):
        if value.lower() == "valid":
            return (0, 0), (0, 0)
        if value.lower() == "same":
            return _same(extent[0], window[0], stride[0]), _same(extent[1], window[1], stride[1])
        raise unknown
    sides = value if isinstance(value, (tuple, list)) else (value, value)
    if len(sides) != 2:
        raise unknown
    if not any(isinstance(side, (tuple, list)) for side in sides):
        sides = [(side, side) for side in sides]
    if not all(isinstance(side, (tuple, list)) and len(side) == 2 for side in sides):
        raise unknown
    (top, bottom), (left, right) = (
        tuple(integer(operation, "padding", pad, 0, wanted) for pad in side) for side in sides
    )
    return (top, bottom), (left, right)


def _same(extent: int, window: int, stride: int) -> tuple[int, int]:
    outputs = -(-extent // stride)
    total = max((outputs - 1) * stride + window - extent, 0)
    return total // 2, total - total // 2


def output_extent(
    operation: str,
    axis: str,
    extent: int,
    pads: tuple[int, int],
    window: int,
    stride: int,
    what: str,
) -> int:
    """Return the number of outputs along one axis (floor), or raise when there is none."""
    padded = extent + sum(pads)
    if window > padded:
        raise ValueError(
            f"{operation}: {what} spans {window} {axis} but the padded input has {padded} "
            f"({extent} + padding {pads[0]} + {pads[1]}); use a smaller one or more padding"
        )
    return (padded - window) // stride + 1


def element_count(
    operation: str, name: str, dims: Sequence[int], way_out: str = "split the batch"
) -> None:
    """Raise ValueError when a tensor of shape `dims` is past the kernels' 32-bit index."""
    count = 1
    for extent in dims:
        count *= extent
    if count > INDEX_LIMIT:
        raise ValueError(
            f"{operation}: {name} of shape {tuple(dims)} has {count} elements; kernels index with "
            f"32 bits, at most {INDEX_LIMIT}: {way_out}"
        )


def tensor_dims(operation: str, name: str, dims: Any, letters: str) -> tuple[int, ...]:
    """Return `dims` as a tuple of ints of rank ``len(letters)``; only N may be 0."""
    wanted = f"({', '.join(letters)})"
    if not isinstance(dims, (tuple, list)) or len(dims) != len(letters):
        raise ValueError(f"{operation}: {name} is {dims!r}; expected {wanted}")
    checked = []
    for letter, extent in zip(letters, dims, strict=True):
        minimum = 0 if letter == "N" else 1
        checked.append(integer(operation, f"{letter} of {name}", extent, minimum))
    return tuple(checked)


def array(operation: str, name: str, value: Any, letters: str, like: Any = None) -> None:
    """Raise unless `value` is an array that a kernel can be given.

    Parameters
    ----------
    operation, name
        Named in errors.
    value
        The array: NumPy or CuPy, C-contiguous, native float32 or float64.
    letters
        Its dimensions, one letter each (``"NCHW"``).
    like
        An array that was checked before; `value` must share its dtype and its place.
    """
    module = place.array_module(value)
    if module is None:
        raise TypeError(
            f"{operation}: {name} is {type(value).__name__}; expected a NumPy or CuPy array: "
            f"numpy.asarray({name}, dtype=numpy.float32)"
        )
    if value.ndim != len(letters):
        raise ValueError(
            f"{operation}: {name} has {value.ndim} dimensions, shape {value.shape}; "
            f"expected ({', '.join(letters)})"
        )
    if value.dtype not in DTYPES or not value.dtype.isnative:
        raise TypeError(
            f"{operation}: {name} is {value.dtype}; expected float32 or float64: "
            f"{name}.astype('float32')"
        )
    if like is not None:
        same_place(operation, name, value, like)
        if value.dtype != like.dtype:
            raise TypeError(
                f"{operation}: {name} is {value.dtype} but the first array is {like.dtype}; "
                f"all arrays of a call share one dtype: {name}.astype('{like.dtype}')"
            )
    contiguous(operation, name, value)


def same_place(operation: str, name: str, value: Any, like: Any) -> None:
    """Raise unless `value` lives where `like` does."""
    if place.describe(value) != place.describe(like):
        raise TypeError(
            f"{operation}: {name} is in {place.describe(value)} but the first array is in "
            f"{place.describe(like)}; move one: cupy.asarray(...) or cupy.asnumpy(...)"
        )


def contiguous(operation: str, name: str, value: Any) -> None:
    """Raise unless `value` is C-contiguous and, on the host, aligned to its elements."""
    if not value.flags.c_contiguous:
        raise ValueError(
            f"{operation}: {name} of shape {value.shape} is not C-contiguous; "
            f"pass ascontiguousarray({name})"
        )
    if not getattr(value.flags, "aligned", True):
        raise ValueError(
            f"{operation}: {name} of shape {value.shape} is not aligned to its "
            f"{value.dtype.itemsize}-byte elements; pass {name}.copy()"
        )


def argmax(operation: str, value: Any, dims: tuple[int, ...], like: Any) -> None:
    """Raise unless `value` is max_pool2d's: an int32 array of shape `dims` where `like` lives."""
    _argmax(operation, value, dims, like, np.dtype(np.int32), "max_pool2d")


def block_argmax(operation: str, value: Any, dims: tuple[int, ...], like: Any) -> None:
    """Raise unless `value` is conv2d_relu_pool's: a uint8 array of shape `dims`, as `argmax`."""
    _argmax(operation, value, dims, like, np.dtype(np.uint8), "conv2d_relu_pool")


def _argmax(
    operation: str, value: Any, dims: tuple[int, ...], like: Any, dtype: np.dtype, giver: str
) -> None:
    if place.array_module(value) is None:
        raise TypeError(
            f"{operation}: argmax is {type(value).__name__}; expected the array that "
            f"{giver}(..., return_argmax=True) gave"
        )
    if value.dtype != dtype or value.shape != dims:
        raise ValueError(
            f"{operation}: argmax is {value.dtype} of shape {value.shape}; expected {dtype} of "
            f"shape {dims}, as {giver}(..., return_argmax=True) gave it"
        )
    same_place(operation, "argmax", value, like)
    contiguous(operation, "argmax", value)


def has_shape(operation: str, name: str, value: Any, dims: tuple[int, ...], why: str) -> None:
    """Raise unless `value` has shape `dims`."""
    if value.shape != dims:
        raise ValueError(f"{operation}: {name} has shape {value.shape}; expected {dims} {why}")


def channels(operation: str, got: int, wanted: int, filter_extent: tuple[int, int]) -> None:
    """Raise unless w has as many channels as x."""
    if got != wanted:
        r, s = filter_extent
        raise ValueError(
            f"{operation}: w has C={got} but x has C={wanted}; "
            f"expected w of shape (K, {wanted}, {r}, {s})"
        )


def windows_hold_data(
    operation: str,
    axis: str,
    extent: int,
    pads: tuple[int, int],
    window: int,
    stride: int,
    outputs: int,
) -> None:
    """Raise when the first or the last pooling window along an axis is all padding."""
    first_end = window - pads[0]
    last_begin = (outputs - 1) * stride - pads[0]
    if first_end <= 0 or last_begin >= extent:
        raise ValueError(
            f"{operation}: padding {pads} makes a window of {window} {axis} all padding "
            f"(input {extent}, stride {stride}); expected every window to hold an input element: "
            "use less padding"
        )
