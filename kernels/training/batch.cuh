// Which value a pixel of a step's batch has: its image's, moved or distorted. Of batch.cu, and of
// fused_pair.cu, which fetches its images itself.
#pragma once
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

// The data set's image that is the batch's n-th, in the step that `position` names.
__device__ __forceinline__ int batch_image(const int* __restrict__ order,
                                           const int* __restrict__ position, int n,
                                           const BatchShape shape) {
    return order[position[1] * shape.batch_size + n];
}

// Pixel (c, row, col) of an image as the epoch has it.
__device__ __forceinline__ scalar batch_pixel(const scalar* __restrict__ images, int image,
                                              int epoch, int c, int row, int col, scalar background,
                                              const BatchShape shape) {
    const scalar* plane = images + ((long long)image * shape.c + c) * shape.h * shape.w;
    if (shape.distort > 0) {
        const unsigned int key = epoch_key(shape.seed_low, shape.seed_high, epoch, DISTORT);
        return distorted(plane, row, col, background, absorb(key, image), shape);
    }
    if (shape.reach > 0) {
        const unsigned int key = epoch_key(shape.seed_low, shape.seed_high, epoch, SHIFT);
        const unsigned int bits = absorb(key, image), side = 2 * shape.reach + 1;
        row -= (int)(bits % side) - shape.reach;
        col -= (int)(bits / side % side) - shape.reach;
    }
    const bool comes_in = !inside(row, shape.h) || !inside(col, shape.w);
    return comes_in ? background : plane[row * shape.w + col];
}
