"""Index arithmetic with names, as in ``index.cuh``, for Numba kernels.

Numba widens every sum and product of 32-bit integers to 64 bits; `int32` around an expression takes
all of it back to 32, which are enough: the caller refuses tensors past 2**31 elements. Offsets are
unsigned, since Numba would count a negative one from the array's end and so has to ask.
"""

from __future__ import annotations

from typing import Any

from numba import cuda, float32, int32, uint32

from kernels.shapes import Conv2dShape, PoolShape

Shape = Conv2dShape | PoolShape

# As -D does for a .cu file, `NumbaSource` puts the arrays' element type here.
scalar = float32

# How a kernel's parameters are declared: flat arrays, an int32 as such, a shape as its class.
Scalars = Any
Int32s = Any


@cuda.jit(device=True)
def quotient(a: int32, b: int32) -> int32:
    """Return C's a / b for positive b: towards zero, in 32 bits."""
    # Numba's own // rounds down and takes 64 bits; of unsigned numbers it takes 32.
    size = int32(uint32(abs(a)) // uint32(b))
    return int32(-size) if a < 0 else size


@cuda.jit(device=True)
def remainder(a: int32, b: int32) -> int32:
    """Return C's a % b for positive b: it has the sign of a."""
    return int32(a - quotient(a, b) * b)


@cuda.jit(device=True)
def ceil_div(a: int32, b: int32) -> int32:
    """Return a / b rounded up, for a of either sign and positive b."""
    return int32(quotient(a, b) + (remainder(a, b) > 0))


@cuda.jit(device=True)
def inside(i: int32, extent: int32) -> bool:
    """Tell whether 0 <= i < extent."""
    return i >= 0 and i < extent


@cuda.jit(device=True)
def grid_index() -> int32:
    """Return the element of a one-dimensional grid that this thread owns."""
    return int32(cuda.blockIdx.x * cuda.blockDim.x + cuda.threadIdx.x)


@cuda.jit(device=True)
def input_row(shape: Conv2dShape, p: int32, r: int32) -> int32:
    """Return the input row that output row p reads through filter row r; outside it is padding."""
    return int32(p * shape.stride_h - shape.pad_top + r * shape.dilation_h)


@cuda.jit(device=True)
def input_col(shape: Conv2dShape, q: int32, s: int32) -> int32:
    """Return the input column that output column q reads through filter column s."""
    return int32(q * shape.stride_w - shape.pad_left + s * shape.dilation_w)


@cuda.jit(device=True)
def output_row(shape: Conv2dShape, h: int32, r: int32) -> int32:
    """Return the output row that reads input row h through filter row r, or -1: none does."""
    reach = int32(h + shape.pad_top - r * shape.dilation_h)
    p = quotient(reach, shape.stride_h)
    reads = reach >= 0 and int32(p * shape.stride_h) == reach and p < shape.p
    return p if reads else int32(-1)


@cuda.jit(device=True)
def output_col(shape: Conv2dShape, w: int32, s: int32) -> int32:
    """Return the output column that reads input column w through filter column s, or -1."""
    reach = int32(w + shape.pad_left - s * shape.dilation_w)
    q = quotient(reach, shape.stride_w)
    reads = reach >= 0 and int32(q * shape.stride_w) == reach and q < shape.q
    return q if reads else int32(-1)


@cuda.jit(device=True)
def find_hits(
    reach: int32, stride: int32, dilation: int32, taps: int32, origin: int32
) -> tuple[int32, int32, int32, int32]:
    """Return (first, step, at, move): the same for a whole run of taps without a division each.

    Of the taps 0 .. taps-1 only every `step`-th lands on an output, the first in output row `at`,
    each next one `move` rows higher. `reach` is h + pad_top - (first tap of the run) * dilation;
    rows count from `origin`.
    """
    divisor = stride  # becomes the greatest common one of stride and dilation
    rest = remainder(dilation, divisor)
    while rest != 0:
        following = remainder(divisor, rest)
        divisor = rest
        rest = following
    step = quotient(stride, divisor)
    move = quotient(dilation, divisor)
    first = int32(0)
    while first < taps and remainder(int32(reach - first * dilation), stride) != 0:
        first = int32(first + 1)
    at = int32(quotient(int32(reach - first * dilation), stride) - origin)
    return first, step, at, move


@cuda.jit(device=True)
def x_offset(shape: Shape, n: int32, c: int32, h: int32, w: int32) -> uint32:
    """Return where x[n, c, h, w] is."""
    return uint32(((n * shape.c + c) * shape.h + h) * shape.w + w)


@cuda.jit(device=True)
def w_offset(shape: Conv2dShape, k: int32, c: int32, r: int32, s: int32) -> uint32:
    """Return where w[k, c, r, s] is."""
    return uint32(((k * shape.c + c) * shape.r + r) * shape.s + s)


@cuda.jit(device=True)
def y_offset(shape: Conv2dShape, n: int32, k: int32, p: int32, q: int32) -> uint32:
    """Return where y[n, k, p, q] is."""
    return uint32(((n * shape.k + k) * shape.p + p) * shape.q + q)


@cuda.jit(device=True)
def pool_y_offset(shape: PoolShape, n: int32, c: int32, p: int32, q: int32) -> uint32:
    """Return where y[n, c, p, q] of a pooling is (C++ tells it from `y_offset` by the shape)."""
    return uint32(((n * shape.c + c) * shape.p + p) * shape.q + q)


@cuda.jit(device=True)
def unflatten(
    i: int32, extent_b: int32, extent_c: int32, extent_d: int32
) -> tuple[int32, int32, int32, int32]:
    """Return a flat index over (A, B, C, D) taken apart, the last dimension fastest."""
    d = remainder(i, extent_d)
    i = quotient(i, extent_d)
    c = remainder(i, extent_c)
    i = quotient(i, extent_c)
    return quotient(i, extent_b), remainder(i, extent_b), c, d
