"""The filter gradient of the tiled convolution in Numba CUDA, as `tiled_filter.cu`."""

# dw[k,c,r,s] = sum_{n,p,q} x[n,c,h,w] dy[n,k,p,q],  h = p*stride_h - pad_top + r*dilation_h
# x (N,C,H,W), dy (N,K,P,Q), dw (K,C,R,S); partial (slices,K,C,R,S)
# A block owns taps_r x taps_s taps of one (k, c) and every `slices`-th image; for each tile of dy
# its threads split as taps x shares, each summing one tap over its share of the tile.
# Against naive: a dy tile and the x tile with halo are read once and serve all taps. Slices keep
# a GPU busy where K*C is small; they are summed by a second kernel, in one order, without atomics.

from __future__ import annotations

from numba import cuda, int32, uint32

from kernels.conv2d import tiled
from kernels.index_numba import (
    Scalars,
    ceil_div,
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

THREADS = tiled.THREADS
TILE_P, TILE_Q = tiled.TILES[0]  # `source` puts a plan's tile in their place

source = NumbaSource(
    __name__, tiled.TILE_MACROS, launch_bounds={"conv2d_tiled_backward_filter": (THREADS, 2)}
)


@cuda.jit
def conv2d_tiled_backward_filter(
    x: Scalars, dy: Scalars, partial: Scalars, shape: Conv2dShape,
    taps_r: int32, taps_s: int32, slices: int32,
) -> None:  # fmt: skip
    """One block some taps, for its slice of the batch."""
    dy_tile = cuda.shared.array((TILE_P, TILE_Q), scalar)
    sums = cuda.shared.array(THREADS, scalar)
    halo = cuda.shared.array(0, scalar)
    halo_h = int32((TILE_P - 1) * shape.stride_h + (taps_r - 1) * shape.dilation_h + 1)
    halo_w = int32((TILE_Q - 1) * shape.stride_w + (taps_s - 1) * shape.dilation_w + 1)

    # The block's part of dw, and the slice of the batch it sums over.
    chunks_r, chunks_s = ceil_div(shape.r, taps_r), ceil_div(shape.s, taps_s)
    block, thread = int32(cuda.blockIdx.x), int32(cuda.threadIdx.x)
    k, c, chunk_r, chunk_s = unflatten(quotient(block, slices), shape.c, chunks_r, chunks_s)
    slice = remainder(block, slices)

    # The thread's tap, and its share of each tile's elements.
    taps = int32(taps_r * taps_s)
    shares = quotient(int32(THREADS), taps)
    tap, share = remainder(thread, taps), quotient(thread, taps)
    r, s = quotient(tap, taps_s), remainder(tap, taps_s)
    has_tap = share < shares

    sum = scalar(0)
    for n in range(slice, shape.n, slices):
        x_plane = x_offset(shape, n, c, 0, 0)
        dy_plane = y_offset(shape, n, k, 0, 0)
        for p0 in range(int32(0), shape.p, int32(TILE_P)):
            for q0 in range(int32(0), shape.q, int32(TILE_Q)):
                # Load both tiles; zero beyond the edges, so the sums need no bounds.
                for i in range(thread, int32(TILE_P * TILE_Q), int32(THREADS)):
                    row, col = quotient(i, int32(TILE_Q)), remainder(i, int32(TILE_Q))
                    p, q = int32(p0 + row), int32(q0 + col)
                    in_plane = p < shape.p and q < shape.q
                    value = dy[uint32(dy_plane + p * shape.q + q)] if in_plane else scalar(0)
                    dy_tile[uint32(row), uint32(col)] = value
                top = input_row(shape, p0, int32(chunk_r * taps_r))
                left = input_col(shape, q0, int32(chunk_s * taps_s))
                for i in range(thread, int32(halo_h * halo_w), int32(THREADS)):
                    row = int32(top + quotient(i, halo_w))
                    col = int32(left + remainder(i, halo_w))
                    in_image = inside(row, shape.h) and inside(col, shape.w)
                    value = x[uint32(x_plane + row * shape.w + col)] if in_image else scalar(0)
                    halo[uint32(i)] = value
                cuda.syncthreads()  # every tap needs the whole of both tiles

                if has_tap:
                    seen = int32(r * shape.dilation_h * halo_w + s * shape.dilation_w)
                    filled = int32(min(int32(TILE_P), int32(shape.p - p0)) * TILE_Q)
                    for i in range(share, filled, shares):
                        row, col = quotient(i, int32(TILE_Q)), remainder(i, int32(TILE_Q))
                        at = int32(row * shape.stride_h * halo_w + col * shape.stride_w)
                        sum += dy_tile[uint32(row), uint32(col)] * halo[uint32(seen + at)]
                cuda.syncthreads()  # the next tiles overwrite what others still read

    sums[uint32(thread)] = sum
    cuda.syncthreads()  # a tap's first share adds up the others
    filter_r, filter_s = int32(chunk_r * taps_r + r), int32(chunk_s * taps_s + s)
    in_filter = share == 0 and filter_r < shape.r and filter_s < shape.s
    if in_filter:
        for other in range(int32(1), shares):
            sum += sums[uint32(other * taps + tap)]
        filters = int32(shape.k * shape.c * shape.r * shape.s)
        partial[uint32(slice * filters + w_offset(shape, k, c, filter_r, filter_s))] = sum


@cuda.jit
def conv2d_tiled_sum_slices(
    partial: Scalars, dw: Scalars, shape: Conv2dShape, slices: int32
) -> None:
    """One thread an element of dw."""
    i = grid_index()
    filters = int32(shape.k * shape.c * shape.r * shape.s)
    in_filters = i < filters
    if in_filters:
        sum = scalar(0)
        for slice in range(slices):
            sum += partial[uint32(slice * filters + i)]
        dw[uint32(i)] = sum
