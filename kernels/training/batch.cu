// x[i] = images[order[first + i]] moved by a few pixels, target[i] = labels[order[first + i]]
// images (N,C,H,W), labels (N), order (N), position (2): epoch and step; x (n,C,H,W), target (n)
// One thread a pixel of the batch, the last dimension fastest; each image's first takes the label.
// Which batch it is stands in device memory, first = step * batch_size, so that one launch, once
// recorded, fetches every step's. How far an image moves is a hash of (seed, epoch, image): at most
// `reach` pixels each way, 0 for none. Where `distort` is not 0 it is scaled, squeezed and sheared
// as well, and what lies between pixels is interpolated. Below 2^31 elements a tensor, and 4096 a
// side.
#include "training/batch.cuh"

extern "C" __global__ void gather_batch(const scalar* __restrict__ images,
                                        const long long* __restrict__ labels,
                                        const int* __restrict__ order,
                                        const int* __restrict__ position, scalar* __restrict__ x,
                                        long long* __restrict__ target, const scalar background,
                                        const BatchShape shape) {
    const int i = grid_index();
    const int pixels = shape.c * shape.h * shape.w;
    const bool in_batch = i < shape.n * pixels;
    if (in_batch) {
        const Index4 at = unflatten(i, shape.c, shape.h, shape.w);  // n, c, h, w
        const int image = batch_image(order, position, at.a, shape);
        if (i == at.a * pixels) target[at.a] = labels[image];
        x[i] = batch_pixel(images, image, position[0], at.b, at.c, at.d, background, shape);
    }
}
