#pragma once
// Row kernels: one table per instruction set, chosen once per device. Kernels know pointers and sizes, nothing else;
// sizes are in values unless said otherwise. Every entry has its plain version in kernels_scalar.cpp.
#include <stdint.h>

#include "base/dtype.h"

namespace pg {

struct Kernels {
  const char* isa;

  // sum of a[i] * b[i]
  float (*dot)(const float* a, const float* b, int64_t n);
  // y[i] += s * x[i]
  void (*axpy)(float* y, const float* x, float s, int64_t n);
  // y[i] *= s
  void (*scale)(float* y, float s, int64_t n);
  // y[i] += x[i]
  void (*add)(float* y, const float* x, int64_t n);
  float (*max)(const float* x, int64_t n);
  // x[i] = exp(x[i] - shift); returns the sum
  float (*expSum)(float* x, float shift, int64_t n);
  // x[i] = cap * tanh(x[i] / cap)
  void (*softcap)(float* x, float cap, int64_t n);
  // x[i] = gelu_tanh(x[i])
  void (*gelu)(float* x, int64_t n);
  // out[i] = gelu_tanh(gate[i]) * up[i]; out may be gate
  void (*geluMul)(float* out, const float* gate, const float* up, int64_t n);
  // out = x / rms(x) * weight, or out += that; out may be x
  void (*rmsNorm)(float* out, const float* x, const float* weight, float eps, bool add, int64_t n);
  void (*layerNorm)(float* out, const float* x, const float* weight, const float* bias, float eps, int64_t n);
  // x[i], x[i + half] rotated by angle i: cosines[half], sines[half]
  void (*rope)(float* x, const float* cosines, const float* sines, int64_t half);
  // n values of a cache type (f32, f16, q8_0) or f16/bf16 weights to f32 and back
  void (*toF32)(DType type, const void* src, float* dst, int64_t n);
  void (*fromF32)(DType type, const float* src, void* dst, int64_t n);
};

extern const Kernels kKernelsScalar;

}  // namespace pg
