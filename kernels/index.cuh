// Index arithmetic with names. 32 bits are enough: the caller refuses tensors past 2^31 elements.
#pragma once
#include "shape.cuh"

// a / b rounded up, for a of either sign and positive b; no intermediate can overflow.
__device__ __forceinline__ int ceil_div(int a, int b) {
    return a / b + (a % b > 0);
}

__device__ __forceinline__ bool inside(int i, int extent) {
    return i >= 0 && i < extent;
}

// The element of a one-dimensional grid that this thread owns.
__device__ __forceinline__ int grid_index() {
    return blockIdx.x * blockDim.x + threadIdx.x;
}

// A warp as 4 x 8 lanes that share what they read: lanes 2a and 2a+1 the right factors, lanes 4a+b
// and 4a+b+2 the left ones. Of loads of 16 bytes the hardware hands out such pairs at once.
__device__ __forceinline__ int lane_left() {
    return (threadIdx.x & 1) | (threadIdx.x >> 3 & 2);
}
__device__ __forceinline__ int lane_right() {
    return threadIdx.x >> 1 & 7;
}

// The input row (column) that output row p reads through filter row r; outside the image it is
// padding.
__device__ __forceinline__ int input_row(const Conv2dShape& shape, int p, int r) {
    return p * shape.stride_h - shape.pad_top + r * shape.dilation_h;
}
__device__ __forceinline__ int input_col(const Conv2dShape& shape, int q, int s) {
    return q * shape.stride_w - shape.pad_left + s * shape.dilation_w;
}

// The other way round: the output row (column) that reads input row h through filter row r, or -1
// where the stride steps over it.
__device__ __forceinline__ int output_row(const Conv2dShape& shape, int h, int r) {
    const int reach = h + shape.pad_top - r * shape.dilation_h;
    const int p = reach / shape.stride_h;
    return reach >= 0 && p * shape.stride_h == reach && p < shape.p ? p : -1;
}
__device__ __forceinline__ int output_col(const Conv2dShape& shape, int w, int s) {
    const int reach = w + shape.pad_left - s * shape.dilation_w;
    const int q = reach / shape.stride_w;
    return reach >= 0 && q * shape.stride_w == reach && q < shape.q ? q : -1;
}

// The same for a whole run of taps without a division each: of the taps 0 .. taps-1 only every
// `step`-th lands on an output, the first in output row `at`, each next one `move` rows higher.
// `reach` is h + pad_top - (first tap of the run) * dilation; rows count from `origin`.
struct Hits {
    int first, step, at, move;
};
__device__ __forceinline__ Hits find_hits(int reach, int stride, int dilation, int taps,
                                          int origin) {
    int divisor = stride;  // becomes the greatest common one of stride and dilation
    for (int rest = dilation % divisor; rest != 0;) {
        const int next = divisor % rest;
        divisor = rest;
        rest = next;
    }
    Hits hits;
    hits.step = stride / divisor;
    hits.move = dilation / divisor;
    hits.first = 0;
    while (hits.first < taps && (reach - hits.first * dilation) % stride != 0) hits.first++;
    hits.at = (reach - hits.first * dilation) / stride - origin;
    return hits;
}

__device__ __forceinline__ int x_offset(const Conv2dShape& shape, int n, int c, int h, int w) {
    return ((n * shape.c + c) * shape.h + h) * shape.w + w;
}
__device__ __forceinline__ int w_offset(const Conv2dShape& shape, int k, int c, int r, int s) {
    return ((k * shape.c + c) * shape.r + r) * shape.s + s;
}
__device__ __forceinline__ int y_offset(const Conv2dShape& shape, int n, int k, int p, int q) {
    return ((n * shape.k + k) * shape.p + p) * shape.q + q;
}

// Of a block's pooled output.
__device__ __forceinline__ int y_offset(const BlockShape& shape, int n, int k, int row, int col) {
    return ((n * shape.conv.k + k) * shape.pooled_p + row) * shape.pooled_q + col;
}

__device__ __forceinline__ int x_offset(const PoolShape& shape, int n, int c, int h, int w) {
    return ((n * shape.c + c) * shape.h + h) * shape.w + w;
}
__device__ __forceinline__ int y_offset(const PoolShape& shape, int n, int c, int p, int q) {
    return ((n * shape.c + c) * shape.p + p) * shape.q + q;
}

// A flat index over (A, B, C, D) taken apart, the last dimension fastest.
struct Index4 {
    int a, b, c, d;
};
__device__ __forceinline__ Index4 unflatten(int i, int extent_b, int extent_c, int extent_d) {
    Index4 at;
    at.d = i % extent_d;
    i /= extent_d;
    at.c = i % extent_c;
    i /= extent_c;
    at.b = i % extent_b;
    at.a = i / extent_b;
    return at;
}
