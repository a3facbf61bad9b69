// The reference of every kernel: plain loops, sums in sixteen lanes so that the order is fixed and the baseline
// compiler can vectorize them.
#include <math.h>
#include <string.h>

#include "base/half.h"
#include "cpu/kernels/common/kernels.h"
#include "format/blocks.h"
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

float softmaxStep(float* x, float factor, float cap, float* top, float* sum, int64_t n) {
  scale(x, factor, n);
  if (cap > 0) softcap(x, cap, n);
  const float most = max(x, n), newTop = most > *top ? most : *top;
  const float keep = expf(*top - newTop);
  *sum = *sum * keep + expSum(x, newTop, n);
  *top = newTop;
  return keep;
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

void finish(Epilogue kind, float* out, int64_t outStride, const Sums& y, int64_t n, int64_t tokens) {
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t i = 0; i < n; ++i) {
      float* to = out + t * outStride + i;
      const float a = y.acc[t * y.accStride + i] + (y.bias ? y.bias[i] : 0);
      switch (kind) {
        case Epilogue::store: *to = a; break;
        case Epilogue::gelu: *to = geluTanh(a); break;
        case Epilogue::add: *to += a; break;
        case Epilogue::geglu:
          *to = geluTanh(a) * (y.second[t * y.accStride + i] + (y.secondBias ? y.secondBias[i] : 0));
          break;
      }
    }
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

// ---- gradients ----

void rmsNormGrad(float* dx, const float* dy, const float* x, const float* weight, float eps, bool addTo, int64_t n) {
  const float factor = 1.0f / sqrtf(dot(x, x, n) / float(n) + eps);
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] += dy[i] * weight[i] * x[i];
  const float along = sumLanes(lanes) * factor * factor / float(n);
  for (int64_t i = 0; i < n; ++i) {
    const float d = (dy[i] * weight[i] - x[i] * along) * factor;
    dx[i] = addTo ? dx[i] + d : d;
  }
}

void layerNormGrad(float* dx, const float* dy, const float* x, const float* weight, float eps, bool addTo, int64_t n) {
  const float mean = sum(x, n) / float(n);
  float squares[kLanes] = {}, sums[kLanes] = {}, products[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) {
    const float centred = x[i] - mean, d = dy[i] * weight[i];
    squares[i % kLanes] += centred * centred;
    sums[i % kLanes] += d;
    products[i % kLanes] += d * centred;
  }
  const float factor = 1.0f / sqrtf(sumLanes(squares) / float(n) + eps);
  const float level = sumLanes(sums) / float(n), along = sumLanes(products) * factor * factor / float(n);
  for (int64_t i = 0; i < n; ++i) {
    const float d = (dy[i] * weight[i] - level - (x[i] - mean) * along) * factor;
    dx[i] = addTo ? dx[i] + d : d;
  }
}

// gelu_tanh(x) = x s(x) with a logistic s
float geluSlope(float x) {
  constexpr float kTwice = 2 * 0.7978845608028654f;
  const float e = expf(-kTwice * (x + 0.044715f * x * x * x)), s = 1 / (1 + e);
  return s + x * s * (1 - s) * kTwice * (1 + 3 * 0.044715f * x * x);
}

void geluGrad(float* d, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) d[i] *= geluSlope(x[i]);
}

void geluMulGrad(float* gate, float* up, const float* d, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float g = gate[i], u = up[i];
    gate[i] = d[i] * u * geluSlope(g);
    up[i] = d[i] * geluTanh(g);
  }
}

void softmaxGrad(float* d, const float* p, const float* x, float mean, float factor, float cap, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float t = cap > 0 ? tanhf(x[i] * factor / cap) : 0;
    d[i] = p[i] * (d[i] - mean) * factor * (1 - t * t);
  }
}

// In parts: the sum of a whole vocabulary would lose digits.
constexpr int64_t kSumPart = 4096;

float logSumExp(const float* x, int64_t n) {
  const float top = max(x, n);
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kSumPart) {
    float lanes[kLanes] = {};
    const int64_t end = n - begin < kSumPart ? n : begin + kSumPart;
    for (int64_t i = begin; i < end; ++i) lanes[i % kLanes] += expf(x[i] - top);
    total += double(sumLanes(lanes));
  }
  return float(double(top) + log(total));
}

void logSumExpGrad(float* z, float sum, float factor, float cap, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float t = cap > 0 ? z[i] / cap : 0;
    z[i] = expf(z[i] - sum) * factor * (1 - t * t);
  }
}

void toF32(DType type, const void* src, float* dst, int64_t n) { dequantizeRow(type, src, dst, n); }
void fromF32(DType type, const float* src, void* dst, int64_t n) { quantizeRow(type, src, dst, n); }

// ---- tiles: 8 rows x 4 tokens fit the registers of a baseline compiler ----

constexpr int64_t kTileRows = 8, kTileTokens = 4;

float weightAt(DType type, const uint8_t* row, int64_t c) {
  uint16_t half;
  if (type == DType::f32) {
    float f;
    memcpy(&f, row + 4 * c, 4);
    return f;
  }
  if (type == DType::q8_0) {
    const uint8_t* block = row + c / kBlock * kBytesQ8_0;
    memcpy(&half, block, 2);
    return float(int8_t(block[2 + c % kBlock])) * f16ToF32(half);
  }
  memcpy(&half, row + 2 * c, 2);
  return type == DType::f16 ? f16ToF32(half) : bf16ToF32(half);
}

