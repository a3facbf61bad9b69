// Activations for the tensor cores: each row is brought into the range of f16 by a power of two, then rounded.
#include "gpu/kernels/common.h"

KERNELS_BEGIN

// A group a row. halves: [row][part][padded] f16 or bf16, with zeros behind the row's values; the second part is what
// rounding took from the first. factors: what a product's sums are multiplied with.
KERNEL(256, half_rows, (HalvesArgs, uint16_t* halves, float* factors, const float* x, int32_t* trouble)) {
  TG_ARRAY(float, part, 256 / kWarp);
  const Place at = PLACE;
  constexpr uint32_t kBias = 127, kTop = 13;   // the largest value comes between 2^13 and 2^14
  GLOBAL const float* row = x + size_t(at.x) * a.xStride;
  float most = 0;
  for (uint32_t c = at.index; c < a.cols; c += 256) {
    most = fmaxf(most, fabsf(row[c]));
    if (notFinite(row[c])) *trouble = 1;
  }
  most = blockMax<256>(at, most, part);
  const uint32_t exponent = asBits(most) >> 23;
  const uint32_t up = exponent < 40 || exponent == 255 ? 0 : 1;   // tiny or no number: as it is
  const float scale = up ? asFloat((2 * kBias + kTop - exponent) << 23) : 1.0f;
  if (at.index == 0) factors[at.x] = 1.0f / scale;
  GLOBAL uint16_t* to = halves + size_t(at.x) * a.parts * a.padded;
  for (uint32_t c = at.index; c < a.padded; c += 256) {
    const float v = c < a.cols ? row[c] * scale : 0.0f;
    const uint16_t first = a.brain ? floatToBf16(v) : floatToHalf(v);
    to[c] = first;
    if (a.parts == 1) continue;
    const float rest = v - (a.brain ? bf16ToFloat(first) : halfToFloat(first));
    to[a.padded + c] = a.brain ? floatToBf16(rest) : floatToHalf(rest);
  }
}

KERNELS_END
