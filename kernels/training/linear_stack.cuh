// Linear layers with ReLU between them, compiled in: their sizes, and where their parameters lie.
// SIZES are the inputs and every layer's outputs, OFFSETS the places of w (inputs, outputs) and b
// (outputs) of each layer in one vector.
#pragma once
#include "shape.cuh"

__device__ constexpr int size_of(int layer) {
    constexpr int sizes[] = {SIZES};
    return sizes[layer];
}
__device__ constexpr int weights_at(int layer) {
    constexpr int offsets[] = {OFFSETS};
    return offsets[2 * layer];
}
__device__ constexpr int biases_at(int layer) {
    constexpr int offsets[] = {OFFSETS};
    return offsets[2 * layer + 1];
}
__device__ constexpr int count_layers() {
    constexpr int sizes[] = {SIZES};
    return int(sizeof(sizes) / sizeof(sizes[0])) - 1;
}
constexpr int LAYERS = count_layers();

// An image's outputs of all layers lie one behind the other, those of layer 0 first, each begun at
// a multiple of 4 elements.
__device__ constexpr int outputs_at(int layer) {
    int at = 0;
    for (int before = 0; before < layer; before++) at += (size_of(before + 1) + 3) / 4 * 4;
    return at;
}
constexpr int PITCH = outputs_at(LAYERS);

// Elements of a row of w that a thread loads at once: 16 bytes, where rows are multiples of that.
__device__ constexpr int width_of(int layer) {
    return size_of(layer + 1) % 4 == 0 ? 4 : size_of(layer + 1) % 2 == 0 ? 2 : 1;
}
template <int WIDTH>
struct alignas(WIDTH * sizeof(scalar) > 16 ? 16 : WIDTH * sizeof(scalar)) Vector {
    scalar of[WIDTH];
};
