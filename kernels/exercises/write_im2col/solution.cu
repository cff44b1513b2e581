// columns[(c,r,s),(n,p,q)] = x[n,c,h,w], 0 where that is padding; h = input_row(shape, p, r)
// x (N,C,H,W), columns (C*R*S, N*P*Q)
// One thread an element of columns, the last dimension fastest, in blocks of 256.
// A convolution becomes the matrix product of the filters (K, C*R*S) and these columns.
// Limits: any stride, padding and dilation; shape says which.
#include "index.cuh"

extern "C" __global__ void im2col(const float* __restrict__ x, float* __restrict__ columns,
                                  const Conv2dShape shape) {
    const int i = grid_index();
    const bool in_columns = i < shape.c * shape.r * shape.s * shape.n * shape.p * shape.q;
    if (in_columns) {
        const int outputs = shape.n * shape.p * shape.q;
        const Index4 tap = unflatten(i / outputs, shape.c, shape.r, shape.s);     // 0, c, r, s
        const Index4 output = unflatten(i % outputs, shape.n, shape.p, shape.q);  // 0, n, p, q
        const int row = input_row(shape, output.c, tap.c), col = input_col(shape, output.d, tap.d);
        const bool in_image = inside(row, shape.h) && inside(col, shape.w);
        columns[i] = in_image ? x[x_offset(shape, output.b, tap.b, row, col)] : 0;
    }
}
