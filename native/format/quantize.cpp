#include "format/quantize.h"

#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "format/dequantize.h"

namespace pg {

bool canDequantize(DType type) {
  switch (type) {
    case DType::i8: case DType::i16: case DType::i32: case DType::i64: return false;
    default: return dtypeInfo(type) != nullptr;
  }
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
    case DType::f32: if (n > 0) std::memcpy(dst, src, size_t(n) * sizeof(float)); return;
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
    case DType::i8: case DType::i16: case DType::i32: case DType::i64: break;
  }
  fail(Code::internal, "Type ", dtypeName(type), " holds no floating-point data");
}

}  // namespace pg
