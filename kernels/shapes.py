"""The shapes of a convolution and of a pooling, and the arithmetic that follows from them.

Letters are CUTLASS's and cuDNN's: input ``N C H W``, filters ``K C R S``, output ``N K P Q``.
The field order is the layout of the structs in ``shape.cuh``; a test pins the two together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar

import numpy as np

from kernels import checks

P = ParamSpec("P")
S = TypeVar("S")

# A fused block's argmax is a byte: the place of a window's maximum, or that the ReLU is closed.
CLOSED = 255
MOST_POOLED = 255


def _remembered(derive: Callable[P, S]) -> Callable[P, S]:
    """Let a shape that is asked for again be looked up: deriving it takes as long as a launch."""
    known = functools.lru_cache(maxsize=256, typed=True)(derive)

    @functools.wraps(derive)
    def derived(*args: P.args, **named: P.kwargs) -> S:
        try:
            return known(*args, **named)  # type: ignore[arg-type]
        except TypeError:  # a list cannot be looked up; and what is wrong is found once more
            return derive(*args, **named)

    return derived


class Conv2dShape(NamedTuple):
    """One two-dimensional cross-correlation: every extent a kernel needs, as plain ints.

    Build it with `Conv2dShape.of`; all extents are in elements.
    """

    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    p: int
    q: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int
    dilation_h: int
    dilation_w: int

    @classmethod
    @_remembered
    def of(
        cls,
        input_shape: Any,
        filter_shape: Any,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        operation: str = "conv2d",
    ) -> Self:
        """Derive the output size (floor) and check every extent.

        Parameters
        ----------
        input_shape
            (N, C, H, W); N may be 0.
        filter_shape
            (K, C, R, S).
        stride, dilation
            int or (vertical, horizontal), at least 1.
        padding
            int, (vertical, horizontal), ((top, bottom), (left, right)), ``"valid"`` or ``"same"``
            (output = ceil(input / stride), the odd row or column at the bottom or right).
        operation
            Named in errors.

        Raises
        ------
        TypeError, ValueError
            A value that no convolution has, a filter larger than the padded input, or a tensor
            past the kernels' 32-bit index.

        Examples
        --------
        >>> Conv2dShape.of((1, 1, 28, 28), (6, 1, 5, 5), padding=2).output_shape
        (1, 6, 28, 28)
        """
        n, c, h, w = checks.tensor_dims(operation, "x shape", input_shape, "NCHW")
        k, filter_c, r, s = checks.tensor_dims(operation, "w shape", filter_shape, "KCRS")
        checks.channels(operation, filter_c, c, (r, s))
        stride_h, stride_w = checks.pair(operation, "stride", stride, 1)
        dilation_h, dilation_w = checks.pair(operation, "dilation", dilation, 1)
        window = (r - 1) * dilation_h + 1, (s - 1) * dilation_w + 1
        rows, cols = checks.padding(operation, padding, (h, w), window, (stride_h, stride_w))
        what = "the filter with its dilation" if max(dilation_h, dilation_w) > 1 else "the filter"
        p = checks.output_extent(operation, "rows", h, rows, window[0], stride_h, what)
        q = checks.output_extent(operation, "columns", w, cols, window[1], stride_w, what)
        shape = cls(
            n, c, h, w, k, r, s, p, q, stride_h, stride_w, *rows, *cols, dilation_h, dilation_w
        )
        checks.integer(operation, "padded input height", h + sum(rows), 1)
        checks.integer(operation, "padded input width", w + sum(cols), 1)
        checks.element_count(operation, "x", shape.input_shape)
        checks.element_count(operation, "w", shape.filter_shape, "use fewer filters")
        checks.element_count(operation, "y", shape.output_shape)
        return shape

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return self.n, self.c, self.h, self.w

    @property
    def filter_shape(self) -> tuple[int, int, int, int]:
        """(K, C, R, S)."""
        return self.k, self.c, self.r, self.s

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(N, K, P, Q)."""
        return self.n, self.k, self.p, self.q

    @property
    def stride(self) -> tuple[int, int]:
        """(vertical, horizontal)."""
        return self.stride_h, self.stride_w

    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """((top, bottom), (left, right))."""
        return (self.pad_top, self.pad_bottom), (self.pad_left, self.pad_right)

    @property
    def dilation(self) -> tuple[int, int]:
        """(vertical, horizontal)."""
        return self.dilation_h, self.dilation_w

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of the input that one output sees: the dilated filter's extent."""
        return (self.r - 1) * self.dilation_h + 1, (self.s - 1) * self.dilation_w + 1

    def parameters(self, bias: bool = True) -> int:
        """Return the learned numbers: K*(R*S*C), and K more with a bias."""
        return self.k * (self.r * self.s * self.c) + (self.k if bias else 0)

    @property
    def flops(self) -> int:
        """Floating-point operations of one pass, forward or either gradient.

        A multiplication and an addition for every tap of every output; taps that fall on padding
        are counted, as everybody does.
        """
        return 2 * math.prod(self.output_shape) * self.c * self.r * self.s

    def least_bytes(self, itemsize: int = 4) -> int:
        """Return the bytes a pass must move at least: x, w and y once each.

        Each gradient touches three tensors of the same sizes, so the figure holds for all three
        passes (the bias is left out).
        """
        tensors = (self.input_shape, self.filter_shape, self.output_shape)
        return itemsize * sum(math.prod(dims) for dims in tensors)

    def intensity(self, itemsize: int = 4) -> float:
        """Return the arithmetic intensity, FLOPs a byte; 0 for an empty batch."""
        return self.flops / self.least_bytes(itemsize)

    @property
    def struct(self) -> np.void:
        """The value a CUDA C kernel takes: ``struct Conv2dShape`` of ``shape.cuh``."""
        return _struct(self, _CONV2D_STRUCT)


