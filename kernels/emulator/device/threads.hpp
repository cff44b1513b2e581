// Who a thread is, and the barriers and warp primitives it meets the others at.
#pragma once

#define EMULATOR_TLS __attribute__((tls_model("initial-exec")))
extern "C" {
// const: a kernel may keep them in registers over a barrier, for they are its own thread's.
extern __thread const uint3 threadIdx EMULATOR_SYMBOL(threadIdx) EMULATOR_TLS;
extern __thread const uint3 blockIdx EMULATOR_SYMBOL(blockIdx) EMULATOR_TLS;
extern __thread const dim3 blockDim EMULATOR_SYMBOL(blockDim) EMULATOR_TLS;
extern __thread const dim3 gridDim EMULATOR_SYMBOL(gridDim) EMULATOR_TLS;
}
#undef EMULATOR_TLS

static constexpr int warpSize = 32;

#define EMULATOR_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(EMULATOR_AT) {
    asm volatile("" ::: "memory");
    emulator_barrier(emulator::Barrier::plain, 0, file, line);
    asm volatile("" ::: "memory");
}
inline int __syncthreads_count(int predicate, EMULATOR_AT) {
    return emulator_barrier(emulator::Barrier::count, predicate, file, line);
}
inline int __syncthreads_and(int predicate, EMULATOR_AT) {
    return emulator_barrier(emulator::Barrier::all, predicate, file, line);
}
inline int __syncthreads_or(int predicate, EMULATOR_AT) {
    return emulator_barrier(emulator::Barrier::any, predicate, file, line);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, EMULATOR_AT) {
    asm volatile("" ::: "memory");
    emulator_warp(emulator::WarpOp::sync, "__syncwarp", mask, 0, 0, file, line);
    asm volatile("" ::: "memory");
}

// Lanes that have not returned; which of them run together is not known here.
inline unsigned __activemask() {
    return emulator_active_mask();
}

namespace emulator {

template <class T>
inline uint64_t to_bits(T value) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "warp primitives take 4 or 8 bytes");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    return bits;
}

template <class T>
inline T from_bits(uint64_t bits) {
    T value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T>
inline T shuffle(const char* name, unsigned mask, T value, int source, const char* file, int line) {
    return from_bits<T>(
        emulator_warp(WarpOp::shuffle, name, mask, to_bits(value), source, file, line));
}

}  // namespace emulator

// `width` parts a warp into sections that shuffle among themselves.
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, EMULATOR_AT) {
    int lane = static_cast<int>(emulator_lane());
    int from = (lane & ~(width - 1)) | (source & (width - 1));
    return emulator::shuffle("__shfl_sync", mask, value, from, file, line);
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_AT) {
    int lane = static_cast<int>(emulator_lane()), from = lane - static_cast<int>(delta);
    if (from < (lane & ~(width - 1))) from = lane;
    return emulator::shuffle("__shfl_up_sync", mask, value, from, file, line);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATOR_AT) {
    int lane = static_cast<int>(emulator_lane()), from = lane + static_cast<int>(delta);
    if (from > (lane | (width - 1))) from = lane;
    return emulator::shuffle("__shfl_down_sync", mask, value, from, file, line);
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, EMULATOR_AT) {
    int lane = static_cast<int>(emulator_lane()), from = lane ^ lanes;
    if (from > (lane | (width - 1))) from = lane;
    return emulator::shuffle("__shfl_xor_sync", mask, value, from, file, line);
}

#define EMULATOR_VOTE(name, op, type)                                                         \
    inline type name(unsigned mask, int predicate, EMULATOR_AT) {                             \
        return static_cast<type>(                                                             \
            emulator_warp(emulator::WarpOp::op, #name, mask, predicate != 0, 0, file, line)); \
    }
EMULATOR_VOTE(__ballot_sync, ballot, unsigned)
EMULATOR_VOTE(__any_sync, any, int)
EMULATOR_VOTE(__all_sync, all, int)
#undef EMULATOR_VOTE

template <class T>
inline unsigned __match_any_sync(unsigned mask, T value, EMULATOR_AT) {
    return static_cast<unsigned>(emulator_warp(emulator::WarpOp::match_any, "__match_any_sync",
                                               mask, emulator::to_bits(value), 0, file, line));
}
template <class T>
inline unsigned __match_all_sync(unsigned mask, T value, int* all, EMULATOR_AT) {
    auto lanes =
        static_cast<unsigned>(emulator_warp(emulator::WarpOp::match_all, "__match_all_sync", mask,
                                            emulator::to_bits(value), 0, file, line));
    *all = lanes != 0;
    return lanes;
}

// Signed values travel sign-extended, so that the runtime can compare them.
#define EMULATOR_REDUCE(name, type, wide, op)                                               \
    inline type name(unsigned mask, type value, EMULATOR_AT) {                              \
        return static_cast<type>(emulator_warp(emulator::WarpOp::op, #name, mask,           \
                                               static_cast<uint64_t>(wide{value}), 0, file, \
                                               line));                                      \
    }
EMULATOR_REDUCE(__reduce_add_sync, int, int64_t, add)
EMULATOR_REDUCE(__reduce_add_sync, unsigned, uint64_t, add)
EMULATOR_REDUCE(__reduce_min_sync, int, int64_t, min_signed)
EMULATOR_REDUCE(__reduce_min_sync, unsigned, uint64_t, min_unsigned)
EMULATOR_REDUCE(__reduce_max_sync, int, int64_t, max_signed)
EMULATOR_REDUCE(__reduce_max_sync, unsigned, uint64_t, max_unsigned)
EMULATOR_REDUCE(__reduce_and_sync, unsigned, uint64_t, bit_and)
EMULATOR_REDUCE(__reduce_or_sync, unsigned, uint64_t, bit_or)
EMULATOR_REDUCE(__reduce_xor_sync, unsigned, uint64_t, bit_xor)
#undef EMULATOR_REDUCE

inline void __trap(EMULATOR_AT) {
    emulator_trap("__trap()", file, line);
}

#undef EMULATOR_AT

// assert() of <assert.h> calls __assert_fail, and a later #include of it must find the same.
#define __assert_fail(expression, file, line, function) \
    emulator::assert_failed(expression, file, static_cast<int>(line))
#define printf(...) emulator_print(__VA_ARGS__)

namespace emulator {
[[noreturn]] inline void assert_failed(const char* expression, const char* file, int line) {
    char text[256];
    snprintf(text, sizeof text, "assertion `%s' failed", expression);
    emulator_trap(text, file, line);
}
}  // namespace emulator
