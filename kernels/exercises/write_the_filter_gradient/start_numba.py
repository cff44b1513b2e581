"""A convolution's gradient to its filters in Numba CUDA: one thread an element of dw."""

# dw[k,c,r,s] = sum_{n,p,q} dy[n,k,p,q] x[n,c,h,w], h = input_row(shape, p, r), w alike
# x (N,C,H,W), dy (N,K,P,Q), dw (K,C,R,S)
# One thread an element of dw, in blocks of 32.
# What a filter's tap has to learn: each output's gradient times what the tap saw there.
# Limits: any stride, padding and dilation; shape says which.

from __future__ import annotations

from numba import cuda

from kernels.index_numba import Scalars
from kernels.shapes import Conv2dShape


@cuda.jit
def filter_gradient(x: Scalars, dy: Scalars, dw: Scalars, shape: Conv2dShape) -> None:
    """Yours: one thread an element of dw."""
