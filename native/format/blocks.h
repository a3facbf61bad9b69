#pragma once
// Blocks of the quantized types as they lie in a file: packed, little-endian, no padding. Kernels read them in place.
// Every struct has alignment 1 or 2 only; f16 scales are stored as uint16_t (base/half.h converts them).
//
// In the comments x[i] is value i of the block, and "low/high" mean the lower/upper four bits of a byte.
#include <cstdint>

#include "base/dtype.h"

namespace pg {

constexpr int kBlock = 32;        // values of a block of the simple types
constexpr int kSuperBlock = 256;  // values of a block of the K, IQ and TQ types
constexpr int kBlock64 = 64;      // of NVFP4 and Q2_0
constexpr int kBlock128 = 128;    // of Q1_0

// x[i] = d * (q - 8); x[0..15] low, x[16..31] high
struct BlockQ4_0 {
  uint16_t d;
  uint8_t qs[16];
};

// x[i] = d * q + m; nibbles as in Q4_0
struct BlockQ4_1 {
  uint16_t d, m;
  uint8_t qs[16];
};

// x[i] = d * (q - 16); four bits as in Q4_0, the fifth of x[i] is bit i of the little-endian word qh
struct BlockQ5_0 {
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};

// x[i] = d * q + m; bits as in Q5_0
struct BlockQ5_1 {
  uint16_t d, m;
  uint8_t qh[4];
  uint8_t qs[16];
};

// x[i] = d * qs[i]
struct BlockQ8_0 {
  uint16_t d;
  int8_t qs[32];
};

// 16 groups of 16: x[i] = d * (scales[g] low) * q - dmin * (scales[g] high), g = i / 16.
// Two bits: byte 32 * h + l of qs (h = 0, 1) holds x[128 * h + 32 * j + l] in bits 2j, 2j+1 (j = 0..3).
struct BlockQ2K {
  uint8_t scales[16];
  uint8_t qs[64];
  uint16_t d, dmin;
};

// 16 groups of 16: x[i] = d * (s[g] - 32) * (q - 4 * (1 - h)).
// Low two bits q as in Q2_K; third bit h of x[32 * k + l] is bit k of hmask[l].
// s[g] has 6 bits: low four in nibble (low for g < 8, high for g >= 8) of scales[g % 8],
// high two in bits 2 * (g / 4) of scales[8 + g % 4].
struct BlockQ3K {
  uint8_t hmask[32];
  uint8_t qs[64];
  uint8_t scales[12];
  uint16_t d;
};

// 8 groups of 32: x[i] = d * sc[g] * q - dmin * mn[g].
// Nibbles: byte 32 * k + l of qs holds x[64 * k + l] low, x[64 * k + 32 + l] high.
// Scales of 6 bits: g < 4: sc = scales[g] & 63, mn = scales[g + 4] & 63;
// g >= 4: sc = scales[g + 4] low | (scales[g - 4] >> 6) << 4, mn = scales[g + 4] high | (scales[g] >> 6) << 4.
struct BlockQ4K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qs[128];
};

// Q4_K with a fifth bit: that of x[32 * k + l] is bit k of qh[l]
struct BlockQ5K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};

// 16 groups of 16: x[i] = d * scales[g] * (q - 32).
// Halves h = 0, 1 of 128: low four bits of x[128h + l] and x[128h + 64 + l] (l < 64) are low and high of ql[64h + l];
// high two bits of x[128h + 32j + l] (l < 32) are bits 2j of qh[32h + l].
struct BlockQ6K {
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};

// x[i] = d * kIq4Values[q]; nibbles as in Q4_0
struct BlockIQ4NL {
  uint16_t d;
  uint8_t qs[16];
};

// 8 groups of 32: x[i] = d * (s[g] - 32) * kIq4Values[q]; nibbles of group g as in Q4_0 in qs[16 * g ..].
// s[g]: low four bits in nibble g of scales_l (low first), high two in bits 2g of scales_h.
struct BlockIQ4XS {
  uint16_t d;
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];
};

// The IQ types store indices of code-book vectors of 8 (IQ1, IQ2) or 4 (IQ3) magnitudes, and signs; dequantize_iq.cpp
// has the formulas.
struct BlockIQ2XXS {
  uint16_t d;
  uint16_t qs[32];  // per 32 values: 4 indices of 8 bits, then 4 sign words of 7 bits and a scale of 4 bits
};
struct BlockIQ2XS {
  uint16_t d;
  uint16_t qs[32];  // per 8 values: index of 9 bits, sign word of 7 bits
  uint8_t scales[8];
};
struct BlockIQ2S {
  uint16_t d;
  uint8_t qs[32];     // per 8 values: low 8 bits of the index
  uint8_t signs[32];  // per 8 values: one bit each
  uint8_t qh[8];      // per 32 values: high two bits of 4 indices
  uint8_t scales[8];
};
struct BlockIQ3XXS {
  uint16_t d;
  uint8_t qs[64];     // per 4 values: index
  uint8_t signs[32];  // per 32 values: 4 sign words of 7 bits and a scale of 4 bits
};
struct BlockIQ3S {
  uint16_t d;
  uint8_t qs[64];     // per 4 values: low 8 bits of the index
  uint8_t qh[8];      // per 32 values: high bit of 8 indices
  uint8_t signs[32];  // per 8 values: one bit each
  uint8_t scales[4];
};
struct BlockIQ1S {
  uint16_t d;
  uint8_t qs[32];   // per 8 values: low 8 bits of the index
  uint16_t qh[8];   // per 32 values: high 3 bits of 4 indices, scale of 3 bits, sign of the offset
};
struct BlockIQ1M {
  uint8_t qs[32];     // per 8 values: low 8 bits of the index
  uint8_t qh[16];     // per 8 values a nibble: high 3 bits of the index, sign of the offset
  uint8_t scales[8];  // scales of 3 bits per 16 values; the top four bits of each of 4 words make the f16 d
};

