// The forward pass and the gradient to x as one matrix product whose right side is gathered:
// output[m][n] = sum_k filters[k][m] source[k, n]. Columns n are output elements; rows k are a
// filter's taps in one plane of the source, and say where from a column's origin they read.
#pragma once
#include "index.cuh"

// A row (or column) of an image that is in none, whatever the padding.
constexpr int NOWHERE = -2147483647 - 1;

struct Planes {
    int count, rows, cols;
};

// gemm_k: packed rows, a tile of them at a time: `tiles_a_tap` tiles, then a gap to the next tap.
struct Walk {
    int row, tiles, tiles_a_tap, tap_gap, taps_a_line, line_gap;
    int in_tap, in_line;

    __device__ __forceinline__ void next(int tile_k) {
        row += tile_k;
        if (++in_tap < tiles_a_tap) return;
        in_tap = 0;
        row += tap_gap;
        if (++in_line < taps_a_line) return;
        in_line = 0;
        row += line_gap;
    }
};

// Element (i, j) of each image is at row first_h + i * step_h of `to`, and its taps count from row
// i * stride_h + origin_h of `from`; columns likewise.
struct Gather {
    Planes from, to;
    int images, rows, cols;
    int first_h, first_w, step_h, step_w;
    int stride_h, stride_w, origin_h, origin_w;
    Walk walk;

    __device__ __forceinline__ int columns() const { return images * rows * cols; }
    __device__ __forceinline__ bool is_dense() const { return step_h == 1 && step_w == 1; }
};

__device__ __forceinline__ Gather gather_forward(const Conv2dShape& shape, int tile_k) {
    const int tiles = ceil_div(shape.c * shape.r * shape.s, tile_k);
    return Gather{{shape.c, shape.h, shape.w},
                  {shape.k, shape.p, shape.q},
                  shape.n,
                  shape.p,
                  shape.q,
                  0,
                  0,
                  1,
                  1,
                  shape.stride_h,
                  shape.stride_w,
                  -shape.pad_top,
                  -shape.pad_left,
                  {0, tiles, tiles, 0, 1, 0, 0, 0}};
}

// Elements of dx whose rows and columns leave the same remainder by the stride (a phase) are read
// through the same taps: each phase is a product of its own, with those taps alone.
__device__ __forceinline__ Gather gather_backward_data(const Conv2dShape& shape, int phase,
                                                       int tile_k) {
    const int phases_w = min(shape.stride_w, shape.w), h = phase / phases_w, w = phase % phases_w;
    const Hits in_r = find_hits(h + shape.pad_top, shape.stride_h, shape.dilation_h, shape.r, 0);
    const Hits in_s = find_hits(w + shape.pad_left, shape.stride_w, shape.dilation_w, shape.s, 0);
    const int count_r = ceil_div(shape.r - in_r.first, in_r.step);
    const int count_s = ceil_div(shape.s - in_s.first, in_s.step);
    const int tiles_a_tap = ceil_div(shape.k, tile_k), depth = tiles_a_tap * tile_k;
    return Gather{{shape.k, shape.p, shape.q},
                  {shape.c, shape.h, shape.w},
                  shape.n,
                  ceil_div(shape.h - h, shape.stride_h),
                  ceil_div(shape.w - w, shape.stride_w),
                  h,
                  w,
                  shape.stride_h,
                  shape.stride_w,
                  1,
                  1,
                  0,
                  0,
                  {(in_r.first * shape.s + in_s.first) * depth, count_r * count_s * tiles_a_tap,
                   tiles_a_tap, (in_s.step - 1) * depth, count_s,
                   (in_r.step * shape.s - count_s * in_s.step) * depth, 0, 0}};
}

// A column's origin in `from` and, -1 for none, its place in `to`, both within the first plane.
struct Column {
    int offset, row, col, place;
};
__device__ __forceinline__ Column column_at(const Gather& gather, int n) {
    const bool in_columns = n < gather.columns();
    const Index4 at = unflatten(n, 1, gather.rows, gather.cols);
    const int row = at.c * gather.stride_h + gather.origin_h;
    const int col = at.d * gather.stride_w + gather.origin_w;
    const int to_row =
        at.a * gather.to.count * gather.to.rows + gather.first_h + at.c * gather.step_h;
    const int to_col = gather.first_w + at.d * gather.step_w;
    return Column{(at.a * gather.from.count * gather.from.rows + row) * gather.from.cols + col,
                  in_columns ? row : NOWHERE, col,
                  in_columns ? to_row * gather.to.cols + to_col : -1};
}

// Whether (row, col) + (down, right) is in the image; unsigned, because NOWHERE may overflow.
__device__ __forceinline__ bool in_image(const Planes& image, int row, int col, int down,
                                         int right) {
    return unsigned(row) + unsigned(down) < unsigned(image.rows) &&
           unsigned(col) + unsigned(right) < unsigned(image.cols);
}

// A packed row: which weight of filter (channel) m it holds, and {offset, row, col, 0} from a
// column's origin to what it is multiplied with.
struct PackedRow {
    int weight, weight_pitch;
    bool is_filled;
    int4 tap;
};

// Forward the rows are (c, r, s), as the filters lie.
__device__ __forceinline__ PackedRow forward_row(const Conv2dShape& shape, int i) {
    const int depth = shape.c * shape.r * shape.s;
    const Index4 tap = unflatten(i, shape.c, shape.r, shape.s);
    const int row = tap.c * shape.dilation_h, col = tap.d * shape.dilation_w;
    const bool is_filled = i < depth;
    return PackedRow{
        i, depth, is_filled,
        make_int4((tap.b * shape.h + row) * shape.w + col, row, is_filled ? col : NOWHERE, 0)};
}

// Backward they are (r, s, k), K rounded up to whole tiles: a phase takes some of the taps.
__device__ __forceinline__ PackedRow backward_data_row(const Conv2dShape& shape, int i,
                                                       int tile_k) {
    const Index4 at = unflatten(i, shape.r, shape.s, ceil_div(shape.k, tile_k) * tile_k);
    const int row = ceil_div(shape.pad_top - at.b * shape.dilation_h, shape.stride_h);
    const int col = ceil_div(shape.pad_left - at.c * shape.dilation_w, shape.stride_w);
    const bool is_filled = at.d < shape.k;
    return PackedRow{
        w_offset(shape, at.d, 0, at.b, at.c), shape.r * shape.s, is_filled,
        make_int4((at.d * shape.p + row) * shape.q + col, row, is_filled ? col : NOWHERE, 0)};
}
