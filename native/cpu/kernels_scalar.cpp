// The reference of every kernel: plain loops, sums in sixteen lanes so that the order is fixed and the baseline
// compiler can vectorize them.
#include <math.h>

#include "cpu/kernels.h"
#include "format/quantize.h"

namespace pg {
namespace {

constexpr int64_t kLanes = 16;

float sumLanes(const float* lanes) {
  float half[8];
  for (int i = 0; i < 8; ++i) half[i] = lanes[i] + lanes[i + 8];
  for (int i = 0; i < 4; ++i) half[i] += half[i + 4];
  return (half[0] + half[2]) + (half[1] + half[3]);
}

float dot(const float* a, const float* b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += a[i + j] * b[i + j];
  for (int64_t j = 0; i < n; ++i, ++j) lanes[j] += a[i] * b[i];
  return sumLanes(lanes);
}

float sum(const float* x, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lanes[j] += x[i + j];
  for (int64_t j = 0; i < n; ++i, ++j) lanes[j] += x[i];
  return sumLanes(lanes);
}

void axpy(float* y, const float* x, float s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += s * x[i];
}

void scale(float* y, float s, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] *= s;
}

void add(float* y, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] += x[i];
}

float max(const float* x, int64_t n) {
  float m = -INFINITY;
  for (int64_t i = 0; i < n; ++i) m = x[i] > m ? x[i] : m;
  return m;
}

float expSum(float* x, float shift, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = expf(x[i] - shift);
  return sum(x, n);
}

void softcap(float* x, float cap, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = cap * tanhf(x[i] / cap);
}

float geluTanh(float x) {
  constexpr float kSqrt2OverPi = 0.7978845608028654f;
  return 0.5f * x * (1.0f + tanhf(kSqrt2OverPi * (x + 0.044715f * x * x * x)));
}

void gelu(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = geluTanh(x[i]);
}

void geluMul(float* out, const float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = geluTanh(gate[i]) * up[i];
}

void rmsNorm(float* out, const float* x, const float* weight, float eps, bool addTo, int64_t n) {
  const float factor = 1.0f / sqrtf(dot(x, x, n) / float(n) + eps);
  if (addTo)
    for (int64_t i = 0; i < n; ++i) out[i] += x[i] * factor * weight[i];
  else
    for (int64_t i = 0; i < n; ++i) out[i] = x[i] * factor * weight[i];
}

void layerNorm(float* out, const float* x, const float* weight, const float* bias, float eps, int64_t n) {
  const float mean = sum(x, n) / float(n);
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] += (x[i] - mean) * (x[i] - mean);
  const float factor = 1.0f / sqrtf(sumLanes(lanes) / float(n) + eps);
  for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - mean) * factor * weight[i] + bias[i];
}

void rope(float* x, const float* cosines, const float* sines, int64_t half) {
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cosines[i] - b * sines[i];
    x[i + half] = b * cosines[i] + a * sines[i];
  }
}

void toF32(DType type, const void* src, float* dst, int64_t n) { dequantizeRow(type, src, dst, n); }
void fromF32(DType type, const float* src, void* dst, int64_t n) { quantizeRow(type, src, dst, n); }

}  // namespace

const Kernels kKernelsScalar = {
    .isa = "scalar",
    .dot = dot,
    .axpy = axpy,
    .scale = scale,
    .add = add,
    .max = max,
    .expSum = expSum,
    .softcap = softcap,
    .gelu = gelu,
    .geluMul = geluMul,
    .rmsNorm = rmsNorm,
    .layerNorm = layerNorm,
    .rope = rope,
    .toF32 = toF32,
    .fromF32 = fromF32,
};

}  // namespace pg
