// dw[k,c,r,s] = sum_{n,p,q} dy[n,k,p,q] x[n,c,h,w], h = input_row(shape, p, r), w alike
// x (N,C,H,W), dy (N,K,P,Q), dw (K,C,R,S)
// One thread an element of dw, in blocks of 32.
// What a filter's tap has to learn: each output's gradient times what the tap saw there.
// Limits: any stride, padding and dilation; shape says which.
#include "index.cuh"

extern "C" __global__ void filter_gradient(const float* __restrict__ x,
                                           const float* __restrict__ dy, float* __restrict__ dw,
                                           const Conv2dShape shape) {
    const int i = grid_index();
    const bool in_filters = i < shape.k * shape.c * shape.r * shape.s;
    if (in_filters) {
        const Index4 at = unflatten(i, shape.c, shape.r, shape.s);  // k, c, r, s
        float sum = 0;
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
