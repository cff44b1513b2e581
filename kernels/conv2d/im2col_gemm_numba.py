"""Convolution as one matrix product, in Numba CUDA: `im2col_gemm.cu`, kernel by kernel.

The slices of the batch, the workspace and the products are `im2col_gemm.py`'s own.
"""

# Y = W X_col + b, dX_col = W^T dY, dW = dY X_col^T, with X_col[(c,r,s)][(i,p,q)] =
# x[first+i,c,h,w]; x (N,C,H,W); X_col (C*R*S, images*P*Q); Y and dY (K, images*P*Q); columns of all
# images side by side, so that one matrix product serves a whole slice of the batch.
# One thread an element of what is written, the last dimension fastest: stores are consecutive.
# Against direct convolution: x is copied R*S times over, to hand all arithmetic to cuBLAS.
# `images` from `first` on are worked on: the caller cuts the batch to its workspace.

from __future__ import annotations

from typing import Any

from numba import cuda, int32, uint32

from kernels.conv2d import im2col_gemm
from kernels.conv2d.bias_numba import backward_bias
from kernels.conv2d.im2col_gemm import workspace_bytes
from kernels.index_numba import (
    Scalars,
    find_hits,
    grid_index,
    input_col,
    input_row,
    inside,
    quotient,
    remainder,
    scalar,
    unflatten,
    w_offset,
    x_offset,
    y_offset,
)
from kernels.numba_cuda import NumbaSource
from kernels.shapes import Conv2dShape

__all__ = ["backward_bias", "backward_data", "backward_filter", "forward", "workspace_bytes"]

source = NumbaSource(__name__)


# A thread owns one output place of one channel and writes the column entries of all its taps.
@cuda.jit
def conv2d_im2col(
    x: Scalars, columns: Scalars, shape: Conv2dShape, first: int32, images: int32
) -> None:
    """Unfold a slice of the batch."""
    i = grid_index()
    width = int32(images * shape.p * shape.q)
    in_columns = i < int32(shape.c * width)
    if in_columns:
        c, image, p, q = unflatten(i, images, shape.p, shape.q)
        plane = x_offset(shape, first + image, c, 0, 0)
        entry = int32(w_offset(shape, 0, c, 0, 0) * width + remainder(i, width))
        for r in range(shape.r):
            row = input_row(shape, p, r)
            for s in range(shape.s):
                col = input_col(shape, q, s)
                in_image = inside(row, shape.h) and inside(col, shape.w)
                value = x[uint32(plane + row * shape.w + col)] if in_image else scalar(0)
                columns[uint32(entry)] = value
                entry = int32(entry + width)


# The transpose of im2col, as a gather: dx[n,c,h,w] collects the column entries that were copied
# from it, at most R*S of them.
@cuda.jit
def conv2d_col2im(
    columns: Scalars, dx: Scalars, shape: Conv2dShape, first: int32, images: int32
) -> None:
    """Fold a slice of the batch."""
    i = grid_index()
    in_input = i < int32(images * shape.c * shape.h * shape.w)
    if in_input:
        image, c, h, w = unflatten(i, shape.c, shape.h, shape.w)
        width = int32(images * shape.p * shape.q)
        first_r, step_r, at_r, move_r = find_hits(
            int32(h + shape.pad_top), shape.stride_h, shape.dilation_h, shape.r, int32(0)
        )
        first_s, step_s, at_s, move_s = find_hits(
            int32(w + shape.pad_left), shape.stride_w, shape.dilation_w, shape.s, int32(0)
        )
        sum = scalar(0)
        p = at_r
        for r in range(first_r, shape.r, step_r):
            if inside(p, shape.p):
                q = at_s
                for s in range(first_s, shape.s, step_s):
                    if inside(q, shape.q):
                        tap = w_offset(shape, 0, c, r, s)
                        sum += columns[uint32(tap * width + (image * shape.p + p) * shape.q + q)]
                    q = int32(q - move_s)
            p = int32(p - move_r)
        dx[x_offset(shape, first + image, c, h, w)] = sum


# Y's rows back to images, y[n,k,p,q], adding the bias on the way.
@cuda.jit
def conv2d_rows_to_images(
    rows: Scalars, b: Scalars, y: Scalars, shape: Conv2dShape, first: int32, images: int32
) -> None:
    """One thread an element of y."""
    i = grid_index()
    in_output = i < int32(images * shape.k * shape.p * shape.q)
    if in_output:
        image, k, p, q = unflatten(i, shape.k, shape.p, shape.q)
        row = uint32(((k * images + image) * shape.p + p) * shape.q + q)
        bias = b[uint32(k)] if len(b) else scalar(0)  # no None for a kernel: an absent b is empty
        y[y_offset(shape, first + image, k, p, q)] = rows[row] + bias


# dy[n,k,p,q] to rows, dY[k][(i,p,q)].
@cuda.jit
def conv2d_images_to_rows(
    dy: Scalars, rows: Scalars, shape: Conv2dShape, first: int32, images: int32
) -> None:
    """One thread an element of the rows."""
    i = grid_index()
    in_rows = i < int32(shape.k * images * shape.p * shape.q)
    if in_rows:
        k, image, p, q = unflatten(i, images, shape.p, shape.q)
        rows[uint32(i)] = dy[y_offset(shape, first + image, k, p, q)]


# The forward pass of a 1x1 convolution is a product alone; this adds its bias in place.
@cuda.jit
def conv2d_add_bias(y: Scalars, b: Scalars, shape: Conv2dShape) -> None:
    """One thread an element of y."""
    i = grid_index()
    in_output = i < int32(shape.n * shape.k * shape.p * shape.q)
    if in_output:
        k = remainder(quotient(i, int32(shape.p * shape.q)), shape.k)
        y[uint32(i)] += b[uint32(k)]


def forward(x: Any, w: Any, b: Any, y: Any, shape: Conv2dShape, workspace: Any = None) -> None:
    """Write y (N,K,P,Q) from x (N,C,H,W), w (K,C,R,S) and b (K,) or None."""
    im2col_gemm.forward(x, w, b, y, shape, workspace, source)


def backward_data(dy: Any, w: Any, dx: Any, shape: Conv2dShape, workspace: Any = None) -> None:
    """Write dx (N,C,H,W) from dy (N,K,P,Q) and w (K,C,R,S)."""
    im2col_gemm.backward_data(dy, w, dx, shape, workspace, source)


def backward_filter(x: Any, dy: Any, dw: Any, shape: Conv2dShape, workspace: Any = None) -> None:
    """Write dw (K,C,R,S) from x (N,C,H,W) and dy (N,K,P,Q)."""
    im2col_gemm.backward_filter(x, dy, dw, shape, workspace, source)
