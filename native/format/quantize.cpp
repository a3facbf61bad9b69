#include "format/quantize.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/finite.h"
#include "base/half.h"
#include "format/dequantize.h"
#include "format/quantize_blocks.h"
#include "format/quantize_search.h"

namespace pg {

bool canQuantize(DType type) {
  const DTypeInfo* info = dtypeInfo(type);
  return info && info->written;
}

bool canDequantize(DType type) {
  const DTypeInfo* info = dtypeInfo(type);
  return info && info->weights;
}

void dequantizeRow(DType type, const void* src, float* dst, int64_t n) {
  const auto plain = [&](auto element, auto convert) {
    // copied, since a row in a file need not be aligned for its type
    const auto* bytes = static_cast<const uint8_t*>(src);
    for (int64_t i = 0; i < n; ++i) {
      std::memcpy(&element, bytes + size_t(i) * sizeof element, sizeof element);
      dst[i] = convert(element);
    }
  };
  switch (type) {
    case DType::f32:
      if (n > 0) std::memcpy(dst, src, size_t(n) * sizeof(float));
      return;
    case DType::f16: return plain(uint16_t(), f16ToF32);
    case DType::bf16: return plain(uint16_t(), bf16ToF32);
    case DType::f64: return plain(double(), [](double v) { return float(v); });
    case DType::q4_0: return dequantize(static_cast<const BlockQ4_0*>(src), dst, n);
    case DType::q4_1: return dequantize(static_cast<const BlockQ4_1*>(src), dst, n);
    case DType::q5_0: return dequantize(static_cast<const BlockQ5_0*>(src), dst, n);
    case DType::q5_1: return dequantize(static_cast<const BlockQ5_1*>(src), dst, n);
    case DType::q8_0: return dequantize(static_cast<const BlockQ8_0*>(src), dst, n);
    case DType::q2_k: return dequantize(static_cast<const BlockQ2K*>(src), dst, n);
    case DType::q3_k: return dequantize(static_cast<const BlockQ3K*>(src), dst, n);
    case DType::q4_k: return dequantize(static_cast<const BlockQ4K*>(src), dst, n);
    case DType::q5_k: return dequantize(static_cast<const BlockQ5K*>(src), dst, n);
    case DType::q6_k: return dequantize(static_cast<const BlockQ6K*>(src), dst, n);
    case DType::iq2_xxs: return dequantize(static_cast<const BlockIQ2XXS*>(src), dst, n);
    case DType::iq2_xs: return dequantize(static_cast<const BlockIQ2XS*>(src), dst, n);
    case DType::iq2_s: return dequantize(static_cast<const BlockIQ2S*>(src), dst, n);
    case DType::iq3_xxs: return dequantize(static_cast<const BlockIQ3XXS*>(src), dst, n);
    case DType::iq3_s: return dequantize(static_cast<const BlockIQ3S*>(src), dst, n);
    case DType::iq1_s: return dequantize(static_cast<const BlockIQ1S*>(src), dst, n);
    case DType::iq1_m: return dequantize(static_cast<const BlockIQ1M*>(src), dst, n);
    case DType::iq4_nl: return dequantize(static_cast<const BlockIQ4NL*>(src), dst, n);
    case DType::iq4_xs: return dequantize(static_cast<const BlockIQ4XS*>(src), dst, n);
    case DType::tq1_0: return dequantize(static_cast<const BlockTQ1_0*>(src), dst, n);
    case DType::tq2_0: return dequantize(static_cast<const BlockTQ2_0*>(src), dst, n);
    case DType::mxfp4: return dequantize(static_cast<const BlockMXFP4*>(src), dst, n);
    case DType::nvfp4: return dequantize(static_cast<const BlockNVFP4*>(src), dst, n);
    case DType::q1_0: return dequantize(static_cast<const BlockQ1_0*>(src), dst, n);
    case DType::q2_0: return dequantize(static_cast<const BlockQ2_0*>(src), dst, n);
    case DType::i8:
    case DType::i16:
    case DType::i32:
    case DType::i64: break;
  }
  fail(Code::internal, "Type ", dtypeName(type), " holds no floating-point data");
}

namespace {

// Chunks of whole blocks that stay in the first-level cache with their weights.
constexpr int64_t kChunk = 1024;

float largestFinite(const float* x, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i)
    if (std::isfinite(x[i]) && std::fabs(x[i]) > largest) largest = std::fabs(x[i]);
  return largest;
}

// Plain types have no scale that a NaN could spoil: every value is converted as it is.
void convertRow(DType type, const float* x, void* dst, int64_t n) {
  if (type == DType::f32) {
    if (n > 0) std::memcpy(dst, x, size_t(n) * sizeof(float));
    return;
  }
  auto* out = static_cast<uint16_t*>(dst);
  if (type == DType::f16)
    for (int64_t i = 0; i < n; ++i) out[i] = f32ToF16(x[i]);
  else
    for (int64_t i = 0; i < n; ++i) out[i] = f32ToBf16(x[i]);
}

template <class Block>
void quantizeBlocks(const float* x, const float* w, void* dst, int64_t n) {
  quantize(x, w, static_cast<Block*>(dst), n);
}

void quantizeChunk(DType type, const float* x, const float* w, void* dst, int64_t n) {
  switch (type) {
    case DType::q4_0: return quantizeBlocks<BlockQ4_0>(x, w, dst, n);
    case DType::q4_1: return quantizeBlocks<BlockQ4_1>(x, w, dst, n);
    case DType::q5_0: return quantizeBlocks<BlockQ5_0>(x, w, dst, n);
    case DType::q5_1: return quantizeBlocks<BlockQ5_1>(x, w, dst, n);
    case DType::q8_0: return quantizeBlocks<BlockQ8_0>(x, w, dst, n);
    case DType::q2_k: return quantizeBlocks<BlockQ2K>(x, w, dst, n);
    case DType::q3_k: return quantizeBlocks<BlockQ3K>(x, w, dst, n);
    case DType::q4_k: return quantizeBlocks<BlockQ4K>(x, w, dst, n);
    case DType::q5_k: return quantizeBlocks<BlockQ5K>(x, w, dst, n);
    case DType::q6_k: return quantizeBlocks<BlockQ6K>(x, w, dst, n);
    case DType::iq4_nl: return quantizeBlocks<BlockIQ4NL>(x, w, dst, n);
    case DType::iq4_xs: return quantizeBlocks<BlockIQ4XS>(x, w, dst, n);
    default: fail(Code::modelUnsupported, "Weights cannot be quantized to ", dtypeName(type));
  }
}

}  // namespace

