// x[i] = images[order[first + i]] moved by a few pixels, target[i] = labels[order[first + i]]
// images (N,C,H,W), labels (N), order (N), position (2): epoch and step; x (n,C,H,W), target (n)
// One thread a pixel of the batch, the last dimension fastest; each image's first takes the label.
// Which batch it is stands in device memory, first = step * batch_size, so that one launch, once
// recorded, fetches every step's. How far an image moves is a hash of (seed, epoch, image): at most
// `reach` pixels each way, 0 for none. Below 2^31 elements a tensor.
#include "index.cuh"
#include "training/counter_hash.cuh"

struct BatchShape {
    int n, c, h, w;
    int batch_size, reach;
    unsigned int seed_low, seed_high;
};

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
        const int image = order[position[1] * shape.batch_size + at.a];
        if (i == at.a * pixels) target[at.a] = labels[image];

        int row = at.c, col = at.d;
        if (shape.reach > 0) {
            const unsigned int key = epoch_key(shape.seed_low, shape.seed_high, position[0], SHIFT);
            const unsigned int bits = absorb(key, image), side = 2 * shape.reach + 1;
            row -= (int)(bits % side) - shape.reach;
            col -= (int)(bits / side % side) - shape.reach;
        }
        const bool comes_in = !inside(row, shape.h) || !inside(col, shape.w);
        const scalar* plane = images + ((long long)image * shape.c + at.b) * shape.h * shape.w;
        x[i] = comes_in ? background : plane[row * shape.w + col];
    }
}
