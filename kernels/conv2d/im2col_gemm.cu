// Y = W X_col + b, dX_col = W^T dY, dW = dY X_col^T, with X_col[(c,r,s)][(i,p,q)] =
// x[first+i,c,h,w]
// x (N,C,H,W), X_col (C*R*S, images*P*Q), Y and dY (K, images*P*Q): columns of all images side by
// side, so that one matrix product serves a whole slice of the batch
// One thread an element of what is written, the last dimension fastest: stores are consecutive.
// Against direct convolution: x is copied R*S times over, to hand all arithmetic to cuBLAS.
// Limits: `images` from `first` on are worked on; the caller cuts the batch to its workspace.
#include "index.cuh"

// A thread owns one output place of one channel and writes the column entries of all its taps.
extern "C" __global__ void conv2d_im2col(const scalar* __restrict__ x, scalar* __restrict__ columns,
                                         const Conv2dShape shape, const int first,
                                         const int images) {
    const int i = grid_index();
    const int width = images * shape.p * shape.q;
    const bool in_columns = i < shape.c * width;
    if (in_columns) {
        const Index4 at = unflatten(i, images, shape.p, shape.q);  // c, image of the slice, p, q
        const scalar* plane = x + x_offset(shape, first + at.b, at.a, 0, 0);
        int entry = w_offset(shape, 0, at.a, 0, 0) * width + i % width;
        for (int r = 0; r < shape.r; r++) {
            const int row = input_row(shape, at.c, r);
            for (int s = 0; s < shape.s; s++, entry += width) {
                const int col = input_col(shape, at.d, s);
                const bool in_image = inside(row, shape.h) && inside(col, shape.w);
                columns[entry] = in_image ? plane[row * shape.w + col] : scalar(0);
            }
        }
    }
}

// The transpose of im2col, as a gather: dx[n,c,h,w] collects the column entries that were copied
// from it, at most R*S of them.
extern "C" __global__ void conv2d_col2im(const scalar* __restrict__ columns,
                                         scalar* __restrict__ dx, const Conv2dShape shape,
                                         const int first, const int images) {
    const int i = grid_index();
    const bool in_input = i < images * shape.c * shape.h * shape.w;
    if (in_input) {
        const Index4 at = unflatten(i, shape.c, shape.h, shape.w);  // image of the slice, c, h, w
        const int width = images * shape.p * shape.q;
        const Hits in_r =
            find_hits(at.c + shape.pad_top, shape.stride_h, shape.dilation_h, shape.r, 0);
        const Hits in_s =
            find_hits(at.d + shape.pad_left, shape.stride_w, shape.dilation_w, shape.s, 0);
        scalar sum = 0;
        for (int r = in_r.first, p = in_r.at; r < shape.r; r += in_r.step, p -= in_r.move) {
            if (!inside(p, shape.p)) continue;
            for (int s = in_s.first, q = in_s.at; s < shape.s; s += in_s.step, q -= in_s.move) {
                if (!inside(q, shape.q)) continue;
                const int tap = w_offset(shape, 0, at.b, r, s);
                sum += columns[tap * width + (at.a * shape.p + p) * shape.q + q];
            }
        }
        dx[x_offset(shape, first + at.a, at.b, at.c, at.d)] = sum;
    }
}

// Y's rows back to images, y[n,k,p,q], adding the bias on the way.
extern "C" __global__ void conv2d_rows_to_images(const scalar* __restrict__ rows,
                                                 const scalar* __restrict__ b,
                                                 scalar* __restrict__ y, const Conv2dShape shape,
                                                 const int first, const int images) {
    const int i = grid_index();
    const bool in_output = i < images * shape.k * shape.p * shape.q;
    if (in_output) {
        const Index4 at = unflatten(i, shape.k, shape.p, shape.q);  // image of the slice, k, p, q
        const int row = ((at.b * images + at.a) * shape.p + at.c) * shape.q + at.d;
        const scalar bias = b ? b[at.b] : scalar(0);
        y[y_offset(shape, first + at.a, at.b, at.c, at.d)] = rows[row] + bias;
    }
}

// dy[n,k,p,q] to rows, dY[k][(i,p,q)].
extern "C" __global__ void conv2d_images_to_rows(const scalar* __restrict__ dy,
                                                 scalar* __restrict__ rows, const Conv2dShape shape,
                                                 const int first, const int images) {
    const int i = grid_index();
    const bool in_rows = i < shape.k * images * shape.p * shape.q;
    if (in_rows) {
        const Index4 at = unflatten(i, images, shape.p, shape.q);  // k, image of the slice, p, q
        rows[i] = dy[y_offset(shape, first + at.b, at.a, at.c, at.d)];
    }
}

// The forward pass of a 1x1 convolution is a product alone; this adds its bias in place.
extern "C" __global__ void conv2d_add_bias(scalar* __restrict__ y, const scalar* __restrict__ b,
                                           const Conv2dShape shape) {
    const int i = grid_index();
    const bool in_output = i < shape.n * shape.k * shape.p * shape.q;
    if (in_output) y[i] += b[i / (shape.p * shape.q) % shape.k];
}
