// A block of threads works on a row. out may be x: the sums are complete before the first value is written.
#include "common.cuh"

namespace pg::gpu {

constexpr uint32_t kNormThreads = 256;
constexpr uint32_t kNormWarps = kNormThreads / kWarp;

template <class Value>
__device__ inline float sumOver(uint32_t n, float* part, const Value& value) {
  float sum = 0;
  for (uint32_t c = threadIdx.x; c < n; c += kNormThreads) sum += value(c);
  return blockSum<kNormThreads>(sum, part);
}

// out = x / rms(x) * weight; add: out += that
KERNEL(kNormThreads, rms_norm, (RowArgs a, float* out, const float* x, const float* weight)) {
  TG_ARRAY(float, part, kNormWarps);
  const float* in = x + size_t(blockIdx.x) * a.yStride;
  float* to = out + size_t(blockIdx.x) * a.xStride;
  const float squares = sumOver(a.cols, part, [&](uint32_t c) { return in[c] * in[c]; });
  const float factor = 1.0f / sqrtf(squares / float(a.cols) + a.number);
  for (uint32_t c = threadIdx.x; c < a.cols; c += kNormThreads) {
    const float y = in[c] * factor * weight[c];
    to[c] = a.add ? to[c] + y : y;
  }
}

KERNEL(kNormThreads, layer_norm, (RowArgs a, float* out, const float* x, const float* weight, const float* bias)) {
  TG_ARRAY(float, part, kNormWarps);
  const float* in = x + size_t(blockIdx.x) * a.yStride;
  float* to = out + size_t(blockIdx.x) * a.xStride;
  const float n = float(a.cols), mean = sumOver(a.cols, part, [&](uint32_t c) { return in[c]; }) / n;
  const float squares = sumOver(a.cols, part, [&](uint32_t c) { return (in[c] - mean) * (in[c] - mean); });
  const float factor = 1.0f / sqrtf(squares / n + a.number);
  for (uint32_t c = threadIdx.x; c < a.cols; c += kNormThreads) to[c] = (in[c] - mean) * factor * weight[c] + bias[c];
}

// With y = x f w, f = 1 / rms(x): dx = f (dy w - x f^2 mean(dy w x)); dx may be dy.
KERNEL(kNormThreads, rms_norm_grad, (RowArgs a, float* dx, const float* dy, const float* x, const float* weight)) {
  TG_ARRAY(float, part, kNormWarps);
  const float *d = dy + size_t(blockIdx.x) * a.yStride, *in = x + size_t(blockIdx.x) * a.zStride;
  float* to = dx + size_t(blockIdx.x) * a.xStride;
  const float n = float(a.cols);
  const float squares = sumOver(a.cols, part, [&](uint32_t c) { return in[c] * in[c]; });
  const float along = sumOver(a.cols, part, [&](uint32_t c) { return d[c] * weight[c] * in[c]; });
  const float factor = 1.0f / sqrtf(squares / n + a.number), back = along / n * factor * factor;
  for (uint32_t c = threadIdx.x; c < a.cols; c += kNormThreads) {
    const float g = factor * (d[c] * weight[c] - in[c] * back);
    to[c] = a.add ? to[c] + g : g;
  }
}

// With z = (x - mean) f, y = z w + b: dx = f (dy w - mean(dy w) - z mean(dy w z))
KERNEL(kNormThreads, layer_norm_grad, (RowArgs a, float* dx, const float* dy, const float* x, const float* weight)) {
  TG_ARRAY(float, part, kNormWarps);
  const float *d = dy + size_t(blockIdx.x) * a.yStride, *in = x + size_t(blockIdx.x) * a.zStride;
  float* to = dx + size_t(blockIdx.x) * a.xStride;
  const float n = float(a.cols), mean = sumOver(a.cols, part, [&](uint32_t c) { return in[c]; }) / n;
  const float squares = sumOver(a.cols, part, [&](uint32_t c) { return (in[c] - mean) * (in[c] - mean); });
  const float factor = 1.0f / sqrtf(squares / n + a.number);
  const float level = sumOver(a.cols, part, [&](uint32_t c) { return d[c] * weight[c]; }) / n;
  const float along = sumOver(a.cols, part, [&](uint32_t c) { return d[c] * weight[c] * (in[c] - mean) * factor; }) / n;
  for (uint32_t c = threadIdx.x; c < a.cols; c += kNormThreads) {
    const float g = factor * (d[c] * weight[c] - level - (in[c] - mean) * factor * along);
    to[c] = a.add ? to[c] + g : g;
  }
}

}  // namespace pg::gpu
