// Loads and stores with a cache hint (here plain ones), fences, clocks.
#pragma once

#define EMULATOR_LOAD(name)           \
    template <class T>                \
    inline T name(const T* address) { \
        return *address;              \
    }
EMULATOR_LOAD(__ldg)
EMULATOR_LOAD(__ldca)
EMULATOR_LOAD(__ldcg)
EMULATOR_LOAD(__ldcs)
EMULATOR_LOAD(__ldcv)
EMULATOR_LOAD(__ldlu)
#undef EMULATOR_LOAD

namespace emulator {
template <class T>
struct Same {
    using type = T;
};
}  // namespace emulator

#define EMULATOR_STORE(name)                                               \
    template <class T>                                                     \
    inline void name(T* address, typename emulator::Same<T>::type value) { \
        *address = value;                                                  \
    }
EMULATOR_STORE(__stwb)
EMULATOR_STORE(__stcg)
EMULATOR_STORE(__stcs)
EMULATOR_STORE(__stwt)
#undef EMULATOR_STORE

inline void __threadfence() {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#ifdef EMULATOR_TRACED
    emulator_fence();
#endif
}
inline void __threadfence_block() {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
inline void __threadfence_system() {
    __threadfence();
}

inline long long clock64() {
#if defined(__x86_64__)
    return static_cast<long long>(__builtin_ia32_rdtsc());
#else
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
#endif
}
inline void __nanosleep(unsigned) {}

#define __isGlobal(pointer) (true)
#define __builtin_assume(condition) ((void)0)
