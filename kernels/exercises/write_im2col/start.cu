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
        // Yours: take i apart, find the element of x, or 0, and store it.
    }
}
