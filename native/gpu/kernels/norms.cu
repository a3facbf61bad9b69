// A group of threads works on a row. out may be x: the sums are complete before the first value is written.
#include "gpu/kernels/common.h"

KERNELS_BEGIN

CONSTANT uint32_t kNormThreads = 256;
CONSTANT uint32_t kNormWarps = kNormThreads / kWarp;

// Sums over a row by all threads of its group
struct RowSums {
  Place at;
  uint32_t n;
  SHARED float* part;

  __device__ float values(GLOBAL const float* x) const {
    float sum = 0;
    for (uint32_t c = at.index; c < n; c += kNormThreads) sum += x[c];
    return blockSum<kNormThreads>(at, sum, part);
  }
  // (x - mean)^2
  __device__ float squares(GLOBAL const float* x, float mean) const {
    float sum = 0;
    for (uint32_t c = at.index; c < n; c += kNormThreads) sum += (x[c] - mean) * (x[c] - mean);
    return blockSum<kNormThreads>(at, sum, part);
  }
  __device__ float products(GLOBAL const float* x, GLOBAL const float* y) const {
    float sum = 0;
    for (uint32_t c = at.index; c < n; c += kNormThreads) sum += x[c] * y[c];
    return blockSum<kNormThreads>(at, sum, part);
  }
  // x y (z - mean) factor
  __device__ float products(GLOBAL const float* x, GLOBAL const float* y, GLOBAL const float* z, float mean,
                            float factor) const {
    float sum = 0;
    for (uint32_t c = at.index; c < n; c += kNormThreads) sum += x[c] * y[c] * (z[c] - mean) * factor;
    return blockSum<kNormThreads>(at, sum, part);
  }
};

// out = x / rms(x) * weight; add: out += that
KERNEL(kNormThreads, rms_norm, (RowArgs, float* out, const float* x, const float* weight)) {
  TG_ARRAY(float, part, kNormWarps);
  const Place at = PLACE;
  GLOBAL const float* in = x + size_t(at.x) * a.yStride;
  GLOBAL float* to = out + size_t(at.x) * a.xStride;
  const RowSums sums{at, a.cols, part};
  const float factor = 1.0f / sqrtf(sums.squares(in, 0) / float(a.cols) + a.number);
  for (uint32_t c = at.index; c < a.cols; c += kNormThreads) {
    const float y = in[c] * factor * weight[c];
    to[c] = a.add ? to[c] + y : y;
  }
}

KERNEL(kNormThreads, layer_norm, (RowArgs, float* out, const float* x, const float* weight, const float* bias)) {
  TG_ARRAY(float, part, kNormWarps);
  const Place at = PLACE;
  GLOBAL const float* in = x + size_t(at.x) * a.yStride;
  GLOBAL float* to = out + size_t(at.x) * a.xStride;
  const RowSums sums{at, a.cols, part};
  const float n = float(a.cols), mean = sums.values(in) / n;
  const float factor = 1.0f / sqrtf(sums.squares(in, mean) / n + a.number);
  for (uint32_t c = at.index; c < a.cols; c += kNormThreads) to[c] = (in[c] - mean) * factor * weight[c] + bias[c];
}

// With y = x f w, f = 1 / rms(x): dx = f (dy w - x f^2 mean(dy w x)); dx may be dy.
KERNEL(kNormThreads, rms_norm_grad, (RowArgs, float* dx, const float* dy, const float* x, const float* weight)) {
  TG_ARRAY(float, part, kNormWarps);
  const Place at = PLACE;
  GLOBAL const float *d = dy + size_t(at.x) * a.yStride, *in = x + size_t(at.x) * a.zStride;
  GLOBAL float* to = dx + size_t(at.x) * a.xStride;
  const RowSums sums{at, a.cols, part};
  const float n = float(a.cols), squares = sums.squares(in, 0), along = sums.products(d, weight, in, 0, 1);
  const float factor = 1.0f / sqrtf(squares / n + a.number), back = along / n * factor * factor;
  for (uint32_t c = at.index; c < a.cols; c += kNormThreads) {
    const float g = factor * (d[c] * weight[c] - in[c] * back);
    to[c] = a.add ? to[c] + g : g;
  }
}

// With z = (x - mean) f, y = z w + b: dx = f (dy w - mean(dy w) - z mean(dy w z))
KERNEL(kNormThreads, layer_norm_grad, (RowArgs, float* dx, const float* dy, const float* x, const float* weight)) {
  TG_ARRAY(float, part, kNormWarps);
  const Place at = PLACE;
  GLOBAL const float *d = dy + size_t(at.x) * a.yStride, *in = x + size_t(at.x) * a.zStride;
  GLOBAL float* to = dx + size_t(at.x) * a.xStride;
  const RowSums sums{at, a.cols, part};
  const float n = float(a.cols), mean = sums.values(in) / n;
  const float factor = 1.0f / sqrtf(sums.squares(in, mean) / n + a.number);
  const float level = sums.products(d, weight) / n, along = sums.products(d, weight, in, mean, factor) / n;
  for (uint32_t c = at.index; c < a.cols; c += kNormThreads) {
    const float g = factor * (d[c] * weight[c] - level - (in[c] - mean) * factor * along);
    to[c] = a.add ? to[c] + g : g;
  }
}

KERNELS_END
