// CUDA's vector types, with CUDA's alignments: 4 components align to 16 bytes at most.
#pragma once

#include <sys/types.h>  // uint, ushort, ulong

namespace emulator {
template <class T>
struct Scalar {
    using type = T;
};
}  // namespace emulator

#define EMULATOR_VECTORS(name, T, align1, align2, align3, align4) \
    struct __attribute__((aligned(align1))) name##1 {             \
        T x;                                                      \
    };                                                            \
    struct __attribute__((aligned(align2))) name##2 {             \
        T x, y;                                                   \
    };                                                            \
    struct __attribute__((aligned(align3))) name##3 {             \
        T x, y, z;                                                \
    };                                                            \
    struct __attribute__((aligned(align4))) name##4 {             \
        T x, y, z, w;                                             \
    };                                                            \
    inline name##1 make_##name##1(T x) {                          \
        return {x};                                               \
    }                                                             \
    inline name##2 make_##name##2(T x, T y) {                     \
        return {x, y};                                            \
    }                                                             \
    inline name##3 make_##name##3(T x, T y, T z) {                \
        return {x, y, z};                                         \
    }                                                             \
    inline name##4 make_##name##4(T x, T y, T z, T w) {           \
        return {x, y, z, w};                                      \
    }                                                             \
    namespace emulator {                                          \
    template <>                                                   \
    struct Scalar<name##1> {                                      \
        using type = T;                                           \
    };                                                            \
    template <>                                                   \
    struct Scalar<name##2> {                                      \
        using type = T;                                           \
    };                                                            \
    template <>                                                   \
    struct Scalar<name##3> {                                      \
        using type = T;                                           \
    };                                                            \
    template <>                                                   \
    struct Scalar<name##4> {                                      \
        using type = T;                                           \
    };                                                            \
    }

EMULATOR_VECTORS(char, signed char, 1, 2, 1, 4)
EMULATOR_VECTORS(uchar, unsigned char, 1, 2, 1, 4)
EMULATOR_VECTORS(short, short, 2, 4, 2, 8)
EMULATOR_VECTORS(ushort, unsigned short, 2, 4, 2, 8)
EMULATOR_VECTORS(int, int, 4, 8, 4, 16)
EMULATOR_VECTORS(uint, unsigned, 4, 8, 4, 16)
EMULATOR_VECTORS(long, long, 8, 16, 8, 16)
EMULATOR_VECTORS(ulong, unsigned long, 8, 16, 8, 16)
EMULATOR_VECTORS(longlong, long long, 8, 16, 8, 16)
EMULATOR_VECTORS(ulonglong, unsigned long long, 8, 16, 8, 16)
EMULATOR_VECTORS(float, float, 4, 8, 4, 16)
EMULATOR_VECTORS(double, double, 8, 16, 8, 16)
#undef EMULATOR_VECTORS

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
    constexpr operator uint3() const { return {x, y, z}; }
};
