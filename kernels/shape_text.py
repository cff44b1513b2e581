"""A shape as it is written on a command line: numbers, and which of them may be left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kernels.shapes import BlockShape, Conv2dShape, PoolShape, Shape

OPERATIONS = ("conv2d", "conv2d_relu_pool", "max_pool2d", "avg_pool2d")
# What the numbers of a shape mean, and how many must be given.
_CONV = ("N", "C", "H", "W", "K", "R", "S", "stride", "padding", "dilation")
_POOL = ("N", "C", "H", "W", "size", "stride", "padding"), 5
FIELDS = {
    "conv2d": (_CONV, 7),
    "conv2d_relu_pool": ((*_CONV, "pool"), 7),
    "max_pool2d": _POOL,
    "avg_pool2d": _POOL,
}
DEFAULTS = {"stride": 1, "padding": 0, "dilation": 1, "pool": 2}


class ShapeTextError(ValueError):
    """A text that is no shape; the message says what is wanted."""


def fields(operation: str) -> tuple[tuple[str, ...], int]:
    """Return the names of an operation's numbers, and how many of them must be given."""
    return FIELDS[operation]


def parse(text: str, operation: str) -> Shape:
    """Return the shape that a text describes.

    Parameters
    ----------
    text
        ``"N,C,H,W,K,R,S[,stride[,padding[,dilation]]]"``, for a fused block with ``",pool"`` after
        them; for a pooling ``"N,C,H,W,size[,stride[,padding]]"``. Before it the operation and a
        colon may stand.
    operation
        One of `OPERATIONS`.

    Raises
    ------
    ShapeTextError
        A text that is no shape of this operation.
    """
    values = _numbers(text.removeprefix(operation + ":"), operation, text)
    for name, value in values.items():
        if not re.fullmatch(r"\d{1,9}", value):
            raise ShapeTextError(f"shape {text!r}: {name} is {value!r}; expected a whole number")
    return build(operation, {name: int(value) for name, value in values.items()}, text)


def split(text: str) -> tuple[str, dict[str, str]]:
    """Return the operation (conv2d where none is named) and the text of each number.

    Parameters
    ----------
    text
        As for `parse`; a number may have its name before it, ``"N=64"``.

    Raises
    ------
    ShapeTextError
        An unknown operation, or too few or too many numbers.
    """
    operation, colon, rest = text.partition(":")
    if not colon or operation not in OPERATIONS:
        if colon and re.fullmatch("[a-z_0-9]*", operation) and not operation.isdigit():
            raise ShapeTextError(
                f"shape {text!r}: unknown operation {operation!r}; expected one of "
                f"{', '.join(OPERATIONS)}"
            )
        operation, rest = "conv2d", text
    return operation, _numbers(rest, operation, text)


def _numbers(rest: str, operation: str, text: str) -> dict[str, str]:
    names, needed = fields(operation)
    values = [value.strip() for value in rest.split(",")]
    if not needed <= len(values) <= len(names):
        optional = "".join(f"[,{name}" for name in names[needed:])
        raise ShapeTextError(
            f"shape {text!r} has {len(values)} numbers; expected "
            f"{','.join(names[:needed])}{optional}{']' * (len(names) - needed)}"
        )
    return {
        name: value.removeprefix(f"{name}=").removeprefix(f"{name.lower()}=")
        for name, value in zip(names, values, strict=False)
    }


def build(operation: str, given: Mapping[str, int], text: str) -> Shape:
    """Return the shape of some numbers.

    Parameters
    ----------
    operation
        One of `OPERATIONS`.
    given
        The numbers by name; `DEFAULTS` and, for a pooling, its size as the stride fill it up.
    text
        Names the shape in a message.

    Raises
    ------
    ShapeTextError
        Where there is no such shape.
    """
    value = {**DEFAULTS, **given}
    dims = tuple(value[name] for name in ("N", "C", "H", "W"))
    try:
        if "K" in given:
            filters = value["K"], value["C"], value["R"], value["S"]
            how: dict[str, Any] = {name: value[name] for name in ("stride", "padding", "dilation")}
            if operation == "conv2d_relu_pool":
                return BlockShape.of(dims, filters, pool=value["pool"], **how)
            return Conv2dShape.of(dims, filters, **how)
        stride = given.get("stride")
        padding = value["padding"]
        return PoolShape.of(
            dims, value["size"], stride=stride, padding=padding, operation=operation
        )
    except (TypeError, ValueError) as error:
        raise ShapeTextError(f"shape {text!r}: {error}") from None