class BlockShape(NamedTuple):
    """A convolution, its ReLU and a max-pooling in one: `Conv2dShape`'s fields, and the pool's.

    Build it with `BlockShape.of`. P and Q are the convolution's own output, which a fused kernel
    never stores; the block's output is ``pooled_p`` x ``pooled_q``. The windows lie side by side:
    their stride is their size, they have no padding, and what is left over at the bottom and at
    the right is in none.
    """

    n: int
    c: int
    h: int
    w: int
    k: int
    r: int
    s: int
    p: int
    q: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int
    dilation_h: int
    dilation_w: int
    pool_r: int
    pool_s: int
    pooled_p: int
    pooled_q: int

    @classmethod
    @_remembered
    def of(
        cls,
        input_shape: Any,
        filter_shape: Any,
        *,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        pool: Any = 2,
        operation: str = "conv2d_relu_pool",
    ) -> Self:
        """Derive the output size (floor) and check every extent.

        Parameters
        ----------
        input_shape, filter_shape, stride, padding, dilation
            The convolution's, as for `Conv2dShape.of`.
        pool
            The pooling window: int or (vertical, horizontal), at most 255 elements.
        operation
            Named in errors.

        Raises
        ------
        TypeError, ValueError
            As for `Conv2dShape.of`; a window larger than the convolution's output, or of more
            than 255 elements.

        Examples
        --------
        >>> BlockShape.of((1, 1, 28, 28), (6, 1, 5, 5), padding=2).output_shape
        (1, 6, 14, 14)
        """
        conv = Conv2dShape.of(
            input_shape, filter_shape, stride=stride, padding=padding, dilation=dilation,
            operation=operation,
        )  # fmt: skip
        pool_r, pool_s = checks.pair(operation, "pool", pool, 1)
        if pool_r * pool_s > MOST_POOLED:
            raise ValueError(
                f"{operation}: pool is {pool_r} x {pool_s}, {pool_r * pool_s} elements; expected "
                f"at most {MOST_POOLED}, for an argmax is a byte: use conv2d and max_pool2d"
            )
        none = (0, 0)
        rows = checks.output_extent(operation, "rows", conv.p, none, pool_r, pool_r, "the window")
        cols = checks.output_extent(
            operation, "columns", conv.q, none, pool_s, pool_s, "the window"
        )
        return cls(*conv, pool_r, pool_s, rows, cols)

    @property
    def conv(self) -> Conv2dShape:
        """The convolution alone."""
        return Conv2dShape(*self[: len(Conv2dShape._fields)])

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return self.n, self.c, self.h, self.w

    @property
    def filter_shape(self) -> tuple[int, int, int, int]:
        """(K, C, R, S)."""
        return self.k, self.c, self.r, self.s

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(N, K, pooled P, pooled Q)."""
        return self.n, self.k, self.pooled_p, self.pooled_q

    @property
    def stride(self) -> tuple[int, int]:
        """Of the convolution, (vertical, horizontal)."""
        return self.stride_h, self.stride_w

    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Of the convolution, ((top, bottom), (left, right))."""
        return (self.pad_top, self.pad_bottom), (self.pad_left, self.pad_right)

    @property
    def dilation(self) -> tuple[int, int]:
        """Of the convolution, (vertical, horizontal)."""
        return self.dilation_h, self.dilation_w

    @property
    def pool(self) -> tuple[int, int]:
        """Rows and columns of a pooling window."""
        return self.pool_r, self.pool_s

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of the input that one output of the block sees."""
        return receptive_field(
            [((self.r, self.s), self.stride, self.dilation), (self.pool, self.pool)]
        )

    @property
    def flops(self) -> int:
        """Floating-point operations of the forward pass: those of the pooled convolution outputs.

        A multiplication and an addition for every tap of every output that lies in a window.
        """
        return self.sparse_flops * self.pool_r * self.pool_s

    @property
    def sparse_flops(self) -> int:
        """Floating-point operations of a gradient: one element of every window has one."""
        return 2 * math.prod(self.output_shape) * self.c * self.r * self.s

    def least_bytes(self, itemsize: int = 4) -> int:
        """Return the bytes a pass must move at least: x, w, y and the argmax once each."""
        tensors = (self.input_shape, self.filter_shape, self.output_shape)
        return itemsize * sum(map(math.prod, tensors)) + math.prod(self.output_shape)

    def intensity(self, itemsize: int = 4) -> float:
        """Return the forward pass's arithmetic intensity, FLOPs a byte; 0 for an empty batch."""
        return self.flops / self.least_bytes(itemsize)

    @property
    def struct(self) -> np.void:
        """The value a CUDA C kernel takes: ``struct BlockShape`` of ``shape.cuh``."""
        return _struct(self, _BLOCK_STRUCT)


