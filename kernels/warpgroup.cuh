// Hopper's product of a warpgroup, wgmma, as functions: of compute capability 9.0 (sm_90a) alone.
// On a GPU they are one PTX instruction each; the emulator has its own (device/warpgroup.hpp).
#pragma once
#include "tensor_core.cuh"

// Where in shared memory a matrix lies whose rows are what is not summed over: core matrices of 8
// rows by 16 bytes, each 128 contiguous bytes; the next along what is summed over is leading_bytes
// further, the next 8 rows stride_bytes. All are multiples of 16. (In the PTX ISA's words K-major
// and not swizzled.) In units of 16 bytes an offset of the matrix is added to its descriptor.
typedef unsigned long long Descriptor;

#ifdef CONV_KERNEL_LAB_EMULATOR

using emulator::async_proxy_fence;
using emulator::matrix_descriptor;
using emulator::multiply_async;
using emulator::multiply_commit;
using emulator::multiply_wait;
using emulator::warpgroup_fence;

#else

__device__ __forceinline__ Descriptor matrix_descriptor(const void* start, int leading_bytes,
                                                        int stride_bytes) {
    const unsigned place = (unsigned)__cvta_generic_to_shared(start);
    return (place & 0x3ffff) >> 4 | (Descriptor)(leading_bytes >> 4) << 16 |
           (Descriptor)(stride_bytes >> 4) << 32;
}

// What this thread has written to shared memory, or copied there and waited for, products may read
// that are begun behind the next barrier: they go another way to memory than its threads.
__device__ __forceinline__ void async_proxy_fence() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Before a first product, and whenever its registers were touched since the last.
__device__ __forceinline__ void warpgroup_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Begin a warpgroup's d (64 x N) += a (64x16) b (16xN), both bfloat16 from shared memory, rows of a
// and columns of b as the rows of their descriptors. With group = lane / 4 and t = lane % 4 a lane
// of its warp w has in d[4j ...] columns 8j + 2t and 8j + 2t + 1 of row 16w + group, then of row
// 16w + group + 8. The registers are the product's until the wait for it.
#define EIGHT(i)                                                                                \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
        "+f"(d[i + 6]), "+f"(d[i + 7])
// clang-format off
#define REGISTERS_8 "%0,%1,%2,%3,%4,%5,%6,%7"
#define REGISTERS_16 REGISTERS_8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define REGISTERS_24 REGISTERS_16 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define REGISTERS_32 REGISTERS_24 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define REGISTERS_40 REGISTERS_32 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define REGISTERS_48 REGISTERS_40 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define REGISTERS_56 REGISTERS_48 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define REGISTERS_64 REGISTERS_56 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define REGISTERS_72 REGISTERS_64 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define REGISTERS_80 REGISTERS_72 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define REGISTERS_88 REGISTERS_80 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define REGISTERS_96 REGISTERS_88 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define REGISTERS_104 REGISTERS_96 ",%96,%97,%98,%99,%100,%101,%102,%103"
#define REGISTERS_112 REGISTERS_104 ",%104,%105,%106,%107,%108,%109,%110,%111"
#define REGISTERS_120 REGISTERS_112 ",%112,%113,%114,%115,%116,%117,%118,%119"
#define REGISTERS_128 REGISTERS_120 ",%120,%121,%122,%123,%124,%125,%126,%127"
#define SUMS_8 EIGHT(0)
#define SUMS_16 SUMS_8, EIGHT(8)
#define SUMS_24 SUMS_16, EIGHT(16)
#define SUMS_32 SUMS_24, EIGHT(24)
#define SUMS_40 SUMS_32, EIGHT(32)
#define SUMS_48 SUMS_40, EIGHT(40)
#define SUMS_56 SUMS_48, EIGHT(48)
#define SUMS_64 SUMS_56, EIGHT(56)
#define SUMS_72 SUMS_64, EIGHT(64)
#define SUMS_80 SUMS_72, EIGHT(72)
#define SUMS_88 SUMS_80, EIGHT(80)
#define SUMS_96 SUMS_88, EIGHT(88)
#define SUMS_104 SUMS_96, EIGHT(96)
#define SUMS_112 SUMS_104, EIGHT(104)
#define SUMS_120 SUMS_112, EIGHT(112)
#define SUMS_128 SUMS_120, EIGHT(120)
// clang-format on
#define PRODUCT(N, COUNT, NEXT)                                                            \
    if constexpr (COUNT == SUMS) {                                                         \
        asm volatile(                                                                      \
            "{.reg .pred adds; setp.eq.u32 adds, 0, 0; "                                   \
            "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" REGISTERS_##COUNT \
            "}, %" #COUNT ", %" #NEXT ", adds, 1, 1, 0, 0;}"                               \
            : SUMS_##COUNT                                                                 \
            : "l"(a), "l"(b));                                                             \
    }
template <int SUMS>
__device__ __forceinline__ void multiply_async(float (&d)[SUMS], Descriptor a, Descriptor b) {
    static_assert(SUMS % 8 == 0 && SUMS >= 32 && SUMS <= 128, "N is 64, 80, ... 256");
    PRODUCT(64, 32, 33)
    PRODUCT(80, 40, 41)
    PRODUCT(96, 48, 49)
    PRODUCT(112, 56, 57)
    PRODUCT(128, 64, 65)
    PRODUCT(144, 72, 73)
    PRODUCT(160, 80, 81)
    PRODUCT(176, 88, 89)
    PRODUCT(192, 96, 97)
    PRODUCT(208, 104, 105)
    PRODUCT(224, 112, 113)
    PRODUCT(240, 120, 121)
    PRODUCT(256, 128, 129)
}
#undef PRODUCT

// Close the group of the products begun so far.
__device__ __forceinline__ void multiply_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Wait until at most MOST_PENDING of the newest groups are under way: the others' shared memory may
// be written again.
template <int MOST_PENDING>
__device__ __forceinline__ void multiply_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(MOST_PENDING) : "memory");
}

// Wait for all, and have the sums. (Each is made to come behind the wait for the compiler, too.)
template <int SUMS>
__device__ __forceinline__ void multiply_wait(float (&d)[SUMS]) {
    multiply_wait<0>();
#pragma unroll
    for (int i = 0; i < SUMS; i++) asm volatile("" : "+f"(d[i])::"memory");
}

#endif
