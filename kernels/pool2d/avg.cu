// y[n,c,p,q] = sum of x[n,c,h,w] over the window / divisor
// x (N,C,H,W), y (N,C,P,Q), dy like y, dx like x; divisor = window elements inside the image, or
// R*S with include_pad
// One thread an output element, q (w in the backward pass) fastest.
// Backward gathers: a thread adds up its share of every window over it; no atomics.
#include "index.cuh"

struct Span {
    int begin, end;
};

// Rows (columns) of the image under output p: its window without the padding.
__device__ __forceinline__ Span clipped(int p, int stride, int pad, int size, int extent) {
    const int first = p * stride - pad;
    return Span{max(first, 0), min(first + size, extent)};
}

__device__ __forceinline__ scalar divisor(const PoolShape& shape, Span rows, Span cols) {
    return shape.include_pad ? scalar(shape.r) * scalar(shape.s)
                             : scalar(rows.end - rows.begin) * scalar(cols.end - cols.begin);
}

extern "C" __global__ void avg_pool2d_forward(const scalar* __restrict__ x, scalar* __restrict__ y,
                                              const PoolShape shape) {
    const int i = grid_index();
    const bool in_output = i < shape.n * shape.c * shape.p * shape.q;
    if (in_output) {
        const Index4 at = unflatten(i, shape.c, shape.p, shape.q);  // n, c, p, q
        const Span rows = clipped(at.c, shape.stride_h, shape.pad_top, shape.r, shape.h);
        const Span cols = clipped(at.d, shape.stride_w, shape.pad_left, shape.s, shape.w);
        scalar sum = 0;
        for (int row = rows.begin; row < rows.end; row++) {
            for (int col = cols.begin; col < cols.end; col++) {
                sum += x[x_offset(shape, at.a, at.b, row, col)];
            }
        }
        y[i] = sum / divisor(shape, rows, cols);
    }
}

extern "C" __global__ void avg_pool2d_backward(const scalar* __restrict__ dy,
                                               scalar* __restrict__ dx, const PoolShape shape) {
    const int i = grid_index();
    const bool in_input = i < shape.n * shape.c * shape.h * shape.w;
    if (in_input) {
        const Index4 at = unflatten(i, shape.c, shape.h, shape.w);  // n, c, h, w
        // The windows over this element: top <= h < top + R, with top = p*stride_h - pad_top.
        const int h = at.c + shape.pad_top, w = at.d + shape.pad_left;
        const int p_begin = max(ceil_div(h - shape.r + 1, shape.stride_h), 0);
        const int q_begin = max(ceil_div(w - shape.s + 1, shape.stride_w), 0);
        const int p_end = min(h / shape.stride_h + 1, shape.p);
        const int q_end = min(w / shape.stride_w + 1, shape.q);

        scalar sum = 0;
        for (int p = p_begin; p < p_end; p++) {
            const Span rows = clipped(p, shape.stride_h, shape.pad_top, shape.r, shape.h);
            for (int q = q_begin; q < q_end; q++) {
                const Span cols = clipped(q, shape.stride_w, shape.pad_left, shape.s, shape.w);
                sum += dy[y_offset(shape, at.a, at.b, p, q)] / divisor(shape, rows, cols);
            }
        }
        dx[i] = sum;
    }
}
