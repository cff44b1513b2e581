// CUDA's math functions beside those of <math.h>, which C++ already has under the same names.
#pragma once

#include "constants.hpp"

// min and max for every pair of types that CUDA has them for; a NaN loses, as in fmin and fmax.
#define EMULATOR_MIN_MAX(T, A, B)                                                             \
    inline T min(A a, B b) {                                                                  \
        return static_cast<T>(a) < static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b); \
    }                                                                                         \
    inline T max(A a, B b) {                                                                  \
        return static_cast<T>(a) > static_cast<T>(b) ? static_cast<T>(a) : static_cast<T>(b); \
    }
EMULATOR_MIN_MAX(int, int, int)
EMULATOR_MIN_MAX(unsigned, unsigned, unsigned)
EMULATOR_MIN_MAX(unsigned, int, unsigned)
EMULATOR_MIN_MAX(unsigned, unsigned, int)
EMULATOR_MIN_MAX(long, long, long)
EMULATOR_MIN_MAX(unsigned long, unsigned long, unsigned long)
EMULATOR_MIN_MAX(unsigned long, long, unsigned long)
EMULATOR_MIN_MAX(unsigned long, unsigned long, long)
EMULATOR_MIN_MAX(long long, long long, long long)
EMULATOR_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
EMULATOR_MIN_MAX(unsigned long long, long long, unsigned long long)
EMULATOR_MIN_MAX(unsigned long long, unsigned long long, long long)
#undef EMULATOR_MIN_MAX
#define EMULATOR_MIN_MAX(T, A, B, suffix)    \
    inline T min(A a, B b) {                 \
        return __builtin_fmin##suffix(a, b); \
    }                                        \
    inline T max(A a, B b) {                 \
        return __builtin_fmax##suffix(a, b); \
    }
EMULATOR_MIN_MAX(float, float, float, f)
EMULATOR_MIN_MAX(double, double, double, )
EMULATOR_MIN_MAX(double, float, double, )
EMULATOR_MIN_MAX(double, double, float, )
#undef EMULATOR_MIN_MAX

inline unsigned umin(unsigned a, unsigned b) {
    return min(a, b);
}
inline unsigned umax(unsigned a, unsigned b) {
    return max(a, b);
}

inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
inline double rsqrt(double x) {
    return 1.0 / sqrt(x);
}
inline float rsqrt(float x) {
    return rsqrtf(x);
}
inline float rcbrtf(float x) {
    return 1.0f / cbrtf(x);
}
inline double rcbrt(double x) {
    return 1.0 / cbrt(x);
}
inline float sinpif(float x) {
    return static_cast<float>(sin(M_PI * fmod(x, 2.0)));
}
inline double sinpi(double x) {
    return sin(M_PI * fmod(x, 2.0));
}
inline float cospif(float x) {
    return static_cast<float>(cos(M_PI * fmod(x, 2.0)));
}
inline double cospi(double x) {
    return cos(M_PI * fmod(x, 2.0));
}
inline float normcdff(float x) {
    return 0.5f * erfcf(x * -0.70710678f);
}
inline double normcdf(double x) {
    return 0.5 * erfc(x * -0.70710678118654752);
}
inline float norm3df(float x, float y, float z) {
    return sqrtf(x * x + y * y + z * z);
}
inline float norm4df(float x, float y, float z, float w) {
    return sqrtf(x * x + y * y + z * z + w * w);
}

// The fast ones: a GPU loses a few bits here, the emulator does not.
inline float __expf(float x) {
    return expf(x);
}
inline float __exp10f(float x) {
    return exp10f(x);
}
inline float __logf(float x) {
    return logf(x);
}
inline float __log2f(float x) {
    return log2f(x);
}
inline float __log10f(float x) {
    return log10f(x);
}
inline float __sinf(float x) {
    return sinf(x);
}
inline float __cosf(float x) {
    return cosf(x);
}
inline float __tanf(float x) {
    return tanf(x);
}
inline float __powf(float x, float y) {
    return powf(x, y);
}
inline void __sincosf(float x, float* s, float* c) {
    sincosf(x, s, c);
}
inline float fdividef(float x, float y) {
    return x / y;
}
inline float __fdividef(float x, float y) {
    return x / y;
}
inline float __saturatef(float x) {
    return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}

namespace emulator {
// Keeps a product or sum from being fused into a neighbour, which is what __fmul_rn is for.
template <class T>
inline T unfused(T value) {
#if defined(__x86_64__)
    asm("" : "+x"(value));
#elif defined(__aarch64__)
    asm("" : "+w"(value));
#else
    volatile T kept = value;
    value = kept;
#endif
    return value;
}
}  // namespace emulator

inline float __fadd_rn(float a, float b) {
    return emulator::unfused(a + b);
}
inline float __fsub_rn(float a, float b) {
    return emulator::unfused(a - b);
}
inline float __fmul_rn(float a, float b) {
    return emulator::unfused(a * b);
}
inline float __fdiv_rn(float a, float b) {
    return a / b;
}
inline float __fmaf_rn(float a, float b, float c) {
    return __builtin_fmaf(a, b, c);
}
inline float __fsqrt_rn(float a) {
    return sqrtf(a);
}
inline float __frcp_rn(float a) {
    return 1.0f / a;
}
inline float __frsqrt_rn(float a) {
    return rsqrtf(a);
}
inline double __dadd_rn(double a, double b) {
    return emulator::unfused(a + b);
}
inline double __dsub_rn(double a, double b) {
    return emulator::unfused(a - b);
}
inline double __dmul_rn(double a, double b) {
    return emulator::unfused(a * b);
}
inline double __ddiv_rn(double a, double b) {
    return a / b;
}
inline double __fma_rn(double a, double b, double c) {
    return __builtin_fma(a, b, c);
}
inline double __dsqrt_rn(double a) {
    return sqrt(a);
}
inline double __drcp_rn(double a) {
    return 1.0 / a;
}