// Ternary, x[i] = d * (t - 1). TQ1_0: five (qs) or four (qh) base-3 digits a byte, as a fraction of 256.
struct BlockTQ1_0 {
  uint8_t qs[48];
  uint8_t qh[4];
  uint16_t d;
};
// two bits, placed as in Q2_K
struct BlockTQ2_0 {
  uint8_t qs[64];
  uint16_t d;
};

// x[i] = 2^(e - 127) * E2M1 value; nibbles as in Q4_0
struct BlockMXFP4 {
  uint8_t e;
  uint8_t qs[16];
};
// 4 groups of 16 with an unsigned E4M3 scale each; group g: x[0..7] low, x[8..15] high of qs[8 * g ..]
struct BlockNVFP4 {
  uint8_t d[4];
  uint8_t qs[32];
};
// x[i] = bit i of qs ? d : -d
struct BlockQ1_0 {
  uint16_t d;
  uint8_t qs[16];
};
// x[i] = d * (q - 1); bits 2 * (i % 4) of qs[i / 4]
struct BlockQ2_0 {
  uint16_t d;
  uint8_t qs[16];
};

// IQ4_NL, IQ4_XS: sixteen levels, denser near zero
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
// MXFP4, NVFP4: twice the E2M1 values, so that they are whole numbers
inline constexpr int8_t kE2m1Doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

// Bytes of a block, for kernels that step from block to block.
enum : int {
  kBytesQ4_0 = sizeof(BlockQ4_0),
  kBytesQ8_0 = sizeof(BlockQ8_0),
  kBytesQ4K = sizeof(BlockQ4K),
  kBytesQ5K = sizeof(BlockQ5K),
  kBytesQ6K = sizeof(BlockQ6K),
};

// The table of types and these structs say the same.
template <class Block>
constexpr bool isBlockOf(DType type, uint32_t values = kSuperBlock) {
  return dtypeInfo(type)->bytes == sizeof(Block) && dtypeInfo(type)->block == values && alignof(Block) <= 2;
}
static_assert(isBlockOf<BlockQ4_0>(DType::q4_0, kBlock) && isBlockOf<BlockQ4_1>(DType::q4_1, kBlock));
static_assert(isBlockOf<BlockQ5_0>(DType::q5_0, kBlock) && isBlockOf<BlockQ5_1>(DType::q5_1, kBlock));
static_assert(isBlockOf<BlockQ8_0>(DType::q8_0, kBlock) && isBlockOf<BlockIQ4NL>(DType::iq4_nl, kBlock));
static_assert(isBlockOf<BlockQ2K>(DType::q2_k) && isBlockOf<BlockQ3K>(DType::q3_k) && isBlockOf<BlockQ4K>(DType::q4_k));
static_assert(isBlockOf<BlockQ5K>(DType::q5_k) && isBlockOf<BlockQ6K>(DType::q6_k));
static_assert(isBlockOf<BlockIQ4XS>(DType::iq4_xs) && isBlockOf<BlockIQ2XXS>(DType::iq2_xxs));
static_assert(isBlockOf<BlockIQ2XS>(DType::iq2_xs) && isBlockOf<BlockIQ2S>(DType::iq2_s));
static_assert(isBlockOf<BlockIQ3XXS>(DType::iq3_xxs) && isBlockOf<BlockIQ3S>(DType::iq3_s));
static_assert(isBlockOf<BlockIQ1S>(DType::iq1_s) && isBlockOf<BlockIQ1M>(DType::iq1_m));
static_assert(isBlockOf<BlockTQ1_0>(DType::tq1_0) && isBlockOf<BlockTQ2_0>(DType::tq2_0));
static_assert(isBlockOf<BlockMXFP4>(DType::mxfp4, kBlock) && isBlockOf<BlockNVFP4>(DType::nvfp4, kBlock64));
static_assert(isBlockOf<BlockQ1_0>(DType::q1_0, kBlock128) && isBlockOf<BlockQ2_0>(DType::q2_0, kBlock64));

}  // namespace pg