void quantizeRow(DType type, const float* src, void* dst, int64_t n, const float* importance) {
  const DTypeInfo* info = dtypeInfo(type);
  if (!info || !canQuantize(type)) fail(Code::modelUnsupported, "Weights cannot be quantized to ", dtypeName(type));
  if (n % info->block)
    fail(Code::internal, "A row of ", n, " values cannot be ", info->name, ", whose blocks hold ", info->block);

  if (!info->quantized) return convertRow(type, src, dst, n);

  const bool clean = allFinite({src, size_t(n)});
  const float largest = clean ? kLargest : std::min(largestFinite(src, n), kLargest);
  // weights far below the mean would leave whole groups undecided
  float least = 0, most = 0;
  if (importance) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i)
      if (importance[i] > 0 && importance[i] < 1e30f) sum += importance[i];
    most = float(sum / double(n > 0 ? n : 1));
    least = most * 1e-4f;
  }
  float values[kChunk], weights[kChunk];
  for (float& w : weights) w = 1;
  auto* out = static_cast<uint8_t*>(dst);
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t count = n - begin < kChunk ? n - begin : kChunk;
    for (int64_t i = 0; i < count; ++i) {
      const float x = src[begin + i];
      values[i] = clampTo(x == x ? x : 0.0f, -largest, largest);
    }
    // relative to the mean, so that products with values stay in range
    if (most > 0)
      for (int64_t i = 0; i < count; ++i) {
        const float w = importance[begin + i];
        weights[i] = (w > least && w < 1e30f ? w : least) / most;
      }
    quantizeChunk(type, values, weights, out + bytesFor(type, begin), count);
  }
}

}  // namespace pg
