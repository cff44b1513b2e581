// Atomic operations: truly atomic, for blocks run in parallel.
#pragma once

#ifdef EMULATOR_TRACED
#define EMULATOR_TELL(address) emulator_atomic(address, sizeof *(address))
#else
#define EMULATOR_TELL(address) static_cast<void>(0)
#endif

namespace emulator {

template <class T>
struct Bits {
    using type = T;
};
template <>
struct Bits<float> {
    using type = unsigned;
};
template <>
struct Bits<double> {
    using type = unsigned long long;
};

// Any read-modify-write, by compare and swap; returns the old value, as CUDA's atomics do.
template <class T, class F>
inline T update(T* address, F change) {
    using B = typename Bits<T>::type;
    auto* bits = reinterpret_cast<B*>(address);
#ifdef EMULATOR_TRACED
    // One thread at a time runs, and no address of a local variable is to be seen.
    EMULATOR_TELL(address);
    B old = __atomic_load_n(bits, __ATOMIC_RELAXED), changed;
    T kept;
    __builtin_memcpy(&kept, &old, sizeof kept);
    T result = change(kept);
    __builtin_memcpy(&changed, &result, sizeof changed);
    __atomic_store_n(bits, changed, __ATOMIC_RELAXED);
    return kept;
#endif
    B seen = __atomic_load_n(bits, __ATOMIC_RELAXED);
    for (;;) {
        T before;
        __builtin_memcpy(&before, &seen, sizeof before);
        T after = change(before);
        B next;
        __builtin_memcpy(&next, &after, sizeof next);
        if (__atomic_compare_exchange_n(bits, &seen, next, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
            return before;
        }
    }
}

}  // namespace emulator

#define EMULATOR_FETCH(name, operation, T)                  \
    inline T name(T* address, T value) {                    \
        EMULATOR_TELL(address);                             \
        return operation(address, value, __ATOMIC_RELAXED); \
    }                                                       \
    inline T name##_block(T* address, T value) {            \
        return name(address, value);                        \
    }                                                       \
    inline T name##_system(T* address, T value) {           \
        return name(address, value);                        \
    }
#define EMULATOR_UPDATE(name, T, expression)                                      \
    inline T name(T* address, T value) {                                          \
        return emulator::update(address, [=](T old) -> T { return expression; }); \
    }                                                                             \
    inline T name##_block(T* address, T value) {                                  \
        return name(address, value);                                              \
    }                                                                             \
    inline T name##_system(T* address, T value) {                                 \
        return name(address, value);                                              \
    }
#define EMULATOR_INTEGER(T)                                                                    \
    EMULATOR_FETCH(atomicAdd, __atomic_fetch_add, T)                                           \
    EMULATOR_FETCH(atomicSub, __atomic_fetch_sub, T)                                           \
    EMULATOR_FETCH(atomicAnd, __atomic_fetch_and, T)                                           \
    EMULATOR_FETCH(atomicOr, __atomic_fetch_or, T)                                             \
    EMULATOR_FETCH(atomicXor, __atomic_fetch_xor, T)                                           \
    EMULATOR_FETCH(atomicExch, __atomic_exchange_n, T)                                         \
    EMULATOR_UPDATE(atomicMin, T, value < old ? value : old)                                   \
    EMULATOR_UPDATE(atomicMax, T, value > old ? value : old)                                   \
    inline T atomicCAS(T* address, T compare, T value) {                                       \
        return emulator::update(address, [=](T old) { return old == compare ? value : old; }); \
    }
EMULATOR_INTEGER(int)
EMULATOR_INTEGER(unsigned)
EMULATOR_INTEGER(unsigned long)
EMULATOR_INTEGER(long long)
EMULATOR_INTEGER(unsigned long long)

EMULATOR_UPDATE(atomicInc, unsigned, old >= value ? 0 : old + 1)
EMULATOR_UPDATE(atomicDec, unsigned, old == 0 || old > value ? value : old - 1)
EMULATOR_UPDATE(atomicAdd, float, old + value)
EMULATOR_UPDATE(atomicAdd, double, old + value)
EMULATOR_UPDATE(atomicExch, float, (static_cast<void>(old), value))
#undef EMULATOR_INTEGER
#undef EMULATOR_UPDATE
#undef EMULATOR_FETCH
#undef EMULATOR_TELL
