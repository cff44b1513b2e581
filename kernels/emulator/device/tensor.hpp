// Tensor cores and asynchronous copies, as kernels/tensor_core.cuh has them.
#pragma once

namespace emulator {

// cvt.rna.tf32.f32: the 10 bits behind the point that are kept, to nearest, ties away from zero.
inline uint32_t to_tf32(float value) {
    uint32_t bits = __float_as_uint(value);
    if ((bits & 0x7f800000u) == 0x7f800000u) return value == value ? bits : 0x7fffffffu;
    return (bits + 0x1000u) & ~0x1fffu;
}

// cvt.rn.bf16x2.f32: the upper half of a float, to nearest, ties to even.
inline uint32_t to_bf16(float value) {
    uint32_t bits = __float_as_uint(value);
    if (value != value) return 0x7fffu;
    return (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}
inline uint32_t pack_bf16(float low, float high) {
    return to_bf16(low) | to_bf16(high) << 16;
}

// The lanes tell each other the rows; each then reads its own parts.
inline __attribute__((always_inline)) void load_matrices(uint32_t (&tiles)[4], const void* row,
                                                         const char* file = __builtin_FILE(),
                                                         int line = __builtin_LINE()) {
    MatrixRows rows{row, {}};
    asm volatile("" ::: "memory");
    emulator_warp(WarpOp::load_matrices, "load_matrices", 0xffffffffu,
                  reinterpret_cast<uint64_t>(&rows), 0, file, line);
    asm volatile("" ::: "memory");
    for (int tile = 0; tile < 4; ++tile) {
        tiles[tile] = static_cast<const uint32_t*>(rows.of_tile[tile])[emulator_lane() % 4];
    }
}

inline void mma(WarpOp op, const char* name, float (&d)[4], const uint32_t (&a)[4],
                const uint32_t (&b)[2], const char* file, int line) {
    const Fragments mine{d, a, b};
    const auto address = reinterpret_cast<uint64_t>(&mine);
    asm volatile("" ::: "memory");
    emulator_warp(op, name, 0xffffffffu, address, 0, file, line);
    asm volatile("" ::: "memory");
}
inline void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    mma(WarpOp::mma_tf32, "mma_tf32", d, a, b, file, line);
}
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    mma(WarpOp::mma_bf16, "mma_bf16", d, a, b, file, line);
}

// A copy's data lie at their place after the wait for it; until then there is NaN: on a GPU they
// may come at any time between. Here the read and the write are told.
template <class T>
inline __attribute__((always_inline)) void copy_async(T* to, const T* from, bool is_there) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 16, "cp.async copies 4 or 16 bytes");
    T value, unknown;
    __builtin_memset(&value, 0, sizeof value);
    __builtin_memset(&unknown, 0xff, sizeof unknown);
    if (is_there) value = *from;
    *to = unknown;
    emulator_copy_begin(to, &value, sizeof value);
}
inline void copy_commit() {
    emulator_copy_commit();
}
template <int MOST_PENDING>
inline void copy_wait() {
    asm volatile("" ::: "memory");
    emulator_copy_wait(MOST_PENDING);
    asm volatile("" ::: "memory");
}

}  // namespace emulator
