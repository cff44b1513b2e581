// y[n,k,p,q] = b[k] + sum_{c,r,s} x[n,c,h,w] w[k,c,r,s],  h = p*stride_h - pad_top + r*dilation_h
// x (N,C,H,W), w (K,C,R,S), b (K) or null, y (N,K,P,Q); gradients shaped like what they belong to
// One thread an output element, the last dimension fastest: a warp's stores are consecutive.
// The formula as it stands: the first rung; every operand comes from global memory, every time.
// Any shape below 2^31 elements a tensor. The bias gradient has K threads in all: slow, and plain.
#include "index.cuh"

extern "C" __global__ void conv2d_naive_forward(const scalar* __restrict__ x,
                                                const scalar* __restrict__ w,
                                                const scalar* __restrict__ b,
                                                scalar* __restrict__ y, const Conv2dShape shape) {
    const int i = grid_index();
    const bool in_output = i < shape.n * shape.k * shape.p * shape.q;
    if (in_output) {
        const Index4 at = unflatten(i, shape.k, shape.p, shape.q);  // n, k, p, q
        scalar sum = b ? b[at.b] : scalar(0);
        for (int c = 0; c < shape.c; c++) {
            for (int r = 0; r < shape.r; r++) {
                const int row = input_row(shape, at.c, r);
                if (!inside(row, shape.h)) continue;
                for (int s = 0; s < shape.s; s++) {
                    const int col = input_col(shape, at.d, s);
                    if (!inside(col, shape.w)) continue;
                    sum +=
                        x[x_offset(shape, at.a, c, row, col)] * w[w_offset(shape, at.b, c, r, s)];
                }
            }
        }
        y[i] = sum;
    }
}

// dx[n,c,h,w] = sum over the outputs that read it: a gather, so no atomics and one order of sums.
extern "C" __global__ void conv2d_naive_backward_data(const scalar* __restrict__ dy,
                                                      const scalar* __restrict__ w,
                                                      scalar* __restrict__ dx,
                                                      const Conv2dShape shape) {
    const int i = grid_index();
    const bool in_input = i < shape.n * shape.c * shape.h * shape.w;
    if (in_input) {
        const Index4 at = unflatten(i, shape.c, shape.h, shape.w);  // n, c, h, w
        scalar sum = 0;
        for (int r = 0; r < shape.r; r++) {
            const int p = output_row(shape, at.c, r);
            if (p < 0) continue;
            for (int s = 0; s < shape.s; s++) {
                const int q = output_col(shape, at.d, s);
                if (q < 0) continue;
                for (int k = 0; k < shape.k; k++) {
                    sum += dy[y_offset(shape, at.a, k, p, q)] * w[w_offset(shape, k, at.b, r, s)];
                }
            }
        }
        dx[i] = sum;
    }
}

extern "C" __global__ void conv2d_naive_backward_filter(const scalar* __restrict__ x,
                                                        const scalar* __restrict__ dy,
                                                        scalar* __restrict__ dw,
                                                        const Conv2dShape shape) {
    const int i = grid_index();
    const bool in_filters = i < shape.k * shape.c * shape.r * shape.s;
    if (in_filters) {
        const Index4 at = unflatten(i, shape.c, shape.r, shape.s);  // k, c, r, s
        scalar sum = 0;
        for (int n = 0; n < shape.n; n++) {
            for (int p = 0; p < shape.p; p++) {
                const int row = input_row(shape, p, at.c);
                if (!inside(row, shape.h)) continue;
                for (int q = 0; q < shape.q; q++) {
                    const int col = input_col(shape, q, at.d);
                    if (!inside(col, shape.w)) continue;
                    sum +=
                        x[x_offset(shape, n, at.b, row, col)] * dy[y_offset(shape, n, at.a, p, q)];
                }
            }
        }
        dw[i] = sum;
    }
}

extern "C" __global__ void conv2d_naive_backward_bias(const scalar* __restrict__ dy,
                                                      scalar* __restrict__ db,
                                                      const Conv2dShape shape) {
    const int k = grid_index();
    const bool in_bias = k < shape.k;
    if (in_bias) {
        scalar sum = 0;
        for (int n = 0; n < shape.n; n++) {
            const scalar* plane = dy + y_offset(shape, n, k, 0, 0);
            for (int i = 0; i < shape.p * shape.q; i++) sum += plane[i];
        }
        db[k] = sum;
    }
}
