// Y = W X_col + b, dX_col = W^T dY, dW = dY X_col^T, with X_col[(c,r,s)][(i,p,q)] =
// x[first+i,c,h,w] x (N,C,H,W); X_col (C*R*S, images*P*Q); Y and dY (K, images*P*Q); columns of all
// images side by side, so that one matrix product serves a whole slice of the batch One thread an
// element of what is written, the last dimension fastest: stores are consecutive. Against direct
// convolution: x is copied R*S times over, to hand all arithmetic to cuBLAS. `images` from `first`
// on are worked on: the caller cuts the batch to its workspace.
#include "index.cuh"

extern "C" __global__ void conv2d_im2col(const scalar* __restrict__ x, scalar* __restrict__ columns,
                                         const Conv2dShape shape, const int first,
                                         const int images) {
    const int i = grid_index();
    const int width = images * shape.p * shape.q;
    const bool in_columns = i < shape.c * shape.r * shape.s * width;
    if (in_columns) {
        const Index4 tap = unflatten(i / width, shape.c, shape.r, shape.s);  // -, c, r, s
        const Index4 at = unflatten(i % width, images, shape.p, shape.q);    // -, i, p, q
        const int row = input_row(shape, at.c, tap.c), col = input_col(shape, at.d, tap.d);
        const bool in_image = inside(row, shape.h) && inside(col, shape.w);
        columns[i] = in_image ? x[x_offset(shape, first + at.b, tap.b, row, col)] : scalar(0);
    }
}

// The transpose of im2col, as a gather: dx[n,c,h,w] collects the columns' entries that were copied
// from it, at most R*S of them.
extern "C" __global__ void conv2d_col2im(const scalar* __restrict__ columns,
                                         scalar* __restrict__ dx, const Conv2dShape shape,
                                         const int first, const int images) {
    const int i = grid_index();
    const bool in_input = i < images * shape.c * shape.h * shape.w;
    if (in_input) {
        const Index4 at = unflatten(i, shape.c, shape.h, shape.w);  // image of the slice, c, h, w
        const int width = images * shape.p * shape.q;
        scalar sum = 0;
        for (int r = 0; r < shape.r; r++) {
            const int p = output_row(shape, at.c, r);
            if (p < 0) continue;
            for (int s = 0; s < shape.s; s++) {
                const int q = output_col(shape, at.d, s);
                if (q < 0) continue;
                const int tap = (at.b * shape.r + r) * shape.s + s;
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
