#pragma once
// Decoders by type, used through dequantizeRow(). n is a multiple of the block size.
#include "format/blocks.h"

namespace pg {

void dequantize(const BlockQ4_0* blocks, float* y, int64_t n);
void dequantize(const BlockQ4_1* blocks, float* y, int64_t n);
void dequantize(const BlockQ5_0* blocks, float* y, int64_t n);
void dequantize(const BlockQ5_1* blocks, float* y, int64_t n);
void dequantize(const BlockQ8_0* blocks, float* y, int64_t n);
void dequantize(const BlockQ2K* blocks, float* y, int64_t n);
void dequantize(const BlockQ3K* blocks, float* y, int64_t n);
void dequantize(const BlockQ4K* blocks, float* y, int64_t n);
void dequantize(const BlockQ5K* blocks, float* y, int64_t n);
void dequantize(const BlockQ6K* blocks, float* y, int64_t n);
void dequantize(const BlockIQ4NL* blocks, float* y, int64_t n);
void dequantize(const BlockIQ4XS* blocks, float* y, int64_t n);
void dequantize(const BlockIQ2XXS* blocks, float* y, int64_t n);
void dequantize(const BlockIQ2XS* blocks, float* y, int64_t n);
void dequantize(const BlockIQ2S* blocks, float* y, int64_t n);
void dequantize(const BlockIQ3XXS* blocks, float* y, int64_t n);
void dequantize(const BlockIQ3S* blocks, float* y, int64_t n);
void dequantize(const BlockIQ1S* blocks, float* y, int64_t n);
void dequantize(const BlockIQ1M* blocks, float* y, int64_t n);
void dequantize(const BlockTQ1_0* blocks, float* y, int64_t n);
void dequantize(const BlockTQ2_0* blocks, float* y, int64_t n);
void dequantize(const BlockMXFP4* blocks, float* y, int64_t n);
void dequantize(const BlockNVFP4* blocks, float* y, int64_t n);
void dequantize(const BlockQ1_0* blocks, float* y, int64_t n);
void dequantize(const BlockQ2_0* blocks, float* y, int64_t n);

// The 6-bit scale and minimum of group g (0..7) of Q4_K and Q5_K.
inline void unpackScaleMin(const uint8_t* scales, int g, int& scale, int& min) {
  if (g < 4) {
    scale = scales[g] & 63;
    min = scales[g + 4] & 63;
  } else {
    scale = (scales[g + 4] & 15) | (scales[g - 4] >> 6) << 4;
    min = scales[g + 4] >> 4 | (scales[g] >> 6) << 4;
  }
}

// The 6-bit scale of group g (0..15) of Q3_K, 0..63.
inline int unpackScaleQ3K(const uint8_t* scales, int g) {
  const int low = g < 8 ? scales[g] & 15 : scales[g - 8] >> 4;
  return low | ((scales[8 + g % 4] >> (2 * (g / 4))) & 3) << 4;
}

}  // namespace pg
