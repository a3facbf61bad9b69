#include "format/dequantize.h"

#include <cstring>

#include "base/half.h"

// Where a value is a product, the scales are multiplied first: the order decides the last bit.
namespace pg {

void dequantize(const BlockQ4_0* b, float* y, int64_t n) {
  for (; n > 0; n -= kBlock, y += kBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int i = 0; i < 16; ++i) {
      y[i] = float((b->qs[i] & 15) - 8) * d;
      y[i + 16] = float((b->qs[i] >> 4) - 8) * d;
    }
  }
}

void dequantize(const BlockQ4_1* b, float* y, int64_t n) {
  for (; n > 0; n -= kBlock, y += kBlock, ++b) {
    const float d = f16ToF32(b->d), m = f16ToF32(b->m);
    for (int i = 0; i < 16; ++i) {
      y[i] = float(b->qs[i] & 15) * d + m;
      y[i + 16] = float(b->qs[i] >> 4) * d + m;
    }
  }
}

void dequantize(const BlockQ5_0* b, float* y, int64_t n) {
  for (; n > 0; n -= kBlock, y += kBlock, ++b) {
    const float d = f16ToF32(b->d);
    uint32_t high;
    std::memcpy(&high, b->qh, 4);
    for (int i = 0; i < 16; ++i) {
      y[i] = float(int((b->qs[i] & 15) | (high >> i & 1) << 4) - 16) * d;
      y[i + 16] = float(int(b->qs[i] >> 4 | (high >> (i + 16) & 1) << 4) - 16) * d;
    }
  }
}

void dequantize(const BlockQ5_1* b, float* y, int64_t n) {
  for (; n > 0; n -= kBlock, y += kBlock, ++b) {
    const float d = f16ToF32(b->d), m = f16ToF32(b->m);
    uint32_t high;
    std::memcpy(&high, b->qh, 4);
    for (int i = 0; i < 16; ++i) {
      y[i] = float((b->qs[i] & 15) | (high >> i & 1) << 4) * d + m;
      y[i + 16] = float(b->qs[i] >> 4 | (high >> (i + 16) & 1) << 4) * d + m;
    }
  }
}

void dequantize(const BlockQ8_0* b, float* y, int64_t n) {
  for (; n > 0; n -= kBlock, y += kBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int i = 0; i < 32; ++i) y[i] = float(b->qs[i]) * d;
  }
}

void dequantize(const BlockQ2K* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d), dmin = f16ToF32(b->dmin);
    for (int g = 0; g < 16; ++g, y += 16) {
      const float scale = d * float(b->scales[g] & 15), min = dmin * float(b->scales[g] >> 4);
      const uint8_t* q = b->qs + 32 * (g / 8) + 16 * (g % 2);
      const int shift = 2 * (g % 8 / 2);
      for (int i = 0; i < 16; ++i) y[i] = scale * float(q[i] >> shift & 3) - min;
    }
  }
}

void dequantize(const BlockQ3K* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int g = 0; g < 16; ++g, y += 16) {
      const float scale = d * float(unpackScaleQ3K(b->scales, g) - 32);
      const uint8_t* q = b->qs + 32 * (g / 8) + 16 * (g % 2);
      const uint8_t* h = b->hmask + 16 * (g % 2);
      const int shift = 2 * (g % 8 / 2), bit = g / 2;
      for (int i = 0; i < 16; ++i) y[i] = scale * float((q[i] >> shift & 3) - (h[i] >> bit & 1 ? 0 : 4));
    }
  }
}

void dequantize(const BlockQ4K* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d), dmin = f16ToF32(b->dmin);
    for (int g = 0; g < 8; ++g, y += 32) {
      int scale, min;
      unpackScaleMin(b->scales, g, scale, min);
      const float dg = d * float(scale), mg = dmin * float(min);
      const uint8_t* q = b->qs + 32 * (g / 2);
      for (int i = 0; i < 32; ++i) y[i] = dg * float(g % 2 ? q[i] >> 4 : q[i] & 15) - mg;
    }
  }
}

void dequantize(const BlockQ5K* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d), dmin = f16ToF32(b->dmin);
    for (int g = 0; g < 8; ++g, y += 32) {
      int scale, min;
      unpackScaleMin(b->scales, g, scale, min);
      const float dg = d * float(scale), mg = dmin * float(min);
      const uint8_t* q = b->qs + 32 * (g / 2);
      for (int i = 0; i < 32; ++i) y[i] = dg * float((g % 2 ? q[i] >> 4 : q[i] & 15) + (b->qh[i] >> g & 1) * 16) - mg;
    }
  }
}

