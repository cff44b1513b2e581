// What a compiled kernel file and the runtime know of each other, and nothing else.
#pragma once

#include <cstdint>

// A process may hold the plain runtime and the tracing one: each has symbols of its own.
#ifdef EMULATOR_TRACED
#define EMULATOR_SYMBOL(name) asm("traced_" #name)
#else
#define EMULATOR_SYMBOL(name)
#endif

namespace emulator {

// One parameter of a kernel, as Python checks it. Where `is_pointer`, the sizes are the pointee's.
struct Parameter {
    const char*
        type;  // __PRETTY_FUNCTION__ of a template: holds the type's name as the user wrote it
    int32_t is_pointer, is_const;
    uint32_t size, align;
    int32_t scalar_kind;  // NumPy's letter: f i u b, V for void, S for a struct
    uint32_t scalar_size;
};

struct Kernel {
    const char* name;
    void (*run)(void** arguments);
    const Parameter* parameters;
    uint32_t parameter_count, max_threads;
};

struct Module {
    const Kernel* kernels;
    uint32_t kernel_count;
    char* (*dynamic_shared)();  // of the calling OS thread; null where no array is dynamic
    char* (*static_shared)();   // some byte of it, likewise; null where no array is static only
};

enum class Barrier : int32_t { plain, count, all, any };

enum class WarpOp : int32_t {
    sync,
    shuffle,
    ballot,
    any,
    all,
    match_any,
    match_all,
    add,
    min_signed,
    max_signed,
    min_unsigned,
    max_unsigned,
    bit_and,
    bit_or,
    bit_xor,
    mma_tf32,  // the value is the address of the lane's Fragments
    mma_bf16,
    load_matrices,   // ... of its MatrixRows
    multiply_async,  // ... of its Product
    multiply_commit,
    multiply_wait  // the value is how many groups may be pending
};

// A lane's part of d += a b on tensor cores, in the registers that PTX lays it out in.
struct Fragments {
    float* d;           // 4
    const uint32_t* a;  // 4
    const uint32_t* b;  // 2
};

// The row that a lane names, and those of which it gets its part, in the order of the tiles.
struct MatrixRows {
    const void *own, *of_tile[4];
};

// d += a b of a warpgroup, as a lane asks for it: its sums, and where the factors lie.
struct Product {
    float* d;       // columns / 2
    uint64_t a, b;  // descriptors
    uint32_t columns;
};

}  // namespace emulator

extern "C" {
int emulator_barrier(emulator::Barrier kind, int predicate, const char* file, int line)
    EMULATOR_SYMBOL(barrier);
uint64_t emulator_warp(emulator::WarpOp op, const char* name, uint32_t mask, uint64_t value,
                       int source_lane, const char* file, int line) EMULATOR_SYMBOL(warp);
void emulator_copy_begin(void* to, const void* data, uint32_t bytes) EMULATOR_SYMBOL(copy_begin);
void emulator_copy_commit() EMULATOR_SYMBOL(copy_commit);
void emulator_copy_wait(uint32_t most_pending) EMULATOR_SYMBOL(copy_wait);
uint64_t emulator_matrix_descriptor(const void* start, int leading_bytes, int stride_bytes,
                                    const char* file, int line) EMULATOR_SYMBOL(matrix_descriptor);
const void* emulator_matrix_row(uint64_t descriptor, uint32_t row, uint32_t vector)
    EMULATOR_SYMBOL(matrix_row);
void emulator_async_proxy_fence() EMULATOR_SYMBOL(async_proxy_fence);
void emulator_warpgroup_fence() EMULATOR_SYMBOL(warpgroup_fence);
uint32_t emulator_lane() EMULATOR_SYMBOL(lane);
uint32_t emulator_warp_index() EMULATOR_SYMBOL(warp_index);
uint32_t emulator_active_mask() EMULATOR_SYMBOL(active_mask);
int emulator_print(const char* format, ...) EMULATOR_SYMBOL(print)
    __attribute__((format(printf, 1, 2)));
[[noreturn]] void emulator_trap(const char* what, const char* file, int line) EMULATOR_SYMBOL(trap);
#ifdef EMULATOR_TRACED
// Tells that the thread does an atomic operation, which itself goes unseen.
void emulator_atomic(const void* address, uint32_t bytes);
void emulator_fence();
#endif
}
