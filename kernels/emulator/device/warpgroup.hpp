// Hopper's product of a warpgroup, as kernels/warpgroup.cuh has it.
#pragma once

namespace emulator {

inline unsigned long long matrix_descriptor(const void* start, int leading_bytes, int stride_bytes,
                                            const char* file = __builtin_FILE(),
                                            int line = __builtin_LINE()) {
    return emulator_matrix_descriptor(start, leading_bytes, stride_bytes, file, line);
}

inline void async_proxy_fence() {
    asm volatile("" ::: "memory");
    emulator_async_proxy_fence();
}
inline void warpgroup_fence() {
    asm volatile("" ::: "memory");
    emulator_warpgroup_fence();
}

#ifdef EMULATOR_TRACED
// A warp tells a part of what the warpgroup reads: its own rows of a, and of b each fourth vector
// of 16 bytes. 8 lanes have the 8 rows of a core matrix.
inline __attribute__((always_inline)) void read_factors(unsigned long long a, unsigned long long b,
                                                        uint32_t columns) {
    typedef uint32_t Vector __attribute__((vector_size(16)));
    const uint32_t lane = emulator_lane(), warp = emulator_warp_index() % 4;
    const auto read = [](unsigned long long matrix, uint32_t row, uint32_t vector) {
        return static_cast<const volatile Vector*>(emulator_matrix_row(matrix, row, vector));
    };
    const Vector of_a = *read(a, warp * 16 + lane % 8 + lane / 16 * 8, lane / 8 % 2);
    asm volatile("" ::"x"(of_a));
    for (uint32_t i = warp * columns / 2 + lane; i < (warp + 1) * columns / 2; i += 32) {
        const Vector of_b = *read(b, i % columns, i / columns);
        asm volatile("" ::"x"(of_b));
    }
}
#endif

template <int SUMS>
inline __attribute__((always_inline)) void multiply_async(float (&d)[SUMS], unsigned long long a,
                                                          unsigned long long b,
                                                          const char* file = __builtin_FILE(),
                                                          int line = __builtin_LINE()) {
    static_assert(SUMS % 8 == 0 && SUMS >= 32 && SUMS <= 128, "N is 64, 80, ... 256");
    const Product product{d, a, b, SUMS * 2};
    asm volatile("" ::: "memory");
    emulator_warp(WarpOp::multiply_async, "multiply_async", 0xffffffffu,
                  reinterpret_cast<uint64_t>(&product), 0, file, line);
    asm volatile("" ::: "memory");
#ifdef EMULATOR_TRACED
    read_factors(a, b, SUMS * 2);
#endif
}
inline void multiply_commit(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    emulator_warp(WarpOp::multiply_commit, "multiply_commit", 0xffffffffu, 0, 0, file, line);
}
template <int MOST_PENDING>
inline void multiply_wait(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    asm volatile("" ::: "memory");
    emulator_warp(WarpOp::multiply_wait, "multiply_wait", 0xffffffffu, MOST_PENDING, 0, file, line);
    asm volatile("" ::: "memory");
}
template <int SUMS>
inline void multiply_wait(float (&)[SUMS], const char* file = __builtin_FILE(),
                          int line = __builtin_LINE()) {
    multiply_wait<0>(file, line);
}

}  // namespace emulator
