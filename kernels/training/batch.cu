// x[i] = images[order[first + i]] moved by a few pixels, target[i] = labels[order[first + i]]
// images (N,C,H,W), labels (N), order (N), position (2): epoch and step; x (n,C,H,W), target (n)
// One thread a pixel of the batch, the last dimension fastest; each image's first takes the label.
// Which batch it is stands in device memory, first = step * batch_size, so that one launch, once
// recorded, fetches every step's. How far an image moves is a hash of (seed, epoch, image): at most
// `reach` pixels each way, 0 for none. Where `distort` is not 0 it is scaled, squeezed and sheared
// as well, and what lies between pixels is interpolated. Below 2^31 elements a tensor, and 4096 a
// side.
#include "index.cuh"
#include "training/counter_hash.cuh"

struct BatchShape {
    int n, c, h, w;
    int batch_size, reach;
    int distort;  // most, in 1 / ONE
    unsigned int seed_low, seed_high;
};

static const int ONE = 1 << 16;  // fixed point: the same place for a pixel wherever it is computed

// From -most to most, a 17-bit random number's worth.
__device__ __forceinline__ int spread(unsigned int image_key, unsigned int number, int most) {
    const int random = (int)(absorb(image_key, number) >> 15) - ONE;
    return (int)((long long)random * most >> 16);
}

// The distorted image's pixel at (row, col): between the four around where it was.
__device__ __forceinline__ scalar distorted(const scalar* __restrict__ plane, int row, int col,
                                            scalar background, unsigned int image_key,
                                            const BatchShape shape) {
    const int scale = spread(image_key, 0, shape.distort);
    const int squeeze = spread(image_key, 1, shape.distort);
    const int shear = spread(image_key, 2, shape.distort);
    // From here on in halves of 1 / ONE, so that the centre has a place.
    const int down = spread(image_key, 3, 2 * ONE * shape.reach);
    const int right = spread(image_key, 4, 2 * ONE * shape.reach);
    const int below = 2 * row - (shape.h - 1), beside = 2 * col - (shape.w - 1);
    const int from_row = (ONE + scale - squeeze) * below + ONE * (shape.h - 1) - down;
    const int from_col =
        (ONE + scale + squeeze) * beside + shear * below + ONE * (shape.w - 1) - right;

    scalar corners[4];
#pragma unroll
    for (int corner = 0; corner < 4; ++corner) {
        const int y = (from_row >> 17) + corner / 2, x = (from_col >> 17) + corner % 2;
        const bool is_inside = inside(y, shape.h) && inside(x, shape.w);
        corners[corner] = is_inside ? plane[y * shape.w + x] : background;
    }
    const scalar lower = (scalar)(from_row & (2 * ONE - 1)) / (scalar)(2 * ONE);
    const scalar later = (scalar)(from_col & (2 * ONE - 1)) / (scalar)(2 * ONE);
    const scalar above = corners[0] + later * (corners[1] - corners[0]);
    const scalar under = corners[2] + later * (corners[3] - corners[2]);
    return above + lower * (under - above);
}

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

        const scalar* plane = images + ((long long)image * shape.c + at.b) * shape.h * shape.w;
        int row = at.c, col = at.d;
        if (shape.distort > 0) {
            const unsigned int key =
                epoch_key(shape.seed_low, shape.seed_high, position[0], DISTORT);
            x[i] = distorted(plane, row, col, background, absorb(key, image), shape);
        } else {
            if (shape.reach > 0) {
                const unsigned int key =
                    epoch_key(shape.seed_low, shape.seed_high, position[0], SHIFT);
                const unsigned int bits = absorb(key, image), side = 2 * shape.reach + 1;
                row -= (int)(bits % side) - shape.reach;
                col -= (int)(bits / side % side) - shape.reach;
            }
            const bool comes_in = !inside(row, shape.h) || !inside(col, shape.w);
            x[i] = comes_in ? background : plane[row * shape.w + col];
        }
    }
}
