#pragma once
// f16 and bf16 <-> f32, round to nearest even, the reference for every vector version.
#include <cstdint>
#include <cstring>

namespace pg {

constexpr float kLargestHalf = 65504;  // the largest number of f16

static inline float bitsToFloat(uint32_t bits) {
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

static inline uint32_t floatToBits(float f) {
  uint32_t bits;
  memcpy(&bits, &f, 4);
  return bits;
}

static inline float f16ToF32(uint16_t h) {
  const uint32_t sign = uint32_t(h & 0x8000) << 16;
  const uint32_t exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
  if (exponent == 31) return bitsToFloat(sign | 0x7f800000 | (mantissa << 13));  // inf, NaN with its payload
  if (exponent) return bitsToFloat(sign | ((exponent + 112) << 23) | (mantissa << 13));
  // subnormal: mantissa * 2^-24, exact in f32
  const float magnitude = float(mantissa) * 5.9604644775390625e-8f;
  return bitsToFloat(sign | floatToBits(magnitude));
}

static inline uint16_t f32ToF16(float f) {
  const uint32_t bits = floatToBits(f);
  const uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00 | ((magnitude >> 13) & 0x3ff));  // NaN, made quiet
  if (magnitude >= 0x477ff000) return uint16_t(sign | 0x7c00);                               // rounds to infinity
  if (magnitude >= 0x38800000) {                                                             // normal
    const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    return uint16_t(sign | ((rounded - 0x38000000) >> 13));
  }
  // subnormal: adding 0.5 aligns the mantissa at 2^-24 and rounds to even in the addition
  const float aligned = bitsToFloat(magnitude) + 0.5f;
  return uint16_t(sign | (floatToBits(aligned) - 0x3f000000));
}

static inline float bf16ToF32(uint16_t h) { return bitsToFloat(uint32_t(h) << 16); }

static inline uint16_t f32ToBf16(float f) {
  const uint32_t bits = floatToBits(f);
  if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t((bits >> 16) | 64);  // NaN, made quiet
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace pg