class PoolShape(NamedTuple):
    """One two-dimensional pooling; R and S are the window's extents, in elements.

    Build it with `PoolShape.of`. `include_pad` (0 or 1) matters to average pooling alone: whether
    padding counts in the divisor.
    """

    n: int
    c: int
    h: int
    w: int
    r: int
    s: int
    p: int
    q: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int
    include_pad: int

    @classmethod
    @_remembered
    def of(
        cls,
        input_shape: Any,
        size: Any = 2,
        *,
        stride: Any = None,
        padding: Any = 0,
        include_pad: bool = False,
        operation: str = "pool2d",
    ) -> Self:
        """Derive the output size (floor) and check every extent.

        Parameters
        ----------
        input_shape
            (N, C, H, W); N may be 0.
        size
            The window: int or (vertical, horizontal).
        stride
            int or (vertical, horizontal); None means `size`.
        padding
            As for `Conv2dShape.of`.
        include_pad
            Average pooling: whether padding counts in the divisor.
        operation
            Named in errors.

        Raises
        ------
        TypeError, ValueError
            A value that no pooling has, a window that holds nothing but padding, or a tensor past
            the kernels' 32-bit index.
        """
        n, c, h, w = checks.tensor_dims(operation, "x shape", input_shape, "NCHW")
        r, s = checks.pair(operation, "size", size, 1)
        stride_h, stride_w = checks.pair(operation, "stride", size if stride is None else stride, 1)
        rows, cols = checks.padding(operation, padding, (h, w), (r, s), (stride_h, stride_w))
        p = checks.output_extent(operation, "rows", h, rows, r, stride_h, "the window")
        q = checks.output_extent(operation, "columns", w, cols, s, stride_w, "the window")
        checks.windows_hold_data(operation, "rows", h, rows, r, stride_h, p)
        checks.windows_hold_data(operation, "columns", w, cols, s, stride_w, q)
        shape = cls(
            n, c, h, w, r, s, p, q, stride_h, stride_w, *rows, *cols, int(bool(include_pad))
        )
        checks.integer(operation, "padded input height", h + sum(rows), 1)
        checks.integer(operation, "padded input width", w + sum(cols), 1)
        checks.element_count(operation, "x", shape.input_shape)
        checks.element_count(operation, "y", shape.output_shape)
        return shape

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return self.n, self.c, self.h, self.w

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """(N, C, P, Q)."""
        return self.n, self.c, self.p, self.q

    @property
    def stride(self) -> tuple[int, int]:
        """(vertical, horizontal)."""
        return self.stride_h, self.stride_w

    @property
    def padding(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """((top, bottom), (left, right))."""
        return (self.pad_top, self.pad_bottom), (self.pad_left, self.pad_right)

    @property
    def window(self) -> tuple[int, int]:
        """(R, S): rows and columns of the input that one output sees."""
        return self.r, self.s

    @property
    def flops(self) -> int:
        """Comparisons or additions of one pass: one for every element of every window."""
        return math.prod(self.output_shape) * self.r * self.s

    def least_bytes(self, itemsize: int = 4) -> int:
        """Return the bytes a pass must move at least: x and y once each (an argmax is extra)."""
        return itemsize * (math.prod(self.input_shape) + math.prod(self.output_shape))

    def intensity(self, itemsize: int = 4) -> float:
        """Return the arithmetic intensity, FLOPs a byte; 0 for an empty batch."""
        return self.flops / max(self.least_bytes(itemsize), 1)

    @property
    def struct(self) -> np.void:
        """The value a CUDA C kernel takes: ``struct PoolShape`` of ``shape.cuh``."""
        return _struct(self, _POOL_STRUCT)


Shape = Conv2dShape | BlockShape | PoolShape

_CONV2D_STRUCT = np.dtype([(field, np.int32) for field in Conv2dShape._fields])
_BLOCK_STRUCT = np.dtype([(field, np.int32) for field in BlockShape._fields])
_POOL_STRUCT = np.dtype([(field, np.int32) for field in PoolShape._fields])


def _struct(shape: tuple[int, ...], layout: np.dtype) -> np.void:
    scalar: np.void = np.array([tuple(shape)], layout)[0]
    return scalar


def receptive_field(layers: Iterable[Any]) -> tuple[int, int]:
    """Return the rows and columns of the input that one output of a stack of layers sees.

    Parameters
    ----------
    layers
        From the input on; each a `Conv2dShape`, a `PoolShape`, a filter size, or a tuple
        (size[, stride[, dilation]]) whose members are int or (vertical, horizontal).

    Examples
    --------
    >>> receptive_field([3, 3])
    (5, 5)
    >>> receptive_field([(3, 1, 2)])
    (5, 5)
    """
    field = [1, 1]
    jump = [1, 1]  # distance on the input between neighbouring outputs
    for layer in layers:
        window, stride = _window_and_stride(layer)
        for axis in (0, 1):
            field[axis] += (window[axis] - 1) * jump[axis]
            jump[axis] *= stride[axis]
    return field[0], field[1]


def _window_and_stride(layer: Any) -> tuple[tuple[int, int], tuple[int, int]]:
    if isinstance(layer, (Conv2dShape, PoolShape, BlockShape)):
        return layer.window, layer.stride
    values = layer if isinstance(layer, (tuple, list)) else (layer,)
    if not 1 <= len(values) <= 3:
        raise ValueError(
            f"receptive_field: layer {layer!r}; expected a size or (size[, stride[, dilation]])"
        )
    size, *rest = values
    operation = "receptive_field"
    r, s = checks.pair(operation, "size", size, 1)
    stride = checks.pair(operation, "stride", rest[0] if rest else 1, 1)
    dilation = checks.pair(operation, "dilation", rest[1] if len(rest) > 1 else 1, 1)
    return ((r - 1) * dilation[0] + 1, (s - 1) * dilation[1] + 1), stride
