// CUDA C++ as the emulator gives it to a .cu file: included before it, under g++ or clang++.
#pragma once

// Before anything below renames what they declare.
#include <assert.h>
#include <math.h>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "abi.hpp"

#define __CUDACC__ 1
#define __CUDA_ARCH__ 800
#define CONV_KERNEL_LAB_EMULATOR 1

// Python finds kernels and dynamic arrays by these attributes, which compilers leave alone.
#define __global__ __attribute__((emulator_kernel))
#define __launch_bounds__(...) __attribute__((emulator_bounds(__VA_ARGS__)))
#define __shared__ __attribute__((emulator_shared)) thread_local

#define __device__
#define __host__
#define __constant__
#define __managed__
#define __grid_constant__
#define __restrict__ __restrict
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __noinline__ __attribute__((noinline))

#include "vectors.hpp"
#include "registry.hpp"
#include "math.hpp"
#include "intrinsics.hpp"
#include "memory.hpp"
#include "atomics.hpp"
#include "threads.hpp"
#include "tensor.hpp"
#include "warpgroup.hpp"
