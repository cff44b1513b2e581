// What tensor cores need beyond CUDA C, as functions: from compute capability 8.0 on. On a GPU they
// are one PTX instruction each; the emulator has its own (kernels/emulator/device/tensor.hpp).
#pragma once

#ifdef CONV_KERNEL_LAB_EMULATOR

using emulator::copy_async;
using emulator::copy_commit;
using emulator::copy_wait;
using emulator::load_matrices;
using emulator::mma_bf16;
using emulator::mma_tf32;
using emulator::pack_bf16;
using emulator::to_tf32;

#else

// A float rounded to TF32, to nearest, ties away from zero: its register for an mma.
__device__ __forceinline__ unsigned to_tf32(float value) {
    unsigned rounded;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(rounded) : "f"(value));
    return rounded;
}

// Two floats rounded to bfloat16, to nearest, ties to even: `low` in the lower half.
__device__ __forceinline__ unsigned pack_bf16(float low, float high) {
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

// A warp's d (16x8) += a (16x8) b (8x8) in TF32. With group = lane / 4 and t = lane % 4 a lane has
//   a: rows group, group + 8 of column t, then of column t + 4;  b: rows t, t + 4 of column group;
//   d: columns 2t, 2t + 1 of row group, then of row group + 8.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// The same with 16 columns of a and rows of b, in bfloat16, two to a register: 2t and 2t + 1 where
// TF32 has t, and 2t + 8 and 2t + 9 where it has t + 4.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const unsigned (&a)[4],
                                         const unsigned (&b)[2]) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8x8 tiles of 16-bit numbers from shared memory, or 8x4 of 32-bit ones: lane i names the
// address of row i % 8 of tile i / 8, 16 bytes at a multiple of 16, and gets of each tile the
// (i % 4)th 4 bytes of row i / 4: an mma's registers.
__device__ __forceinline__ void load_matrices(unsigned (&tiles)[4], const void* row) {
    const unsigned place = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3])
                 : "r"(place));
}

// Begin to copy 4 or 16 bytes to shared memory past the registers, by way of L1; zeros where
// `is_there` is false (nothing is read then). They are there after the wait for their group.
template <class T>
__device__ __forceinline__ void copy_async(T* to, const T* from, bool is_there) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 16, "cp.async copies 4 or 16 bytes");
    const unsigned place = (unsigned)__cvta_generic_to_shared(to);
    const int bytes = is_there ? sizeof(T) : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(place), "l"(from),
                 "n"(sizeof(T)), "r"(bytes));
}

// Close the group of the copies begun so far.
__device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Wait until at most MOST_PENDING of this thread's newest groups are under way. The others' copies
// are there only behind a barrier after their own wait.
template <int MOST_PENDING>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(MOST_PENDING) : "memory");
}

#endif
