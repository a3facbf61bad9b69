#pragma once
// The few words that our CUDA kernels use beyond CUDA's own, so that they also compile for the emulator.
//   KERNEL(maxThreads, name, (Args args, const float* x, float* y)) { ... }   found by name; args, then its buffers
//   TG_ARRAY(float, partial, 32);       an array that the group shares
//   TG_DYNAMIC(float, tile);            the shared block whose size the launch says
//   mma16816F16, mma16816Bf16           c[16, 8] += a[16, 16] b[16, 8], registers laid out as PTX's mma.m16n8k16
#ifdef __CUDACC__
#include <cstdint>

#define KERNEL(maxThreads, name, parameters) extern "C" __global__ void __launch_bounds__(maxThreads) name parameters
#define TG_ARRAY(T, name, n) __shared__ alignas(16) T name[n]
#define TG_DYNAMIC(T, name)                                      \
  extern __shared__ __align__(16) unsigned char dynamicShared[]; \
  T* const name = reinterpret_cast<T*>(dynamicShared)

// compute_75 has products half as deep.
__device__ inline void mma16816F16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  for (int half = 0; half < 2; ++half)
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}
// Cards below compute capability 8.0 cannot: the host must not ask them to.
__device__ inline void mma16816Bf16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  asm volatile("trap;");
#endif
}
#else
#include "gpu/emulator/cuda_on_cpu.h"
#endif
