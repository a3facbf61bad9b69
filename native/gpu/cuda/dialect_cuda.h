#pragma once
// The words of kernels/dialect.h in CUDA, and as C++ for the emulator; no CUDA header is needed.
#include <cstdint>

#include "gpu/gpu_args.h"

#define PG_PARAMETERS(Args, ...) (Args a, __VA_ARGS__)
#ifdef __CUDACC__
#define KERNEL(maxThreads, name, parameters) \
  extern "C" __global__ void __launch_bounds__(maxThreads) name PG_PARAMETERS parameters
#define TG_ARRAY(T, name, n) __shared__ alignas(16) T name[n]
// More than a kernel may have by itself: the launch says how many bytes.
#define TG_LARGE(T, name, n)                                     \
  extern __shared__ __align__(16) unsigned char dynamicShared[]; \
  T* const name = reinterpret_cast<T*>(dynamicShared)
#else
#include "gpu/emulator/cuda_on_cpu.h"
#endif

#define GLOBAL
#define SHARED
#define LOCAL
#define ARGS const
#define CONSTANT constexpr
#define PLACE \
  Place { threadIdx.x, blockDim.x, blockIdx.x, blockIdx.y, blockIdx.z, gridDim.x, gridDim.y }
// macros, so that the emulator tells their lines
#define groupBarrier() __syncthreads()
#define groupBarrierGlobal() __syncthreads()
#define warpBarrier() __syncwarp()
#define KERNELS_BEGIN namespace pg::gpu::on_cuda {
#define KERNELS_END }

KERNELS_BEGIN

template <class T>
__device__ inline T shuffleXor(T value, uint32_t bits) {
  return __shfl_xor_sync(0xffffffffu, value, int(bits));
}

// ---- numbers ----

__device__ inline float asFloat(uint32_t bits) { return __uint_as_float(bits); }
__device__ inline uint32_t asBits(float f) { return __float_as_uint(f); }

#ifdef __CUDACC__
__device__ inline float halfToFloat(uint32_t h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(uint16_t(h)));
  return f;
}
__device__ inline uint16_t floatToHalf(float f) {
  uint16_t h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}
#else
__device__ inline float halfToFloat(uint32_t h) { return pgHalfToFloat(h); }
__device__ inline uint16_t floatToHalf(float f) { return pgFloatToHalf(f); }
#endif

__device__ inline uint32_t packHalves(float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
#else
  return uint32_t(floatToHalf(first)) | uint32_t(floatToHalf(second)) << 16;
#endif
}

// a - b and a * b of both halves of a pair
__device__ inline uint32_t subtractHalves(uint32_t a, uint32_t b) {
#ifdef __CUDACC__
  uint32_t y;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
#else
  return packHalves(halfToFloat(a & 0xffff) - halfToFloat(b & 0xffff), halfToFloat(a >> 16) - halfToFloat(b >> 16));
#endif
}
__device__ inline uint32_t multiplyHalves(uint32_t a, uint32_t b) {
#ifdef __CUDACC__
  uint32_t y;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(y) : "r"(a), "r"(b));
  return y;
#else
  return packHalves(halfToFloat(a & 0xffff) * halfToFloat(b & 0xffff), halfToFloat(a >> 16) * halfToFloat(b >> 16));
#endif
}

struct alignas(16) Words4 {
  uint32_t x, y, z, w;
};

// 16 bytes at a multiple of 16
__device__ inline Words4 load16(const void* p) { return *static_cast<const Words4*>(p); }
__device__ inline Words4 loadShared16(const void* p) { return load16(p); }

struct Place {
  uint32_t index, threads;   // in its group
  uint32_t x, y, z;           // the group
  uint32_t groupsX, groupsY;
  __device__ uint32_t lane() const { return index % 32; }
  __device__ uint32_t warp() const { return index / 32; }
};

// ---- tensor cores: PTX's mma.m16n8k16 ----

__device__ inline uint32_t matrixRow(uint32_t lane) { return lane / 4; }
__device__ inline uint32_t matrixPair(uint32_t lane) { return lane % 4; }
CONSTANT uint32_t kPairBit = 1, kOtherPairBit = 2;

__device__ inline uint32_t matrixColumns(uint32_t pair, uint32_t) { return pair; }

__device__ inline void multiplyAddF16(float* c, const uint32_t* a, const uint32_t* b) {
#ifndef __CUDACC__
  mma16816F16(c, a, b);
#elif __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  // compute_75 has products half as deep
  for (int half = 0; half < 2; ++half)
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}

template <bool kBf16>
__device__ inline void multiplyAdd16(float* c, const uint32_t* a, const uint32_t* b) {
  if constexpr (!kBf16) return multiplyAddF16(c, a, b);
#ifndef __CUDACC__
  mma16816Bf16(c, a, b);
#elif __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  // these cards know f16 alone: weights are small numbers, and activations come scaled
  uint32_t a16[4], b16[2];
  for (int i = 0; i < 4; ++i) a16[i] = packHalves(asFloat(a[i] << 16), asFloat(a[i] & 0xffff0000));
  for (int i = 0; i < 2; ++i) b16[i] = packHalves(asFloat(b[i] << 16), asFloat(b[i] & 0xffff0000));
  multiplyAddF16(c, a16, b16);
#endif
}

KERNELS_END
