// dw[k,c,r,s] = sum_{n,p,q} dy[n,k,p,q] x[n,c,h,w], h = input_row(shape, p, r), w alike
// x (N,C,H,W), dy (N,K,P,Q), dw (K,C,R,S)
// One thread an element of dw, in blocks of 32.
// What a filter's tap has to learn: each output's gradient times what the tap saw there.
// Limits: any stride, padding and dilation; shape says which.
#include "index.cuh"

extern "C" __global__ void filter_gradient(const float* __restrict__ x,
                                           const float* __restrict__ dy, float* __restrict__ dw,
                                           const Conv2dShape shape) {
    // Yours.
}