void dequantize(const BlockQ6K* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int g = 0; g < 16; ++g, y += 16) {
      const float scale = d * float(b->scales[g]);
      const int half = g / 8, quarter = g % 8 / 2, first = 16 * (g % 2);
      const uint8_t* low = b->ql + 64 * half + 32 * (quarter % 2) + first;
      const uint8_t* high = b->qh + 32 * half + first;
      for (int i = 0; i < 16; ++i)
        y[i] = scale * float(((quarter < 2 ? low[i] & 15 : low[i] >> 4) | (high[i] >> (2 * quarter) & 3) << 4) - 32);
    }
  }
}

void dequantize(const BlockIQ4NL* b, float* y, int64_t n) {
  for (; n > 0; n -= kBlock, y += kBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int i = 0; i < 16; ++i) {
      y[i] = d * float(kIq4Values[b->qs[i] & 15]);
      y[i + 16] = d * float(kIq4Values[b->qs[i] >> 4]);
    }
  }
}

void dequantize(const BlockIQ4XS* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int g = 0; g < 8; ++g, y += 32) {
      const int scale = (b->scales_l[g / 2] >> (4 * (g % 2)) & 15) | (b->scales_h >> (2 * g) & 3) << 4;
      const float dg = d * float(scale - 32);
      for (int i = 0; i < 16; ++i) {
        y[i] = dg * float(kIq4Values[b->qs[16 * g + i] & 15]);
        y[i + 16] = dg * float(kIq4Values[b->qs[16 * g + i] >> 4]);
      }
    }
  }
}

void dequantize(const BlockTQ1_0* b, float* y, int64_t n) {
  // Multiplying by 3^k modulo 256 moves digit k of the fraction to the front; times 3 / 256 is its value.
  static constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  const auto digit = [](uint8_t byte, int k) { return float(int(uint8_t(byte * kPowers[k]) * 3 >> 8) - 1); };
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int k = 0; k < 5; ++k)
      for (int i = 0; i < 32; ++i) *y++ = digit(b->qs[i], k) * d;
    for (int k = 0; k < 5; ++k)
      for (int i = 32; i < 48; ++i) *y++ = digit(b->qs[i], k) * d;
    for (int k = 0; k < 4; ++k)
      for (int i = 0; i < 4; ++i) *y++ = digit(b->qh[i], k) * d;
  }
}

void dequantize(const BlockTQ2_0* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int half = 0; half < 2; ++half)
      for (int k = 0; k < 4; ++k)
        for (int i = 0; i < 32; ++i) *y++ = float((b->qs[32 * half + i] >> (2 * k) & 3) - 1) * d;
  }
}

void dequantize(const BlockMXFP4* b, float* y, int64_t n) {
  for (; n > 0; n -= kBlock, y += kBlock, ++b) {
    // half the scale, 2^(e - 128), because the table is doubled; the two smallest are subnormal
    const float d = bitsToFloat(b->e < 2 ? uint32_t(0x00200000) << b->e : uint32_t(b->e - 1) << 23);
    for (int i = 0; i < 16; ++i) {
      y[i] = float(kE2m1Doubled[b->qs[i] & 15]) * d;
      y[i + 16] = float(kE2m1Doubled[b->qs[i] >> 4]) * d;
    }
  }
}

void dequantize(const BlockNVFP4* b, float* y, int64_t n) {
  for (; n > 0; n -= kBlock64, ++b) {
    for (int g = 0; g < 4; ++g, y += 16) {
      // unsigned E4M3, halved as in MXFP4; 0x7f is NaN in the standard and read as 0 here
      const int code = b->d[g] & 127, exponent = code >> 3, mantissa = code & 7;
      const float d = code == 127 ? 0.0f
                      : exponent  ? bitsToFloat(uint32_t(exponent + 119) << 23 | uint32_t(mantissa) << 20)
                                  : float(mantissa) * 0.0009765625f;
      for (int i = 0; i < 8; ++i) {
        y[i] = float(kE2m1Doubled[b->qs[8 * g + i] & 15]) * d;
        y[i + 8] = float(kE2m1Doubled[b->qs[8 * g + i] >> 4]) * d;
      }
    }
  }
}

void dequantize(const BlockQ1_0* b, float* y, int64_t n) {
  for (; n > 0; n -= kBlock128, y += kBlock128, ++b) {
    const float d = f16ToF32(b->d);
    for (int i = 0; i < kBlock128; ++i) y[i] = b->qs[i / 8] >> (i % 8) & 1 ? d : -d;
  }
}

void dequantize(const BlockQ2_0* b, float* y, int64_t n) {
  for (; n > 0; n -= kBlock64, y += kBlock64, ++b) {
    const float d = f16ToF32(b->d);
    for (int i = 0; i < kBlock64; ++i) y[i] = float((b->qs[i / 4] >> (2 * (i % 4)) & 3) - 1) * d;
  }
}

}  // namespace pg