void packRows(DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t column, int64_t k, float* panel) {
  for (int64_t c = 0; c < k; ++c)
    for (int64_t r = 0; r < kTileRows; ++r)
      panel[c * kTileRows + r] = r < rows ? weightAt(type, w + stride * size_t(r), column + c) : 0;
}

void packTokens(const float* x, int64_t stride, int64_t count, int64_t k, float* tokens) {
  for (int64_t c = 0; c < k; ++c)
    for (int64_t t = 0; t < kTileTokens; ++t) tokens[c * kTileTokens + t] = t < count ? x[t * stride + c] : 0;
}

void tile(float* out, int64_t stride, const float* panel, const float* tokens, int64_t k, bool addTo) {
  float acc[kTileTokens][kTileRows] = {};
  for (int64_t c = 0; c < k; ++c)
    for (int64_t t = 0; t < kTileTokens; ++t)
      for (int64_t r = 0; r < kTileRows; ++r) acc[t][r] += panel[c * kTileRows + r] * tokens[c * kTileTokens + t];
  for (int64_t t = 0; t < kTileTokens; ++t)
    for (int64_t r = 0; r < kTileRows; ++r) out[t * stride + r] = addTo ? out[t * stride + r] + acc[t][r] : acc[t][r];
}

void mix(float* out, int64_t stride, const float* keep, const float* p, DType type, const uint8_t* v, size_t vStride,
         int64_t keys, int64_t cols, int64_t tokens) {
  for (int64_t t = 0; t < tokens; ++t) {
    float* row = out + t * stride;
    for (int64_t c = 0; c < cols; ++c) row[c] *= keep[t];
    for (int64_t key = 0; key < keys; ++key) {
      const uint8_t* value = v + size_t(key) * vStride;
      if (type == DType::f32)
        for (int64_t c = 0; c < cols; ++c) row[c] += p[t * kTileGroup + key] * reinterpret_cast<const float*>(value)[c];
      else
        for (int64_t c = 0; c < cols; ++c) row[c] += p[t * kTileGroup + key] * weightAt(type, value, c);
    }
  }
}

void dotRows(DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t k, const float* x, int64_t xStride,
             int64_t count, float* out) {
  float few[kRowBlock];
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t t = 0; t < count; ++t) {
      const uint8_t* row = w + stride * size_t(r);
      if (type == DType::f32) {
        out[t * rows + r] = dot(reinterpret_cast<const float*>(row), x + t * xStride, k);
        continue;
      }
      float sum = 0;
      for (int64_t c = 0; c < k; c += kRowBlock) {
        const int64_t n = k - c < kRowBlock ? k - c : kRowBlock;
        for (int64_t i = 0; i < n; ++i) few[i] = weightAt(type, row, c + i);
        sum += dot(few, x + t * xStride + c, n);
      }
      out[t * rows + r] = sum;
    }
}

uint64_t read(const uint8_t* p, size_t n) {
  uint64_t lanes[8] = {};
  for (size_t i = 0; i < n; i += 64) {
    uint64_t words[8];
    memcpy(words, p + i, 64);
    for (int j = 0; j < 8; ++j) lanes[j] ^= words[j];
  }
  return lanes[0] ^ lanes[1] ^ lanes[2] ^ lanes[3] ^ lanes[4] ^ lanes[5] ^ lanes[6] ^ lanes[7];
}

}  // namespace

const Kernels kKernelsScalar = {
    .isa = "scalar",
    .dot = dot,
    .scale = scale,
    .add = add,
    .max = max,
    .expSum = expSum,
    .softmaxStep = softmaxStep,
    .softcap = softcap,
    .gelu = gelu,
    .geluMul = geluMul,
    .finish = finish,
    .rmsNorm = rmsNorm,
    .layerNorm = layerNorm,
    .rope = rope,
    .rmsNormGrad = rmsNormGrad,
    .layerNormGrad = layerNormGrad,
    .geluGrad = geluGrad,
    .geluMulGrad = geluMulGrad,
    .softmaxGrad = softmaxGrad,
    .logSumExp = logSumExp,
    .logSumExpGrad = logSumExpGrad,
    .toF32 = toF32,
    .fromF32 = fromF32,
    .tileRows = kTileRows,
    .tileTokens = kTileTokens,
    .packRows = packRows,
    .packTokens = packTokens,
    .tile = tile,
    .mix = mix,
    .panelBytes = 0,
    .tokenBytes = 0,
    .packRows8 = nullptr,   // quantized weights meet f32 activations here
    .packColumns8 = nullptr,
    .hasTile8 = nullptr,
    .packTokens8 = nullptr,
    .tile8 = nullptr,
    .levelBlockBytes = 0,
    .hasLevels = nullptr,
    .packLevels = nullptr,
    .packTokenLevels = nullptr,
    .tileLevels = nullptr,
    .packQueries16 = nullptr,   // attention is computed in f32
    .packKeys16 = nullptr,
    .packValues16 = nullptr,
    .scores16 = nullptr,
    .softmax16 = nullptr,
    .mix16 = nullptr,
    .dotRows = dotRows,
    .tokenBlockBytes = 0,
    .quantizeTokens = nullptr,
    .dotRows8 = nullptr,
    .hasDot8 = nullptr,
    .peak8 = nullptr,
    .read = read,
};

}  // namespace pg
