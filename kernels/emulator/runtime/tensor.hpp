// The tensor cores' product of a warp, and the load of its factors.
#pragma once

#include "failures.hpp"

inline float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Hands each lane the rows of which ldmatrix gives it a part.
inline void exchange_rows(Thread* lanes) {
    for (int lane = 0; lane < 32; ++lane) {
        auto* rows = reinterpret_cast<emulator::MatrixRows*>(lanes[lane].value);
        for (int tile = 0; tile < 4; ++tile) {
            const Thread& source = lanes[tile * 8 + lane / 4];
            rows->of_tile[tile] = reinterpret_cast<const emulator::MatrixRows*>(source.value)->own;
        }
    }
}

// d (16x8) += a (16xK) b (Kx8), each lane's registers as PTX lays out mma.m16n8k8 (TF32) and
// mma.m16n8k16 (bfloat16). What is modelled: of a TF32 factor the low 13 bits are ignored, products
// are exact, and each is added to d in float32, rounded to nearest, k rising. A GPU adds several at
// a time, in an order and with a rounding that NVIDIA does not document.
inline void multiply_fragments(Thread* lanes, bool is_bf16) {
    const int depth = is_bf16 ? 16 : 8;
    float a[16][16], b[16][8], d[16][8];
    const emulator::Fragments* of[32];
    for (int lane = 0; lane < 32; ++lane) {
        of[lane] = reinterpret_cast<const emulator::Fragments*>(lanes[lane].value);
        const int group = lane / 4, in_group = lane % 4;
        // Register i of a holds row group (+ 8 for odd i); from i = 2 on the second half of k.
        for (int i = 0; i < 4; ++i) {
            const int row = group + i % 2 * 8;
            if (is_bf16) {
                const int k = in_group * 2 + i / 2 * 8;
                a[row][k] = as_float(of[lane]->a[i] << 16);
                a[row][k + 1] = as_float(of[lane]->a[i] & 0xffff0000u);
            } else {
                a[row][in_group + i / 2 * 4] = as_float(of[lane]->a[i] & ~0x1fffu);
            }
        }
        for (int i = 0; i < 2; ++i) {
            if (is_bf16) {
                const int k = in_group * 2 + i * 8;
                b[k][group] = as_float(of[lane]->b[i] << 16);
                b[k + 1][group] = as_float(of[lane]->b[i] & 0xffff0000u);
            } else {
                b[in_group + i * 4][group] = as_float(of[lane]->b[i] & ~0x1fffu);
            }
        }
        for (int i = 0; i < 4; ++i) d[group + i / 2 * 8][in_group * 2 + i % 2] = of[lane]->d[i];
    }
    for (int k = 0; k < depth; ++k) {
        for (int row = 0; row < 16; ++row) {
            // The products have at most 22 bits: fused or not, one rounding.
            for (int col = 0; col < 8; ++col) d[row][col] += a[row][k] * b[k][col];
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 4; ++i) {
            of[lane]->d[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
        }
    }
}
