// Types, arguments, math functions and intrinsics.
#include <cuda_runtime.h>
#include <stdint.h>

#include "scaled.cuh"

struct Shape {
    int n, c;
    double scale;
    unsigned char flag;
};

extern "C" __global__ void by_value(const Shape shape, float4 v, bool flag, short s, double* out) {
    out[0] = shape.n;
    out[1] = shape.c;
    out[2] = shape.scale;
    out[3] = shape.flag;
    out[4] = v.x + 10 * v.y + 100 * v.z + 1000 * v.w;
    out[5] = flag;
    out[6] = s;
}

extern "C" __global__ void scalars(int i, unsigned u, long long l, float f, double d, double* out,
                                   const int* nothing) {
    out[0] = i;
    out[1] = u;
    out[2] = l;
    out[3] = f;
    out[4] = d;
    out[5] = nothing == nullptr;
    out[6] = scaled(2.0f);
}

extern "C" __global__ void layouts(int* out) {
    int at = 0;
#define LAYOUT(T)          \
    out[at++] = sizeof(T); \
    out[at++] = alignof(T);
#define LAYOUTS(T) LAYOUT(T##1) LAYOUT(T##2) LAYOUT(T##3) LAYOUT(T##4)
    LAYOUTS(char)
    LAYOUTS(ushort)
    LAYOUTS(int)
    LAYOUTS(longlong)
    LAYOUTS(float)
    LAYOUTS(double)
    LAYOUT(dim3)
}

extern "C" __global__ void vectors(const float4* __restrict__ x, float2* __restrict__ y) {
    float4 v = __ldg(&x[threadIdx.x]);
    __stcg(&y[threadIdx.x], make_float2(v.x + v.y, v.z + v.w));
}

extern "C" __global__ void single_math(const float* x, float* out, int n) {
    int i = threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    float* o = out + i * 16;
    o[0] = sqrtf(v);
    o[1] = rsqrtf(v);
    o[2] = __expf(v);
    o[3] = fmaf(v, v, 1.0f);
    o[4] = __fmaf_rn(v, 2.0f, v);
    o[5] = __fadd_rn(__fmul_rn(v, v), 1.0f);
    o[6] = fmaxf(v, 1.0f);
    o[7] = max(v, 1.0f) + min(3, 4) + max(3u, 4u);
    o[8] = tanhf(v);
    o[9] = isnan(v) + 2 * isinf(v);
    o[10] = __fdividef(v, 3.0f);
    o[11] = __saturatef(v);
    o[12] = powf(v, 1.5f);
    o[13] = floorf(v) + ceilf(v) + fabsf(-v);
    o[14] = __logf(v);
    o[15] = (float)pow((double)v, 2.0) + (float)rsqrt(4.0);
}

extern "C" __global__ void integers(int* out) {
    int at = 0;
    out[at++] = __popc(0xF0F0u);
    out[at++] = __clz(1);
    out[at++] = __clz(0);
    out[at++] = __ffs(8);
    out[at++] = __brev(1u) == 0x80000000u;
    out[at++] = __mul24(-3, 5);
    out[at++] = __umulhi(0x80000000u, 4u);
    out[at++] = __float_as_int(1.0f);
    out[at++] = __int_as_float(0x40000000) == 2.0f;
    out[at++] = __byte_perm(0x33221100, 0x77665544, 0x7410);
    out[at++] = __float2int_rn(2.5f);
    out[at++] = __float2int_rz(-2.7f);
    out[at++] = __float2int_ru(2.1f);
    out[at++] = __float2int_rd(1e20f);
    out[at++] = __popcll(~0ULL);
    out[at++] = __dp4a(0x01020304, 0x01010101, 5);
    out[at++] = __funnelshift_l(0x80000000u, 1u, 1);
    out[at++] = clock64() != 0;
    int sum = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) sum += i;
    out[at++] = sum;
#ifdef __CUDA_ARCH__
    out[at++] = __CUDA_ARCH__;
#endif
}
