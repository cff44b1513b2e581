// The functions that `-fsanitize=thread -fsanitize-coverage=trace-pc` has a compiler call at each
// access and basic block. They are linked into every traced module.
#include "trace_events.hpp"

extern "C" __attribute__((visibility("default"))) Pen traced_pen;
Pen traced_pen;

// A copy of a struct, or of memory by memcpy, goes 4 bytes at a time where it can.
inline void note_range(Code code, const void* address, size_t bytes, uint64_t pc) {
    auto* at = static_cast<const char*>(address);
    const bool in_words = (reinterpret_cast<uint64_t>(address) | bytes) % 4 == 0;
    for (size_t i = 0; i < bytes; i += in_words ? 4 : 1) {
        note_access(traced_pen, code + (in_words ? 2 : 0), pc, at + i);
    }
}

extern "C" {

void __sanitizer_cov_trace_pc() {
    note_short(traced_pen, block_code, EMULATOR_CALLER);
}

#define EMULATOR_HOOKS(bytes, step)                                           \
    void __tsan_read##bytes(void* address) {                                  \
        note_access(traced_pen, read_code + step, EMULATOR_CALLER, address);  \
    }                                                                         \
    void __tsan_write##bytes(void* address) {                                 \
        note_access(traced_pen, write_code + step, EMULATOR_CALLER, address); \
    }                                                                         \
    void __tsan_volatile_read##bytes(void* address) {                         \
        note_access(traced_pen, read_code + step, EMULATOR_CALLER, address);  \
    }                                                                         \
    void __tsan_volatile_write##bytes(void* address) {                        \
        note_access(traced_pen, write_code + step, EMULATOR_CALLER, address); \
    }
EMULATOR_HOOKS(1, 0)
EMULATOR_HOOKS(2, 1)
EMULATOR_HOOKS(4, 2)
EMULATOR_HOOKS(8, 3)
EMULATOR_HOOKS(16, 4)
#undef EMULATOR_HOOKS

void __tsan_read_range(void* address, size_t bytes) {
    note_range(read_code, address, bytes, EMULATOR_CALLER);
}
void __tsan_write_range(void* address, size_t bytes) {
    note_range(write_code, address, bytes, EMULATOR_CALLER);
}

// The linker has the kernel file's calls of memcpy and its kin come here (--wrap).
void* __real_memcpy(void* to, const void* from, size_t bytes);
void* __real_memmove(void* to, const void* from, size_t bytes);
void* __real_memset(void* to, int value, size_t bytes);
void* __wrap_memcpy(void* to, const void* from, size_t bytes) {
    note_range(read_code, from, bytes, EMULATOR_CALLER);
    note_range(write_code, to, bytes, EMULATOR_CALLER);
    return __real_memcpy(to, from, bytes);
}
void* __wrap_memmove(void* to, const void* from, size_t bytes) {
    note_range(read_code, from, bytes, EMULATOR_CALLER);
    note_range(write_code, to, bytes, EMULATOR_CALLER);
    return __real_memmove(to, from, bytes);
}
void* __wrap_memset(void* to, int value, size_t bytes) {
    note_range(write_code, to, bytes, EMULATOR_CALLER);
    return __real_memset(to, value, bytes);
}

// Atomic operations are told by device/atomics.hpp, once each; here they are only done.
void emulator_atomic(const void* address, uint32_t bytes) {
    note_access(traced_pen, atomic_code + (bytes > 4), EMULATOR_CALLER, address);
}
#define EMULATOR_ATOMICS(bits, T)                                                                  \
    T __tsan_atomic##bits##_load(const volatile T* at, int) {                                      \
        return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                              \
    }                                                                                              \
    void __tsan_atomic##bits##_store(volatile T* at, T value, int) {                               \
        __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                             \
    }                                                                                              \
    T __tsan_atomic##bits##_exchange(volatile T* at, T value, int) {                               \
        return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                   \
    }                                                                                              \
    T __tsan_atomic##bits##_fetch_add(volatile T* at, T value, int) {                              \
        return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);                                    \
    }                                                                                              \
    T __tsan_atomic##bits##_fetch_sub(volatile T* at, T value, int) {                              \
        return __atomic_fetch_sub(at, value, __ATOMIC_SEQ_CST);                                    \
    }                                                                                              \
    T __tsan_atomic##bits##_fetch_and(volatile T* at, T value, int) {                              \
        return __atomic_fetch_and(at, value, __ATOMIC_SEQ_CST);                                    \
    }                                                                                              \
    T __tsan_atomic##bits##_fetch_or(volatile T* at, T value, int) {                               \
        return __atomic_fetch_or(at, value, __ATOMIC_SEQ_CST);                                     \
    }                                                                                              \
    T __tsan_atomic##bits##_fetch_xor(volatile T* at, T value, int) {                              \
        return __atomic_fetch_xor(at, value, __ATOMIC_SEQ_CST);                                    \
    }                                                                                              \
    bool __tsan_atomic##bits##_compare_exchange_strong(volatile T* at, T* seen, T value, int,      \
                                                       int) {                                      \
        return __atomic_compare_exchange_n(at, seen, value, false, __ATOMIC_SEQ_CST,               \
                                           __ATOMIC_SEQ_CST);                                      \
    }                                                                                              \
    bool __tsan_atomic##bits##_compare_exchange_weak(volatile T* at, T* seen, T value, int, int) { \
        return __atomic_compare_exchange_n(at, seen, value, false, __ATOMIC_SEQ_CST,               \
                                           __ATOMIC_SEQ_CST);                                      \
    }
EMULATOR_ATOMICS(32, uint32_t)
EMULATOR_ATOMICS(64, uint64_t)
#undef EMULATOR_ATOMICS
void __tsan_atomic_thread_fence(int) {}
void emulator_fence() {
    note_short(traced_pen, fence_code, EMULATOR_CALLER);
}

// The depth of calls: a function ends before the one that called it goes on.
void __tsan_func_entry(void*) {
    traced_pen.set_calls(traced_pen.calls + 1);
}
void __tsan_func_exit() {
    traced_pen.set_calls(traced_pen.calls - 1);
}
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
