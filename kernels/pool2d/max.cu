// y[n,c,p,q] = max of x[n,c,h,w] over the window; argmax = h*W + w of the first maximum, row order
// x (N,C,H,W), y and argmax (N,C,P,Q), dy like y, dx like x
// One thread an output element, q (w in the backward pass) fastest.
// Backward gathers: a thread asks every window over its element whether it was the maximum, so
// overlapping windows need no atomics and the sum has one order. NaN is its window's maximum.
#include "index.cuh"

extern "C" __global__ void max_pool2d_forward(const scalar* __restrict__ x, scalar* __restrict__ y,
                                              int* __restrict__ argmax, const PoolShape shape) {
    const int i = grid_index();
    const bool in_output = i < shape.n * shape.c * shape.p * shape.q;
    if (in_output) {
        const Index4 at = unflatten(i, shape.c, shape.p, shape.q);  // n, c, p, q
        // The window, clipped: padding is never the maximum.
        const int top = at.c * shape.stride_h - shape.pad_top;
        const int left = at.d * shape.stride_w - shape.pad_left;
        const int row_end = min(top + shape.r, shape.h), col_end = min(left + shape.s, shape.w);
        const int row_begin = max(top, 0), col_begin = max(left, 0);

        int best_at = row_begin * shape.w + col_begin;
        const scalar* plane = x + x_offset(shape, at.a, at.b, 0, 0);
        scalar best = plane[best_at];
        for (int row = row_begin; row < row_end; row++) {
            for (int col = col_begin; col < col_end; col++) {
                const scalar value = plane[row * shape.w + col];
                const bool first_nan = value != value && best == best;
                if (value > best || first_nan) {
                    best = value;
                    best_at = row * shape.w + col;
                }
            }
        }
        y[i] = best;
        argmax[i] = best_at;
    }
}

extern "C" __global__ void max_pool2d_backward(const scalar* __restrict__ dy,
                                               const int* __restrict__ argmax,
                                               scalar* __restrict__ dx, const PoolShape shape) {
    const int i = grid_index();
    const bool in_input = i < shape.n * shape.c * shape.h * shape.w;
    if (in_input) {
        const Index4 at = unflatten(i, shape.c, shape.h, shape.w);  // n, c, h, w
        // The windows over this element: top <= h < top + R, with top = p*stride_h - pad_top.
        const int row = at.c + shape.pad_top, col = at.d + shape.pad_left;
        const int p_begin = max(ceil_div(row - shape.r + 1, shape.stride_h), 0);
        const int q_begin = max(ceil_div(col - shape.s + 1, shape.stride_w), 0);
        const int p_end = min(row / shape.stride_h + 1, shape.p);
        const int q_end = min(col / shape.stride_w + 1, shape.q);

        scalar sum = 0;
        for (int p = p_begin; p < p_end; p++) {
            for (int q = q_begin; q < q_end; q++) {
                const int window = y_offset(shape, at.a, at.b, p, q);
                if (argmax[window] == at.c * shape.w + at.d) sum += dy[window];
            }
        }
        dx[i] = sum;
    }
}
