// The shapes a kernel takes by value: the fields and their order are those of Conv2dShape,
// BlockShape and PoolShape in shapes.py. SCALAR is the arrays' element type, float unless a -D says
// double.
#pragma once

#ifndef SCALAR
#define SCALAR float
#endif
typedef SCALAR scalar;

struct Conv2dShape {
    int n, c, h, w, k, r, s, p, q;
    int stride_h, stride_w;
    int pad_top, pad_bottom, pad_left, pad_right;
    int dilation_h, dilation_w;
};

struct BlockShape {
    Conv2dShape conv;
    int pool_r, pool_s;
    int pooled_p, pooled_q;
};

// An argmax of a block's window whose ReLU is closed: its output is 0 and has no gradient.
constexpr unsigned char CLOSED = 255;

struct PoolShape {
    int n, c, h, w, r, s, p, q;
    int stride_h, stride_w;
    int pad_top, pad_bottom, pad_left, pad_right;
    int include_pad;
};
