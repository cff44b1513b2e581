// Integer and conversion intrinsics.
#pragma once

inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
inline int __clz(int x) {
    return x ? __builtin_clz(static_cast<unsigned>(x)) : 32;
}
inline int __clzll(long long x) {
    return x ? __builtin_clzll(static_cast<unsigned long long>(x)) : 64;
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}
inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}

inline unsigned __brev(unsigned x) {
    x = (x >> 1 & 0x55555555u) | (x & 0x55555555u) << 1;
    x = (x >> 2 & 0x33333333u) | (x & 0x33333333u) << 2;
    x = (x >> 4 & 0x0F0F0F0Fu) | (x & 0x0F0F0F0Fu) << 4;
    return __builtin_bswap32(x);
}
inline unsigned long long __brevll(unsigned long long x) {
    return static_cast<unsigned long long>(__brev(static_cast<unsigned>(x))) << 32 |
           __brev(static_cast<unsigned>(x >> 32));
}

// Each selector digit picks one of the 8 bytes of y:x.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
    unsigned long long bytes = static_cast<unsigned long long>(y) << 32 | x;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) {
        unsigned digit = selector >> (4 * i) & 0xF;
        auto byte = static_cast<unsigned>(bytes >> (8 * (digit & 7)) & 0xFF);
        if (digit & 8) byte = byte & 0x80 ? 0xFF : 0;
        result |= byte << (8 * i);
    }
    return result;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
    unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
    return static_cast<unsigned>(both << (shift & 31) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) {
    unsigned long long both = static_cast<unsigned long long>(high) << 32 | low;
    return static_cast<unsigned>(both >> (shift & 31));
}

inline int __mul24(int a, int b) {
    int a24 = static_cast<int>(static_cast<unsigned>(a) << 8) >> 8;
    int b24 = static_cast<int>(static_cast<unsigned>(b) << 8) >> 8;
    return static_cast<int>(static_cast<unsigned>(a24) * static_cast<unsigned>(b24));
}
inline unsigned __umul24(unsigned a, unsigned b) {
    return (a & 0xFFFFFF) * (b & 0xFFFFFF);
}
inline int __mulhi(int a, int b) {
    return static_cast<int>(static_cast<long long>(a) * b >> 32);
}
inline unsigned __umulhi(unsigned a, unsigned b) {
    return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline long long __mul64hi(long long a, long long b) {
    return static_cast<long long>(static_cast<__int128>(a) * b >> 64);
}
inline unsigned __sad(int a, int b, unsigned c) {
    return c + (a < b ? static_cast<unsigned>(b) - static_cast<unsigned>(a)
                      : static_cast<unsigned>(a) - static_cast<unsigned>(b));
}
inline int __dp4a(int a, int b, int c) {
    for (int i = 0; i < 4; ++i) {
        c += static_cast<signed char>(a >> (8 * i)) * static_cast<signed char>(b >> (8 * i));
    }
    return c;
}

#define EMULATOR_REINTERPRET(name, from, to)              \
    inline to name(from value) {                          \
        to result;                                        \
        __builtin_memcpy(&result, &value, sizeof result); \
        return result;                                    \
    }
EMULATOR_REINTERPRET(__float_as_int, float, int)
EMULATOR_REINTERPRET(__float_as_uint, float, unsigned)
EMULATOR_REINTERPRET(__int_as_float, int, float)
EMULATOR_REINTERPRET(__uint_as_float, unsigned, float)
EMULATOR_REINTERPRET(__double_as_longlong, double, long long)
EMULATOR_REINTERPRET(__longlong_as_double, long long, double)
#undef EMULATOR_REINTERPRET

namespace emulator {
// A GPU's conversions saturate and turn NaN into 0.
template <class To>
inline To saturate(double value, double low, double high) {
    if (!(value == value)) return 0;
    return value <= low ? To(low) : value >= high ? To(high) : To(value);
}
}  // namespace emulator

#define EMULATOR_CONVERT(suffix, round)                                        \
    inline int __float2int_##suffix(float x) {                                 \
        return emulator::saturate<int>(round(x), -2147483648.0, 2147483647.0); \
    }                                                                          \
    inline unsigned __float2uint_##suffix(float x) {                           \
        return emulator::saturate<unsigned>(round(x), 0.0, 4294967295.0);      \
    }                                                                          \
    inline int __double2int_##suffix(double x) {                               \
        return emulator::saturate<int>(round(x), -2147483648.0, 2147483647.0); \
    }
EMULATOR_CONVERT(rn, __builtin_rint)
EMULATOR_CONVERT(rz, __builtin_trunc)
EMULATOR_CONVERT(rd, __builtin_floor)
EMULATOR_CONVERT(ru, __builtin_ceil)
#undef EMULATOR_CONVERT
inline float __int2float_rn(int x) {
    return static_cast<float>(x);
}
inline float __uint2float_rn(unsigned x) {
    return static_cast<float>(x);
}
inline float __double2float_rn(double x) {
    return static_cast<float>(x);
}
inline double __int2double_rn(int x) {
    return x;
}
